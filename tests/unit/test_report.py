"""The report: one page, self-contained, that says no more than was shown."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html import escape
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from report_world import ODDS, SEARCH
from safety_world import TRAINING, WARNINGS, constitution, evidence, submission

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.card import write_card
from safescale_ammt.reporting import charts, history_charts
from safescale_ammt.reporting.measure_bar import Measure, measure_bar, measures_of
from safescale_ammt.reporting.report import MAX_BYTES, render
from safescale_ammt.reporting.wording import HEADLINES, guarantee, limits

HOSTILE = "<script>alert('x')</script>"
POWER = {
    "principles": [{"principle": "equal-opportunity", "table": ODDS}],
    "table": ODDS,
    "spread": {"scale": None, "passes": 0.93},
    "required": 0.8,
}


@cache
def verdict(gap: float = 0.0, **about: Any) -> Verdict:
    return assemble(
        constitution(), evidence(gap=gap), submission("sha256:m", **about), "sha256:e"
    )


@cache
def page(gap: float = 0.0) -> str:
    return render(
        verdict(gap), constitution(), training=TRAINING, search=SEARCH, power=POWER
    )


class Reader(HTMLParser):
    """Collects tags, ids and addresses, and checks that tags close in order."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name.endswith(("href", "src")):
                self.addresses.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_is_small_closed_and_loads_nothing() -> None:
    found = read(page())

    assert len(page().encode()) < MAX_BYTES / 10
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert all(a.startswith("#") for a in found.addresses)
    assert "default-src 'none'" in page()
    assert not re.search(r"url\((?!#)", page())


def test_no_two_elements_share_an_id_and_every_reference_has_a_target() -> None:
    found = read(page())

    assert len(found.ids) == len(set(found.ids))
    assert {a.removeprefix("#") for a in found.addresses} <= set(found.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page())) <= set(found.ids)


def test_every_picture_is_sound_xml_with_a_title_and_a_description() -> None:
    pictures = re.findall(r"<svg xmlns:xlink.*?</svg>", page(), re.DOTALL)

    assert len(pictures) == 19
    for svg in pictures:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        named = {child.tag: child.text for child in root}
        assert named["title"]
        assert named["desc"]


def test_those_who_do_not_see_a_drawing_of_rates_are_told_its_numbers() -> None:
    model, twin = (
        verdict().figures[who]["groups"]["sex"]["rates"] for who in ("model", "twin")
    )
    told = re.findall(r"<desc [^>]*>([^<]*)</desc>", page())

    for kind in ("selection", "tpr", "fpr", "error"):
        words = ". ".join(
            f"{a['value']}: model {a[kind]['value']:.4f}, twin {b[kind]['value']:.4f}"
            for a, b in zip(model, twin, strict=True)
        )
        assert words in told
    assert charts.side_by_side(["few"], [[None], [0.5]]) == (
        "few: model not defined, twin 0.5000"
    )


def test_the_same_verdict_gives_the_same_bytes() -> None:
    again = render(
        verdict(), constitution(), training=TRAINING, search=SEARCH, power=POWER
    )

    assert again == page()


def test_the_first_screen_says_what_was_decided_promised_and_measured() -> None:
    head = page()[: page().index("<h2>Pictures")]
    finding = verdict().findings[0]

    assert "Every hard promise is shown to be kept." in head
    assert "owned by risk-team" in head
    assert "true-positive-rate gap by sex ≤ 0.2" in head
    assert f"{finding.value:.4f}" in head
    assert f"{finding.lower:.4f} to {finding.upper:.4f}" in head
    assert "700" in head
    assert "guarantee: holds" in head
    for digest in (verdict().model, verdict().constitution, verdict().evidence):
        assert digest in head


def test_a_refused_model_says_why() -> None:
    assert HEADLINES["fail"] in page(0.5)
    assert "equal-opportunity is violated" in page(0.5)
    assert '<span class="pill fails">fails</span>' in page(0.5)


def test_absent_parts_are_said_to_be_absent() -> None:
    text = render(verdict(), constitution())

    assert "Absent: the training log holds no rounds." in text
    assert "Absent: no search log came with the architecture." in text
    assert "Absent: no power check came with the architecture." in text


def test_the_guarantee_says_no_more_than_the_design_allows() -> None:
    rule = constitution()

    assert "probability at most 0.05" in guarantee(verdict(), rule)
    spent = verdict(number=2, guarantee="spent")
    assert guarantee(spent, rule).startswith("None: this is use 2")
    rehearsed = verdict(mode="rehearsal", number=0, guarantee="none")
    assert guarantee(rehearsed, rule).startswith("None: a rehearsal")
    assert any("no certificate" in line for line in limits(spent, rule))
    assert any("not the probability" in line for line in limits(verdict(), rule))
    # Of no guarantee there is nothing to misunderstand.
    for none in (spent, rehearsed):
        assert not any("not the probability" in line for line in limits(none, rule))


def test_a_use_beyond_the_plan_is_no_second_of_one() -> None:
    for number, told in ((1, "1 of 1<small>guarantee"), (3, "3<small>1 planned; gu")):
        use = "holds" if number == 1 else "spent"
        page = render(verdict(number=number, guarantee=use), constitution())
        assert f"<dd>{told}" in page


def test_a_rehearsal_and_a_research_verdict_wear_a_banner() -> None:
    facts = {"number": 0, "guarantee": "none"}
    both = verdict(mode="rehearsal", ledger="research", **facts)
    text = render(both, constitution())

    assert "This is a rehearsal." in text
    assert "This is a research verdict." in text


def hostile_rule() -> Constitution:
    rule = constitution(text=HOSTILE)
    equal, parity, useful = rule.principles
    constraint = replace(equal.constraint, group=HOSTILE)
    principles = (replace(equal, id=HOSTILE, constraint=constraint), parity, useful)
    return replace(rule, id=HOSTILE, owner=HOSTILE, principles=principles)


def test_everything_from_a_file_is_escaped() -> None:
    rows = evidence()
    _, codes = rows.groups["sex"]
    groups = {HOSTILE: ((HOSTILE, "$x^{"), codes), "race": rows.groups["race"]}
    rule = hostile_rule()
    about = replace(submission("sha256:m"), classes=(HOSTILE, "yes"))
    judged = assemble(rule, replace(rows, groups=groups), about, HOSTILE)
    training = [
        {**e, "violation": {HOSTILE: 0.1, "$$": 0.2}, "multiplier": {}}
        for e in TRAINING
    ]
    text = render(judged, rule, training=training)

    assert "<script" not in text
    assert "&lt;script&gt;" in text
    read(text)


def multi_class() -> tuple[Constitution, Verdict]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 900)
    prediction = np.where(rng.random(900) < 0.8, label, 0)
    rows = Evidence(
        label=label,
        prediction=prediction,
        score=rng.random(900),
        groups={"sex": (("f", "m"), rng.integers(0, 2, 900))},
        twin_prediction=prediction,
        twin_score=rng.random(900),
        classes=3,
        positive=None,
    )
    rule = constitution()
    rule = replace(rule, principles=(rule.principles[0], rule.principles[2]))
    about = replace(submission("sha256:m"), classes=("a", "b", "c"), positive="")
    return rule, assemble(rule, rows, about, "sha256:e")


def test_more_than_two_classes_have_errors_but_no_one_calibration_curve() -> None:
    rule, judged = multi_class()
    text = render(judged, rule)

    assert "Absent: scores of more than two classes have no one curve." in text
    assert ">Errors</th>" in text
    assert ">False alarms</th>" not in text
    read(text)


def test_too_many_groups_are_a_table_and_no_chart() -> None:
    figures = verdict().figures
    rates = figures["model"]["groups"]["sex"]["rates"]
    many = {"rates": rates * 10, "gaps": {}}
    both = {"model": {"groups": {"sex": many}}, "twin": {"groups": {"sex": many}}}
    found = charts.group_rates(0, "sex", both, "yes")

    assert found.svg == ""
    assert "20 groups are too many to draw" in found.absent


def test_a_share_of_a_few_rows_is_in_no_picture_no_table_and_no_card() -> None:
    whole = verdict()
    for who in ("model", "twin"):
        rates = whole.figures[who]["groups"]["sex"]["rates"]
        few = {"value": 0.7654321, "lower": 0.1, "upper": 0.9, "n": 9}
        rates[0] |= {k: few for k, v in rates[0].items() if isinstance(v, dict)}
        rates[0]["n"] = 9
    text = render(whole, constitution())

    assert "76.54" not in text
    assert "0.7654" not in text
    assert text.count(">under 10<") > 2
    read(text)
    schema = {"features": [], "label": "y", "positive": "yes", "sensitive": ["sex"]}
    schema["classes"] = ["no", "yes"]
    card = write_card(
        whole, "sha256:v", constitution(), schema, name="loans", description=""
    )
    assert "76.54" not in card
    assert "| under 10 | – |" in card


def test_no_gap_at_all_is_said_to_be_absent() -> None:
    useful = verdict().findings[2]

    assert charts.gap_bounds([useful]).absent == "no principle bounds a gap from above"


def test_a_twin_chart_without_groups_shows_the_accuracies_alone() -> None:
    figures = {
        who: {**verdict().figures[who], "groups": {}} for who in ("model", "twin")
    }

    assert "Accuracy" in charts.twin_comparison(figures, {"sex"}).svg


def test_training_with_lost_agents_and_one_agent_is_drawn() -> None:
    lost = [
        {**e, "loss": [None, 0.3] if e["step"] else [None, None], "twin_loss": [0.4]}
        for e in TRAINING
    ]
    trunk = [{"event": "trunk", "step": s, "loss": [0.9]} for s in (0, 20)]
    single = [{"event": "round", "step": s, "loss": 0.5} for s in (0, 20)]

    whole = history_charts.training_curves([*trunk, *lost])
    assert "trunk" in whole.svg
    assert "the twin, after the common trunk. Violation" in whole.caption
    # Boosters have none in common.
    told = history_charts.training_curves(lost).caption
    # A ratio or a recall is no gap.
    assert "the twin. Violation: by how much a line is missed" in told
    assert "gap" not in told
    assert history_charts.training_curves(single).svg


@pytest.mark.parametrize(
    ("op", "line", "lower", "upper", "outcome"),
    [
        ("<=", 0.1, 0.0, 0.05, "holds"),
        ("<=", 0.1, 0.2, 0.3, "fails"),
        (">=", 0.8, 0.85, 0.9, "holds"),
        (">=", -0.01, -0.05, -0.02, "fails"),
        ("<=", 0.0, 0.0, 0.0, "holds"),
    ],
)
def test_a_measure_bar_stays_inside_its_frame(
    op: str, line: float, lower: float, upper: float, outcome: str
) -> None:
    measure = Measure("gap", op, line, (lower + upper) / 2, lower, upper, outcome)
    root = ElementTree.fromstring(measure_bar(measure))

    for child in root:
        for name in ("x", "cx", "x1", "x2"):
            assert 0 <= float(child.get(name, 0)) <= 230
    assert outcome in str(root.get("aria-label"))


def test_a_utility_promise_shows_both_its_lines() -> None:
    useful = verdict().findings[2]
    against_twin, floor = measures_of(useful)

    assert (against_twin.line, floor.line) == (-0.02, 0.7)
    assert floor.value == verdict().accuracy
    assert floor.outcome == against_twin.outcome == "holds"
    assert measures_of(replace(useful, floor=0.99))[1].outcome == "fails"
    assert measures_of(replace(useful, floor=verdict().accuracy))[1].outcome == (
        "undecided"
    )


def test_warnings_about_the_data_stand_before_the_promises_in_their_own_words():
    whole = render(verdict(), constitution(), warnings=WARNINGS)
    head, promises = whole.split("What was promised")
    for warning in WARNINGS:
        assert head.count(escape(warning.sentence)) == 1
        assert escape(warning.sentence) not in promises
    assert "<for>" not in whole
    first, folded = head.split("<details><summary>and 2 more</summary>")
    assert escape(WARNINGS[5].sentence) in first
    assert escape(WARNINGS[6].sentence) in folded
    assert head.index('class="decision') < head.index("Warnings about the data")


def test_a_page_without_warnings_has_no_section_for_them():
    assert "Warnings about the data" not in page()
    few = render(verdict(), constitution(), warnings=WARNINGS[:2])
    assert "<details>" not in few
    Reader().feed(render(verdict(), constitution(), warnings=WARNINGS))


def test_the_picture_of_the_search_says_what_it_cost_and_whether_it_had_a_control() -> (
    None
):
    control = {**SEARCH, "strategy": "random"}
    nothing = {"schema": 1, "strategy": "none", "candidates": []}
    both = history_charts.search_front(SEARCH, control).caption
    assert both.startswith(
        "8 candidates by local search in 1,440 optimizer steps, and as a control "
        "8 candidates by random search in 1,440 optimizer steps. "
    )
    for absent in (None, nothing):
        alone = history_charts.search_front(SEARCH, absent).caption
        assert "in 1,440 optimizer steps, no control. " in alone
    one = {**SEARCH, "candidates": SEARCH["candidates"][:1]}
    assert history_charts.search_front(one, None).caption == (
        "One candidate, measured in 1,440 optimizer steps; nothing was searched."
    )
    rounds = {**SEARCH, "budget": {"unit": "boosting rounds", "spent": 90}}
    of_trees = history_charts.search_front(rounds, None).caption
    assert "8 candidates by local search in 90 boosting rounds, " in of_trees
