"""Undefined is not zero: a rate without trials, from the table to the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from promises import constitution, evidence_of, promise
from safety_world import constitution as promises
from safety_world import evidence, submission, write_model, write_verdict
from test_constraints import enforced, rates_of, table
from training_nets import NetsOnRows
from training_world import GENOME, brief

from pipelines.headline import headline, told
from safescale_ammt.constitution.constitution import Constitution, GroupRule
from safescale_ammt.data.counts import Counts
from safescale_ammt.judging.assembly import assemble, rederive
from safescale_ammt.judging.certify import GroupHits, breaches
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.gate import decide
from safescale_ammt.judging.group_rates import group_tables, point_value
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.power.check import power_check
from safescale_ammt.judging.profile import profile, roc
from safescale_ammt.judging.skill import balance
from safescale_ammt.judging.usefulness import doubts, headlines
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.network import initial
from safescale_ammt.releasing.card import write_card
from safescale_ammt.releasing.record import result_statement
from safescale_ammt.reporting import charts
from safescale_ammt.reporting.headline_table import headline_rows
from safescale_ammt.reporting.measure_bar import measure_bar, measures_of
from safescale_ammt.reporting.report import render
from safescale_ammt.reporting.shortfalls import shortfalls
from safescale_ammt.stages.evaluate_safety import summarise
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.fair_head import fit
from safescale_ammt.training.multipliers import NuPI
from safescale_ammt.training.threshold import BALANCED, HALF, ranked_thresholds

RULE = GroupRule(min_n=20, min_pos=10)
TIERS = ("hard", "soft", "inviolable")
# (true positives, false negatives, false positives, true negatives) of each group.
NO_POSITIVE = [(100, 0, 0, 100), (0, 0, 0, 200)]
NO_NEGATIVE = [(100, 0, 0, 100), (200, 0, 0, 0)]
NO_ROW = [(100, 0, 0, 100), (90, 0, 0, 110), (0, 0, 0, 0)]
NOBODY = [(0, 100, 0, 100), (0, 50, 0, 150)]
CASES = [
    ("tpr_gap", 0.08, NO_POSITIVE, "no row of b is positive"),
    ("fpr_gap", 0.08, NO_NEGATIVE, "no row of b is negative"),
    ("eo_difference", 0.08, NO_POSITIVE, "no row of b is positive"),
    ("eo_difference", 0.08, NO_NEGATIVE, "no row of b is negative"),
    ("tpr_gap", 0.08, NO_ROW, "there is no row of c"),
    ("dp_gap", 0.3, NO_ROW, "there is no row of c"),
    ("dp_ratio", 0.8, NO_ROW, "there is no row of c"),
    ("dp_ratio", 0.8, NOBODY, "no row of any group is answered positive"),
    ("worst_group_error", 0.1, NO_ROW, "there is no row of c"),
]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("metric", "line", "cells", "lack"), CASES)
def test_a_perfect_model_is_undecided_not_failed_where_a_rate_has_no_trials(
    metric, line, cells, lack, tier
) -> None:
    gap = {"metric": metric, "group": "g", "threshold": line, "tier": tier}
    accurate = {"metric": "accuracy", "threshold": 0.1}
    rules = constitution(gap, accurate, groups=vars(RULE))
    found = [judge(p, evidence_of(cells), RULE, 0.05) for p in rules.principles]
    finding = found[0]
    assert (finding.outcome, finding.value) == ("undecided", None)
    assert (finding.lower, finding.upper, finding.method) == (None, None, "none")
    assert f"is not defined: {lack}" in finding.reason
    assert not finding.breaches
    decision = decide(rules, found, guarantee="holds")
    assert decision.decision == ("pass" if tier == "soft" else "needs_human")
    assert decision.failed == ()
    # The power check weighs what it draws in the same way.
    rates = group_tables(metric, evidence_of(cells), "g")[0].rates
    small = np.zeros(len(cells), dtype=bool)
    assert not breaches(rules.principles[0].constraint, GroupHits(rates, small))


def test_of_several_classes_the_class_is_named() -> None:
    label = np.array([0, 1, 2] * 100 + [0, 1] * 100)
    groups = {"g": (("a", "b"), np.repeat([0, 1], [300, 200]))}
    rows = Evidence(label, label, np.ones(500), groups, classes=3, positive=None)
    finding = judge(promise("tpr_gap", 0.1, tier="inviolable"), rows, RULE, 0.05)
    assert "not defined: no row of b is of class 2" in finding.reason
    assert point_value("dp_gap", rows, "g") == pytest.approx(1 / 3)
    never = replace(rows, prediction=label % 2)
    ratio = judge(promise("dp_ratio", 0.1), never, RULE, 0.05)
    assert "no row of any group is answered class 2" in ratio.reason


@pytest.mark.parametrize("metric", ["tpr_gap", "dp_gap", "dp_ratio"])
def test_what_the_other_groups_break_is_broken_whatever_a_rate_without_trials(
    metric,
) -> None:
    # Too few rows to show it, enough to measure it: inviolable promises allow none.
    cells = [(15, 5, 0, 10), (9, 11, 0, 10), (0, 0, 0, 0)]
    p = promise(metric, 0.9 if metric == "dp_ratio" else 0.05, tier="inviolable")
    finding = judge(p, evidence_of(cells), RULE, 0.05)
    assert (finding.value, finding.outcome) == (None, "undecided")
    assert finding.breaches
    assert finding.is_broken
    rates = group_tables(metric, evidence_of(cells), "g")[0].rates
    assert breaches(p.constraint, GroupHits(rates, np.zeros(3, dtype=bool)))
    rules = constitution(p.to_dict()["constraint"])
    decision = decide(rules, [replace(finding, principle="p0")], guarantee="holds")
    assert decision.decision == "fail"
    assert "there is no row of c; among all others it is" in decision.reasons[0]
    assert "cannot be judged" not in decision.reasons[0]


def test_a_breach_among_few_rows_is_told_by_its_value() -> None:
    cells = [(18, 0, 0, 10), (2, 3, 0, 30)]
    p = promise("tpr_gap", 0.05, tier="inviolable")
    finding = judge(p, evidence_of(cells), RULE, 0.05)
    assert finding.is_broken
    assert "tpr_gap by g is 0.6000: no breach of <= 0.05 is allowed" in finding.reason


def test_a_single_group_has_no_gap() -> None:
    rows = evidence_of([(50, 10, 10, 50)])
    for metric in ("tpr_gap", "dp_gap", "dp_ratio", "eo_difference"):
        finding = judge(promise(metric, 0.5), rows, RULE, 0.05)
        assert (finding.outcome, finding.value) == ("undecided", None)
        assert "it compares groups, but there is only one" in finding.reason
    assert point_value("worst_group_error", rows, "g") == pytest.approx(1 / 6)


def test_the_profile_has_no_figure_of_no_rows() -> None:
    figures = profile(evidence_of(NO_POSITIVE), 10)["groups"]["g"]
    assert figures["gaps"]["tpr_gap"] is None
    assert figures["gaps"]["eo_difference"] is None
    assert figures["gaps"]["dp_gap"] == pytest.approx(0.5)
    assert figures["rates"][1]["tpr"]["value"] is None
    assert roc(evidence_of([(0, 0, 3, 9)])) is None
    assert roc(evidence_of([(3, 9, 0, 0)])) is None


def test_measures_of_use_without_a_class_have_no_figure() -> None:
    label = np.array([0, 1] * 50)
    rows = Evidence(label, label, np.ones(100), {}, label, np.ones(100), 3, None)
    hits = balance(rows)
    assert np.isnan(hits.value)
    assert not hits.shows_above(0.0, 0.05)
    assert not hits.shows_below(1.0, 0.05)
    figures = headlines(rows, (0.4, 0.4, 0.2))["model"]
    assert figures["balanced_accuracy"] is None
    one_class = replace(rows, label=np.zeros(100, np.int64), classes=2, positive=1)
    assert headlines(one_class, (0.5, 0.5))["model"]["auc"] is None
    unclear = replace(rows, prediction=1 - label)
    said = doubts(
        unclear,
        constitution({"metric": "dp_gap", "group": "g", "threshold": 0.1}),
        ("a", "b", "c"),
    )
    assert "nan" not in " ".join(said)


# --- verdict, record, card and page ---


def rows_without_positives() -> Evidence:
    """The small world's rows, in which no woman is positive."""
    rows = evidence()
    _, sex = rows.groups["sex"]
    label = np.where(sex == 0, 0, rows.label)
    return replace(rows, label=label, prediction=label, score=label * 0.5 + 0.2)


def undefined_verdict() -> tuple[Constitution, Verdict]:
    rule = promises()
    about = submission("sha256:model")
    return rule, assemble(rule, rows_without_positives(), about, "sha256:evidence")


def test_a_verdict_with_an_undefined_rate_is_null_in_json_and_derived_again(
    tmp_path,
) -> None:
    rule = promises()
    write_verdict(
        tmp_path / "v", rule, rows_without_positives(), submission("sha256:model")
    )
    stated = json.loads((tmp_path / "v" / "verdict.json").read_text())
    first = stated["findings"][0]
    assert (first["value"], first["lower"], first["upper"]) == (None, None, None)
    assert [r["rate"] for r in first["by_group"]] == [None, 1.0]
    assert Finding.from_dict(first).to_dict() == first
    assert rederive(tmp_path / "v", rule).decision == "needs_human"


def test_nothing_is_drawn_for_an_undefined_rate() -> None:
    rule, verdict = undefined_verdict()
    finding = verdict.findings[0]
    (measure,) = measures_of(finding)
    bar = measure_bar(measure)
    assert "<circle" not in bar
    assert 'class="range"' not in bar
    assert ">not defined</text>" in bar
    assert "not defined, no bounds; the line is" in measure.sentence
    undrawn = charts.gap_bounds([finding])
    assert "not defined" in undrawn.svg
    defined = replace(finding, value=0.01, lower=0.0, upper=0.02)
    assert charts.gap_bounds([defined]).svg.count("<path") > undrawn.svg.count("<path")
    page = render(verdict, rule)
    assert '<div class="measured">not defined<span class="note">no bounds' in page
    assert "no row of Female is positive" in page
    twin = charts.twin_comparison(verdict.figures, {"sex"})
    assert (
        "true-positive-rate gap, sex: model not defined, twin not defined" in twin.svg
    )
    assert not re.search(r"\bnan\b|\bNone\b", re.sub("<style>.*?</style>", "", page))


def test_card_record_lists_and_advice_say_that_it_is_not_defined(tmp_path) -> None:
    rule, verdict = undefined_verdict()
    schema = {"features": [], "label": "y", "classes": ["no", "yes"]}
    card = write_card(verdict, "sha256:v", rule, schema, name="n", description="")
    assert "| not defined | no bounds | hard | **undecided** |" in card
    assert "no row of Female is positive" in card
    model = write_model(tmp_path / "m", rule)
    tests = result_statement(verdict, rule, model)["predicate"]
    assert "equal-opportunity" in tests["warnedTests"]
    listed = told(headline(verdict.to_dict()))[2]
    assert listed == "tpr_gap by sex not defined (<= 0.2)"
    advice = shortfalls(verdict, rule)[0]
    assert "is not defined, as no row of Female is positive" in advice
    assert "What would help: more sealed rows of these groups" in advice


def test_the_pipeline_s_metrics_leave_out_what_is_not_defined() -> None:
    rule, verdict = undefined_verdict()
    shown = summarise(verdict, rule, rows_without_positives(), "report.html")
    told = {k: v for k, v in shown["metrics"].items() if k.startswith("equal-opp")}
    # What was promised is known, what was measured is not.
    assert set(told) == {f"equal-opportunity.{key}" for key in ("threshold", "holds")}
    assert told["equal-opportunity.holds"] == 0.0
    assert shown["metrics"]["useful.value"] >= 0
    nobody = replace(evidence(), label=np.zeros(700, np.int64))
    verdict = assemble(rule, nobody, submission("sha256:model"), "sha256:e")
    shown = summarise(verdict, rule, nobody, "report.html")
    assert shown["roc"] is None
    assert "auc" not in shown["metrics"]
    assert "balanced_accuracy" not in shown["metrics"]
    rows = {row.name: row.model for row in headline_rows(verdict)}
    assert rows["balanced accuracy"] == rows["AUC"] == "not defined"


def test_the_power_check_draws_no_failure_from_a_group_without_trials() -> None:
    sizes = {"F": {"no": 800, "yes": 0}, "M": {"no": 400, "yes": 400}}
    splits = {"sealed": sizes, "train": sizes, "constraint": sizes}
    raw = {
        "schema": 1,
        "classes": ["no", "yes"],
        "positive": "yes",
        "splits": {
            name: {
                "rows": 1600,
                "groups": {
                    "sex": {v: {"rows": 800, "labels": n} for v, n in cells.items()}
                },
            }
            for name, cells in splits.items()
        },
    }
    rules = constitution(
        {"metric": "tpr_gap", "group": "sex", "threshold": 0.1, "tier": "inviolable"}
    )
    report = power_check(rules, Counts.from_dict(raw), draws=200)
    assert report.spread.fails == 0
    assert report.spread.passes == 0
    assert report.principles[0].too_small == ("F",)


# --- training ---


def test_a_violation_that_is_not_defined_moves_no_multiplier() -> None:
    controller = NuPI(torch.ones(2), torch.ones(2), 0.5)
    controller.step(torch.tensor([0.2, 0.2]))
    before = controller.multipliers.clone()
    controller.step(torch.tensor([torch.nan, 0.2]))
    assert controller.multipliers[0] == before[0]
    assert controller.multipliers[1] > before[1]
    alone = NuPI(torch.ones(1), torch.ones(1), 0.5)
    for violation in (0.2, 0.3):
        alone.step(torch.tensor([violation]))
    controller.step(torch.tensor([0.3, 0.3]))
    # As if the round without a rate had not been.
    assert controller.multipliers[0] == alone.multipliers[0]


def test_rows_that_miss_a_cell_mark_no_agent_and_push_no_multiplier() -> None:
    rows = table()
    found = enforced("tpr_gap", rows, min_n=20, min_pos=10)
    positives = (rows.y == 1) & (rows.groups["g"] == 0)
    fold = (~positives).nonzero()[:, 0]  # of group a no positive is set aside
    settings = brief(safety_threshold=0.5)
    dual = DualUpdate(NetsOnRows(GENOME, rows), found, rows, [fold], settings)
    dual.targets = torch.zeros(len(found.pairs))
    theta = initial(GENOME, rows.width, 1, [0])
    report = dual.update(theta, torch.tensor([True]))
    assert report["violation"] == {}
    for pair, value in zip(found.pairs, dual.controller.multipliers, strict=True):
        if "a" in pair.name.partition(": ")[2].split(" - "):
            assert value == 0
    prediction = torch.ones(len(rows), dtype=torch.int64)
    rates = rates_of(found, rows, prediction)
    rates[0] = torch.nan
    errors = found.standard_errors(rates, torch.full((len(found.cells),), 50.0))
    assert bool(errors.isfinite().all())
    assert errors[0] >= errors[-1]


def test_a_fair_head_is_not_bent_by_a_rate_of_no_rows() -> None:
    rows = table()
    found = enforced("tpr_gap", rows, min_n=20, min_pos=10)
    few = rows.where((rows.y == 0) | (rows.groups["g"] != 0))
    eta = torch.full((len(few),), 0.7, dtype=torch.float64)
    head = fit(
        found,
        few,
        few.batch(torch.arange(len(few))),
        eta,
        torch.zeros(len(found.pairs)),
    )
    assert head is not None
    corrected = torch.from_numpy(head.correct(few.x.double().numpy(), eta.numpy()))
    assert bool((corrected == 0.7).all())  # all rates that are defined are equal
    none = rows.where(rows.y == 0)
    eta = torch.full((len(none),), 0.7, dtype=torch.float64)
    assert (
        fit(
            found,
            none,
            none.batch(torch.arange(len(none))),
            eta,
            torch.zeros(len(found.pairs)),
        )
        is None
    )


def test_rows_of_one_class_choose_no_threshold() -> None:
    score = np.linspace(0, 1, 50)
    for positive in (np.zeros(50, bool), np.ones(50, bool)):
        assert ranked_thresholds(score, positive, BALANCED) == [HALF]
