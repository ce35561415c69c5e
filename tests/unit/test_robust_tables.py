"""Robust accuracy on tables as a promise: read, judged, checked for power, told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_world import outcomes, promise
from promises import adult_counts
from safety_world import constitution as plain
from safety_world import evidence, hashes, submission

from pipelines.cli import run_command
from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import Principle
from safescale_ammt.constitution.promise_warnings import (
    not_aimed_at,
    promise_warnings,
)
from safescale_ammt.errors import ConstitutionError, IntegrityError
from safescale_ammt.judging.assembly import assemble, judge_all, problems
from safescale_ammt.judging.drawn_rows import drawn
from safescale_ammt.judging.evidence import (
    evidence_digest,
    read_evidence,
    write_evidence,
)
from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED, Finding
from safescale_ammt.judging.power.check import power_check
from safescale_ammt.judging.robust import wrongly_drawn
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting.attack_table import NOT_AIMED_AT, attack_section
from safescale_ammt.reporting.shortfalls import shortfalls

STOOD, BROKE, WRONG, OUT = (
    "survived",
    "broken by age",
    "wrong as it is",
    "not drawn",
)
MORE = {
    "changes": 3,
    "columns": {name: {"by": 2, "step": 1} for name in ("age", "hours", "gain")},
}


def judged(words: list[str], rule: Constitution) -> Finding:
    (finding,) = judge_all(rule, outcomes(words, rule), 10)
    return finding


def verdict(words: list[str], rule: Constitution) -> Verdict:
    return assemble(rule, outcomes(words, rule), submission("model"), "sha256:0")


def refused(threat: Any, *, api: bool = False) -> str:
    with pytest.raises(ConstitutionError) as refusal:
        promise(threat=threat) if not api else Constitution.from_dict(
            promise(threat=threat).to_dict(), attacks=True
        )
    return str(refusal.value)


def test_the_share_of_survivors_is_a_rate_with_its_exact_bounds() -> None:
    words = [STOOD] * 800 + [BROKE] * 120 + [WRONG] * 80
    found = judged(words, promise(0.75))
    assert found.value == 0.8
    assert (found.lower, found.upper) == clopper_pearson(800, 1000, 0.05)
    assert found.outcome == HOLDS
    assert found.method == "Clopper-Pearson, every permitted change"
    assert found.reason.startswith("robust_accuracy under 1 change of age ±2 by 1 is")
    assert judged(words, promise(0.85)).outcome == FAILS
    assert judged(words, promise(0.8)).outcome == UNDECIDED


def test_by_groups_it_is_that_of_the_group_where_it_is_least() -> None:
    # Women stand in rows of even numbers: 300 of 400; of the men 380 of 400.
    words = [STOOD, STOOD] * 300 + [BROKE, STOOD] * 80 + [BROKE, BROKE] * 20
    found = judged(words, promise(0.65, group="sex"))
    assert found.value == 0.75
    assert found.lower == pytest.approx(clopper_pearson(300, 400, 0.05)[0])
    assert found.outcome == HOLDS
    assert [(g.value, g.hits, g.trials) for g in found.by_group] == [
        ("f", 300, 400),
        ("m", 380, 400),
    ]
    assert judged(words, promise(0.85, group="sex")).outcome == FAILS
    few = judged(words[:90], promise(0.2, group="sex"))
    assert (few.outcome, few.too_small) == (UNDECIDED, ("f", "m"))


def test_rows_that_were_not_drawn_count_nowhere_and_are_told() -> None:
    words = [STOOD] * 450 + [BROKE] * 50 + [OUT] * 500
    found = judged(words, promise(0.8))
    assert found.value == 0.9
    assert (found.lower, found.upper) == clopper_pearson(450, 500, 0.05)
    assert (
        "It speaks of 500 of 1,000 rows, drawn by the holdout's digest" in found.reason
    )
    by_sex = judged(words, promise(0.8, group="sex"))
    assert [g.trials for g in by_sex.by_group] == [250, 250]
    assert "It speaks of 500 of 1,000 rows" in by_sex.reason


@pytest.mark.parametrize("group", [{}, {"group": "sex"}])
def test_a_search_shows_a_violation_and_never_that_a_promise_is_kept(
    group: dict[str, str],
) -> None:
    rule = promise(0.5, threat=MORE, **group)
    stood = judged([STOOD] * 990 + [BROKE] * 10, rule)
    assert (stood.outcome, stood.lower) == (UNDECIDED, 0.0)
    assert stood.method == "Clopper-Pearson, search 1"
    assert "so the figure is an upper bound" in stood.reason
    assert judged([STOOD] * 300 + [BROKE] * 700, rule).outcome == FAILS
    whole = verdict([STOOD] * 990 + [BROKE] * 10, rule)
    assert whole.decision == "needs_human"
    assert "No search shows that a promise is kept." in shortfalls(whole, rule)[0]


def test_the_verdict_says_which_columns_break_rows_and_of_few_no_number() -> None:
    rule = promise(0.75)
    found = verdict([STOOD] * 800 + [BROKE] * 195 + [WRONG] * 5, rule)
    (figures,) = found.figures["attacks"].values()
    assert figures["broken_by"] == {"age": 195}
    assert (figures["rows"], figures["survived"], figures["wrong"]) == (1000, 800, 5)
    assert Verdict.from_dict(found.to_dict()) == found
    few = verdict([STOOD] * 800 + [BROKE] * 9, rule)
    assert next(iter(few.figures["attacks"].values()))["broken_by"] == {}
    # A verdict without attack is written as it was before there were any.
    assert (
        "attacks"
        not in assemble(plain(), evidence(), submission("model"), "sha256:0").to_dict()
    )


def test_outcomes_are_evidence_that_is_written_read_and_digested(tmp_path: Any) -> None:
    rule = promise()
    rows, names = outcomes([STOOD] * 60 + [BROKE] * 40, rule), hashes(100)
    write_evidence(tmp_path / "e", rows, names)
    stated = {key: words for key, (words, _) in rows.attacks.items()}
    asked = {"classes": ("no", "yes"), "positive": "yes", "attacks": stated}
    back, _ = read_evidence(tmp_path / "e", {"sex": ("f", "m")}, **asked)
    for key, (words, codes) in rows.attacks.items():
        assert back.attacks[key][0] == words
        assert (back.attacks[key][1] == codes).all()
    key = next(iter(rows.attacks))
    words, codes = rows.attacks[key]
    other = replace(rows, attacks={key: (words, np.roll(codes, 1))})
    assert evidence_digest(rows, names) != evidence_digest(other, names)
    with pytest.raises(IntegrityError, match=f"Column 'attack:{key}'"):
        read_evidence(tmp_path / "e", {"sex": ("f", "m")}, **{**asked, "attacks": {}})
    few = {key: ("survived", "not drawn")}
    with pytest.raises(IntegrityError, match="the outcomes of an attack, that the"):
        read_evidence(tmp_path / "e", {"sex": ("f", "m")}, **{**asked, "attacks": few})


def test_outcomes_that_contradict_the_answers_beside_them_fail() -> None:
    rule = promise(0.5)
    rows = outcomes([STOOD] * 900 + [WRONG] * 100, rule)
    assert problems(rows) == ()
    right = replace(rows, prediction=rows.label)
    assert "100 outcomes of attack" in problems(right)[0]
    found = assemble(rule, right, submission("model"), "sha256:0")
    assert found.decision == "fail"
    with pytest.raises(IntegrityError, match="does not say what became of rows under"):
        judge_all(rule, replace(rows, attacks={}), 10)
    key = next(iter(rows.attacks))
    renamed = (("survived", "wrong as it is", "not drawn", "x"), rows.attacks[key][1])
    assert (
        "not those of an attack" in problems(replace(rows, attacks={key: renamed}))[0]
    )


def test_rows_that_someone_chose_are_not_those_that_the_digest_draws() -> None:
    rule, names = promise(), hashes(200)
    mask = drawn("holdout", names, 80)
    rows = outcomes([STOOD if chosen else OUT for chosen in mask], rule)
    assert wrongly_drawn(rows, names, "holdout") == ""
    assert "other rows than the holdout's digest" in wrongly_drawn(rows, names, "other")
    assert wrongly_drawn(outcomes([STOOD] * 200, rule), names, "holdout") == ""


def test_the_power_check_takes_it_for_a_rate() -> None:
    counts = adult_counts()
    certain = power_check(promise(0.7), counts, draws=300)
    as_accuracy = Constitution.from_dict(
        {"schema": 1, "principles": [{"id": "a", "constraint": ACCURACY}]}
    )
    usual = power_check(as_accuracy, counts, draws=300)
    assert certain.certifiable
    assert certain.principles[0].table == usual.principles[0].table
    grouped = power_check(promise(0.7, group="sex"), counts, draws=300)
    assert grouped.certifiable
    assert grouped.principles[0].attack == "1 change of age ±2 by 1"
    # At the line itself a pass is a false one.
    assert grouped.principles[0].table[3].passes <= 0.05 + 0.04
    tight = power_check(promise(0.999, group="sex"), counts, draws=300)
    assert not tight.certifiable
    assert tight.principles[0].least is not None
    assert "robust_accuracy by sex under 1 change of age" in tight.sentence


ACCURACY = {"metric": "accuracy", "threshold": 0.7}


def test_a_hard_promise_that_is_searched_is_told_before_anything_is_spent() -> None:
    found = power_check(promise(0.5, threat=MORE), adult_counts(), draws=100)
    assert not found.certifiable
    assert "can never pass, because a search for more than 2 changes" in found.sentence
    soft = promise(0.5, threat=MORE, tier="soft")
    assert power_check(soft, adult_counts(), draws=100).certifiable


def principle(**rest: Any) -> Principle:
    return promise(**rest).principles[0]


def test_a_threat_reads_as_it_is_written_and_has_one_digest() -> None:
    own = principle(
        threat={
            "changes": 2.0,
            "columns": {
                "job": ["part", "full", "part"],
                "gain": {"share": 0.1, "step": 0.05, "range": [0, 10]},
                "age": {"by": 2, "step": 1},
                "city": "any",
                "code": [1, 2],
            },
            "sensitive": ["job"],
        }
    )
    assert own.promise == (
        "robust_accuracy under 2 changes of age ±2 by 1, city to any value, code to 1 "
        "or 2, gain ±0.1 of itself by 0.05 in [0, 10], job to full or part >= 0.7"
    )
    assert not own.enforce
    rule = promise(threat=own.to_dict()["constraint"]["threat"])
    assert rule.principles[0] == own
    assert Constitution.from_dict(rule.to_dict()).digest == rule.digest


@pytest.mark.parametrize(
    ("threat", "says"),
    [
        ({}, "threat.columns names no column that may be changed"),
        ({"changes": 1, "columns": {}}, "names no column that may be changed"),
        ({"changes": 0, "columns": {"age": "any"}}, "changes must be a whole number"),
        (
            {"changes": 2, "columns": {"age": "any"}},
            "changes is 2, but 1 of the columns",
        ),
        (
            {"columns": {"age": {"by": 2}}},
            "moves by nothing: by is 2.0 and step is None",
        ),
        ({"columns": {"age": {"by": 0, "step": 1}}}, "moves by nothing: by is 0.0"),
        ({"columns": {"age": {"step": 1}}}, "must say either by"),
        ({"columns": {"age": {"by": 1, "share": 1, "step": 1}}}, "must say either by"),
        ({"columns": {"age": {"by": 1e6, "step": 1}}}, "by 1,000,000 steps to either"),
        ({"columns": {"age": {"by": 2, "step": 1, "range": [3, 1]}}}, "age.range must"),
        ({"columns": {"age": {"by": 2, "step": 1, "rnge": []}}}, "Unknown key 'rnge'"),
        ({"columns": {"age": 2}}, "a number may move, as {by: 2, step: 1}"),
        ({"columns": {"job": []}}, "a category may become one of a list of texts"),
        ({"columns": {"job": [1.5]}}, "a category may become one of a list of texts"),
        ({"columns": {1: "any"}}, "threat.columns has 1, no column's name"),
        ({"columns": {"a\nb": "any"}}, "no column's name"),
        ({"columns": ["age"]}, "names no column that may be changed"),
        ({"columns": {"age": "any"}, "sensitive": ["sex"]}, "sensitive is ['sex']; it"),
        ({"columns": {"age": "any"}, "immutable": []}, "Unknown key 'immutable'"),
        ("all", "threat must be a mapping, found str"),
    ],
)
def test_a_threat_that_says_nothing_is_one_clear_sentence(
    threat: Any, says: str
) -> None:
    sentence = refused(threat)
    assert says in sentence
    assert sentence.count("\n") == 0


def test_either_judge_says_which_threats_are_its_own() -> None:
    table = {"changes": 1, "columns": {"age": {"by": 2, "step": 1}}}
    assert "changes columns of a table, which the pipeline alone does" in refused(
        table, api=True
    )


def test_nothing_trains_for_it() -> None:
    whole = promise().to_dict()
    whole["principles"][0]["train"] = {"enforce": True}
    with pytest.raises(
        ConstitutionError, match="does not train for changes of columns"
    ):
        Constitution.from_dict(whole)


def test_that_nothing_aims_at_it_is_said_beforehand() -> None:
    (said,) = not_aimed_at(promise())
    assert said.startswith("steady is judged and not trained for: training sees no row")
    assert (
        "under 1 change of age ±2 by 1 unless training.changed_copies says so" in said
    )
    assert said in promise_warnings(promise())
    # Of a promise that is trained for, nothing of the kind.
    gap = {"metric": "dp_gap", "group": "sex", "threshold": 0.1}
    fair = Constitution.from_dict(
        {"schema": 1, "principles": [{"id": "fair", "constraint": gap}]}
    )
    assert not_aimed_at(fair) == ()
    assert promise_warnings(fair) == []


def test_the_page_says_that_the_judge_alone_tried_them() -> None:
    page = attack_section(verdict(["survived"] * 300, promise()))
    assert page.count(NOT_AIMED_AT) == 1


def test_a_config_refuses_a_threat_to_what_nobody_may_change() -> None:
    asked = {"changes": 1, "columns": {"sex": "any"}}
    with pytest.raises(ConstitutionError, match=r"say threat.sensitive: \[sex\]"):
        promise(threat=asked).require_changeable(["sex"], ["granted"], in_model=True)
    meant = promise(threat={**asked, "sensitive": ["sex"]})
    meant.require_changeable(["sex"], ["granted"], in_model=True)
    with pytest.raises(ConstitutionError, match="or set data"):
        meant.require_changeable(["sex"], ["granted"], in_model=False)
    with pytest.raises(ConstitutionError, match="no model reads; leave it out"):
        meant.require_changeable([], ["sex"], in_model=False)


def test_a_check_says_so_before_any_row_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"changes": 1, "columns": {"sex": "any"}}
    (tmp_path / "c.yaml").write_text(json.dumps(promise(threat=asked).to_dict()))
    data = {"source": "a.csv", "sealed_source": "b.csv", "label": "granted"}
    data = {**data, "sensitive": ["sex"]}
    config = {"schema": 1, "constitution_file": "c.yaml", "data": data}
    (tmp_path / "w.yaml").write_text(json.dumps(config))
    assert run_command(["constitution", "check", "--config", f"{tmp_path}/w.yaml"]) != 0
    told = capsys.readouterr().err
    assert "changes 'sex', which the data declare sensitive and no model reads" in told
