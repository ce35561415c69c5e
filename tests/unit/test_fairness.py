"""Judging: point values against fairlearn, outcomes against planted truths."""

from __future__ import annotations

import json
from dataclasses import replace

import fairlearn.metrics as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from promises import TWIN, evidence_of, promise

from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.errors import InputError
from safescale_ammt.judging.calibration import calibration_error
from safescale_ammt.judging.certify import (
    GroupHits,
    PairedHits,
    breaches,
    inside,
    outside,
    utility_p,
)
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.group_rates import Rates, point_value
from safescale_ammt.judging.judge import judge

RULE = GroupRule(min_n=20, min_pos=10)
FAIR = [(60, 40, 20, 180), (180, 120, 60, 540)]
UNFAIR = [(20, 80, 20, 180), (240, 60, 60, 540)]


@st.composite
def random_evidence(draw) -> Evidence:
    n = draw(st.integers(2, 60))
    groups = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = rng.integers(0, groups, n)
    return Evidence(
        rng.integers(0, 2, n),
        rng.integers(0, 2, n),
        rng.random(n),
        {"g": (tuple("abcd"[:groups]), codes)},
    )


@settings(deadline=None, max_examples=12)
@given(random_evidence())
def test_point_values_agree_with_fairlearn_where_they_are_defined(evidence) -> None:
    values, codes = evidence.groups["g"]
    data = (evidence.label, evidence.prediction)
    rows, positives = np.zeros((2, len(values)))
    for g in range(len(values)):
        rows[g], positives[g] = (codes == g).sum(), data[0][codes == g].sum()
    compared = len(values) > 1 and bool(rows.all())
    defined = {
        "dp_gap": compared,
        "dp_ratio": compared and bool(data[1].any()),
        "eo_difference": compared and bool((positives * (rows - positives)).all()),
        "tpr_gap": compared and bool(positives.all()),
        "fpr_gap": compared and bool((rows - positives).all()),
    }
    for metric, known in defined.items():
        assert (point_value(metric, evidence, "g") is not None) == known
    expected = {
        "dp_gap": reference.demographic_parity_difference,
        "dp_ratio": reference.demographic_parity_ratio,
        "eo_difference": reference.equalized_odds_difference,
    }
    for metric, function in expected.items():
        if not defined[metric]:
            continue
        value = function(*data, sensitive_features=codes)
        assert point_value(metric, evidence, "g") == pytest.approx(value, abs=1e-9)
    rates = {
        "tpr_gap": reference.true_positive_rate,
        "fpr_gap": reference.false_positive_rate,
    }
    for metric, function in rates.items():
        if not defined[metric]:
            continue
        frame = reference.MetricFrame(
            metrics=function,
            y_true=data[0],
            y_pred=data[1],
            sensitive_features=codes,
        )
        expected_gap = frame.difference()
        assert point_value(metric, evidence, "g") == pytest.approx(
            expected_gap, abs=1e-9
        )
    errors = [np.mean(data[0][codes == g] != data[1][codes == g]) for g in set(codes)]
    worst = pytest.approx(max(errors)) if rows.all() else None
    assert point_value("worst_group_error", evidence, "g") == worst
    assert point_value("accuracy", evidence) == np.mean(data[0] == data[1])


def test_with_several_classes_a_gap_is_the_largest_over_the_classes() -> None:
    rng = np.random.default_rng(3)
    label, prediction = rng.integers(0, 3, (2, 400))
    codes = rng.integers(0, 2, 400)
    groups = {"g": (("a", "b"), codes)}
    all_classes = Evidence(
        label, prediction, rng.random(400), groups, classes=3, positive=None
    )
    gaps = [
        reference.demographic_parity_difference(
            label == c, prediction == c, sensitive_features=codes
        )
        for c in range(3)
    ]
    assert point_value("dp_gap", all_classes, "g") == pytest.approx(max(gaps))
    one = replace(all_classes, positive=2)
    assert point_value("dp_gap", one, "g") == pytest.approx(gaps[2])
    finding = judge(promise("tpr_gap", 0.5), all_classes, RULE, 0.05)
    assert {r.of for r in finding.by_group} == {f"tpr of class {c}" for c in range(3)}
    calibration = judge(promise("calibration_error", 0.9), all_classes, RULE, 0.05)
    assert calibration.outcome == "holds"


@pytest.mark.parametrize(
    ("metric", "threshold"),
    [
        ("tpr_gap", 0.2),
        ("fpr_gap", 0.2),
        ("dp_gap", 0.2),
        ("eo_difference", 0.2),
        ("dp_ratio", 0.5),
        ("worst_group_error", 0.4),
    ],
)
def test_a_fair_model_holds_and_an_unfair_one_fails(metric, threshold) -> None:
    fair = judge(promise(metric, threshold), evidence_of(FAIR), RULE, 0.05)
    assert fair.outcome == "holds"
    assert fair.p_violated > 0.3
    assert fair.lower <= fair.value <= fair.upper
    assert "inside" in fair.reason
    unfair = [(0, 200, 0, 100), (450, 50, 400, 600)]
    broken = judge(promise(metric, threshold), evidence_of(unfair), RULE, 0.05)
    assert broken.outcome == "fails"
    assert broken.p_violated < 1e-4
    assert broken.breaches
    assert broken.lower <= broken.value <= broken.upper
    assert "violates" in broken.reason


def test_bounds_always_tell_the_story_of_the_outcome() -> None:
    for tau in (0.02, 0.3, 0.6, 0.69):
        finding = judge(promise("tpr_gap", tau), evidence_of(UNFAIR), RULE, 0.05)
        assert (finding.upper <= finding.threshold) == (finding.outcome == "holds")
        assert (finding.lower > finding.threshold) == (finding.outcome == "fails")
        assert (finding.p_violated <= 0.05) == (finding.outcome == "fails")


def test_a_value_just_at_the_line_is_undecided_and_no_breach() -> None:
    even = [(50, 50, 20, 180), (180, 120, 60, 540)]
    finding = judge(promise("tpr_gap", 0.1), evidence_of(even), RULE, 0.05)
    assert finding.value == pytest.approx(0.1)
    assert finding.outcome == "undecided"
    accuracy = judge(promise("accuracy", 0.75), _accurate(75, 100), RULE, 0.05)
    assert accuracy.outcome == "undecided"
    assert not accuracy.breaches


def test_the_trivial_lines_always_hold() -> None:
    assert judge(promise("dp_gap", 1.0), evidence_of(UNFAIR), RULE, 0.05).outcome == (
        "holds"
    )
    ratio = judge(promise("dp_ratio", 0.0), evidence_of(UNFAIR), RULE, 0.05)
    assert ratio.outcome == "holds"
    assert judge(promise("dp_gap", 0.0), evidence_of(FAIR), RULE, 0.05).outcome == (
        "undecided"
    )


def test_a_group_that_is_too_small_leaves_its_principle_open() -> None:
    cells = [*FAIR, (5, 4, 3, 4)]
    finding = judge(promise("tpr_gap", 0.9), evidence_of(cells), RULE, 0.05)
    assert finding.outcome == "undecided"
    assert finding.too_small == ("c",)
    assert "too few rows or positives in c" in finding.reason
    assert [r.judged for r in finding.by_group] == [True, True, False]


def test_a_certain_violation_among_large_groups_fails_beside_a_small_one() -> None:
    cells = [*UNFAIR, (5, 4, 3, 4), (0, 0, 0, 0)]
    finding = judge(promise("tpr_gap", 0.1), evidence_of(cells), RULE, 0.05)
    assert finding.outcome == "fails"
    assert finding.too_small == ("c", "d")
    unknown = finding.by_group[3]
    assert (unknown.rate, unknown.lower, unknown.upper) == (None, None, None)
    # Whatever the rate of d is: the gap is as large as that of the others.
    assert (finding.value, finding.upper) == (None, None)
    assert finding.lower > 0.1
    assert finding.breaches
    assert "there is no row of d; among all others it is 0.6000" in finding.reason


def test_too_few_negatives_leave_a_false_positive_gap_open() -> None:
    cells = [(60, 40, 1, 4), (300, 200, 100, 900)]
    rule = GroupRule(min_n=20, min_pos=10)
    assert judge(promise("fpr_gap", 0.9), evidence_of(cells), rule, 0.05).too_small
    assert not judge(promise("tpr_gap", 0.9), evidence_of(cells), rule, 0.05).too_small


def test_a_single_group_cannot_be_compared() -> None:
    finding = judge(promise("tpr_gap", 0.5), evidence_of(FAIR[:1]), RULE, 0.05)
    assert finding.outcome == "undecided"
    assert "there is only one" in finding.reason


def test_many_groups_are_judged_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    cells = [(int(k), 120 - int(k), 30, 170) for k in rng.binomial(120, 0.7, 5)]
    finding = judge(promise("tpr_gap", 0.35), evidence_of(cells), RULE, 0.05)
    assert finding.outcome == "holds"
    assert finding.method == "Chan-Zhang"
    assert len(finding.by_group) == 5
    worse = [*cells[:4], (20, 100, 30, 170)]
    assert judge(promise("tpr_gap", 0.2), evidence_of(worse), RULE, 0.05).outcome == (
        "fails"
    )


def _accurate(right: int, n: int, only_twin: int = 0, only_model: int = 0) -> Evidence:
    label = np.ones(n, dtype=int)
    ours = (np.arange(n) < right).astype(int)
    theirs = ours.copy()
    theirs[right : right + only_twin] = 1
    theirs[:only_model] = 0
    return Evidence(label, ours, ours.astype(float), {}, theirs, theirs.astype(float))


def test_absolute_accuracy_takes_the_exact_bound() -> None:
    finding = judge(promise("accuracy", 0.8), _accurate(850, 1000), RULE, 0.05)
    assert finding.outcome == "holds"
    assert finding.lower == pytest.approx(0.8302, abs=1e-4)
    low = judge(promise("accuracy", 0.8), _accurate(700, 1000), RULE, 0.05)
    assert low.outcome == "fails"
    assert low.upper < 0.8


@pytest.mark.parametrize("references", [1, 3])
def test_the_violation_that_the_power_check_counts_is_the_one_that_is_judged(
    references,
) -> None:
    both = promise("accuracy", **TWIN, floor=0.8).constraint
    rng, found = np.random.default_rng(1), set()
    for _ in range(60):
        correct = np.asarray(rng.binomial(900, rng.uniform(0.76, 0.86)))
        table = rng.multinomial(900, [0.03, rng.uniform(0.03, 0.08), 0.89])[:2]
        b, c = np.asarray(table[0]), np.asarray(table[1])
        hits = PairedHits(correct, b, c, 900, references)
        p = utility_p(both, hits)
        for level in (0.05, 0.01):
            assert bool(outside(both, hits, level)) == (p <= level)
            found.add(p <= level)
            coarse = utility_p(both, hits, level)
            assert coarse == p or min(coarse, p) > level
    assert found == {True, False}


def test_accuracy_against_the_twin_needs_both_lines() -> None:
    both = promise("accuracy", **TWIN, floor=0.8)
    near = _accurate(8_600, 10_000, only_twin=60, only_model=50)
    finding = judge(both, near, RULE, 0.05)
    assert finding.outcome == "holds"
    assert finding.value == pytest.approx(-0.001)
    assert finding.threshold == -0.01
    assert [r.value for r in finding.by_group] == ["model", "twin"]
    assert finding.by_group[1].rate == pytest.approx(0.861)
    assert finding.method == "exact paired (Tango order) and Clopper-Pearson"
    poor = judge(both, _accurate(7_000, 10_000, 60, 50), RULE, 0.05)
    assert poor.outcome == "fails"
    assert poor.breaches
    assert poor.lower > -0.01  # the twin's line alone would hold
    behind = judge(both, _accurate(8_600, 10_000, only_twin=400), RULE, 0.05)
    assert behind.outcome == "fails"
    unclear = judge(both, _accurate(8_600, 10_000, only_twin=110), RULE, 0.05)
    assert unclear.outcome == "undecided"


def test_a_missing_twin_or_group_is_one_clear_sentence() -> None:
    alone = replace(_accurate(8, 10), twin_prediction=None)
    with pytest.raises(InputError, match="no predictions of the unconstrained twin"):
        judge(promise("accuracy", **TWIN), alone, RULE, 0.05)
    with pytest.raises(InputError, match="no group 'g', expected one of"):
        judge(promise("dp_gap", 0.1), alone, RULE, 0.05)
    with pytest.raises(InputError, match="no group was named"):
        point_value("dp_gap", evidence_of(FAIR))
    with pytest.raises(InputError, match="No evaluator for metric 'speed'"):
        point_value("speed", evidence_of(FAIR), "g")


def test_evidence_of_unequal_lengths_or_no_rows_is_refused() -> None:
    with pytest.raises(InputError, match="10 labels, but score has 9 rows"):
        replace(_accurate(8, 10), score=np.zeros(9))
    with pytest.raises(InputError, match="no rows"):
        Evidence(*(np.zeros(0, dtype=int),) * 3, {})


def test_calibration_error_is_known_on_a_toy() -> None:
    label = np.array([0, 0, 0, 1] * 50 + [1, 1, 1, 0] * 50)
    score = np.array([0.25] * 200 + [0.65] * 200)
    groups = {"g": (("a", "b"), np.repeat([0, 1], 200))}
    evidence = Evidence(label, (score > 0.5).astype(int), score, groups)
    assert calibration_error(evidence) == pytest.approx(0.05)
    assert calibration_error(evidence, "g") == pytest.approx(0.1)
    assert point_value("calibration_error", evidence) == pytest.approx(0.05)
    finding = judge(promise("calibration_error", 0.4, group="g"), evidence, RULE, 0.05)
    assert finding.outcome == "holds"
    tight = judge(promise("calibration_error", 0.08), evidence, RULE, 0.05)
    assert tight.outcome == "undecided"
    small = GroupRule(min_n=500, min_pos=1)
    grouped = promise("calibration_error", 0.4, group="g")
    assert judge(grouped, evidence, small, 0.05).too_small == ("a", "b")
    broken = replace(evidence, score=np.full(400, np.nan))
    assert calibration_error(broken) is None
    without = judge(promise("calibration_error", 0.4), broken, RULE, 0.05)
    assert (without.outcome, without.value, without.upper) == ("undecided", None, None)
    empty = replace(evidence, groups={"g": (("a", "b", "c"), groups["g"][1])})
    assert calibration_error(empty, "g") is None
    assert "not defined" in judge(grouped, empty, RULE, 0.05).reason


def test_a_badly_calibrated_model_fails_its_soft_principle() -> None:
    rng = np.random.default_rng(0)
    n = 6_000
    evidence = Evidence(
        (rng.random(n) < 0.2).astype(int), np.ones(n, dtype=int), np.full(n, 0.7), {}
    )
    finding = judge(promise("calibration_error", 0.1), evidence, RULE, 0.05)
    assert finding.outcome == "fails"
    assert finding.p_violated < 1e-6


def test_a_finding_survives_json() -> None:
    for name in ("tpr_gap", "dp_ratio"):
        finding = judge(promise(name, 0.5), evidence_of(UNFAIR), RULE, 0.05)
        stored = json.loads(json.dumps(finding.to_dict(), allow_nan=False))
        assert Finding.from_dict(stored) == finding
    with pytest.raises(InputError, match="not the form of a finding"):
        Finding.from_dict({"principle": "p"})


def _hits(tau: float, draws: int, sizes: tuple[int, int]) -> GroupHits:
    rng = np.random.default_rng(5)
    hits = rng.binomial(sizes, [0.6 - tau, 0.6], (draws, 2))
    return GroupHits(
        (Rates("tpr", hits, np.array(sizes)),), np.zeros(2, dtype=np.bool_)
    )


def test_a_model_at_the_line_passes_and_fails_at_most_as_often_as_allowed() -> None:
    draws = 20_000
    hits = _hits(0.1, draws, (120, 700))
    constraint = promise("tpr_gap", 0.1).constraint
    slack = 3 * np.sqrt(0.05 * 0.95 / draws)
    assert 0.03 < inside(constraint, hits, 0.05).mean() < 0.05 + slack
    assert outside(constraint, hits, 0.05).mean() < 0.05 + slack


@pytest.mark.parametrize(
    ("metric", "threshold"),
    [
        ("tpr_gap", 0.3),
        ("dp_ratio", 0.6),
        ("eo_difference", 0.4),
        ("worst_group_error", 0.4),
    ],
)
def test_arrays_of_hits_are_decided_as_the_judge_decides_one(metric, threshold) -> None:
    rng = np.random.default_rng(11)
    principle = promise(metric, threshold)
    drawn = []
    for _ in range(5):
        tp = rng.binomial((30, 90), rng.uniform(0.1, 0.95, 2))
        fp = rng.binomial((45, 150), rng.uniform(0.1, 0.6, 2))
        cells = [
            (int(tp[0]), 30 - int(tp[0]), int(fp[0]), 45 - int(fp[0])),
            (int(tp[1]), 90 - int(tp[1]), int(fp[1]), 150 - int(fp[1])),
        ]
        drawn.append(judge(principle, evidence_of(cells), RULE, 0.05))
    kinds = dict.fromkeys(r.of for r in drawn[0].by_group)
    rates = tuple(
        Rates(
            kind,
            np.array([[r.hits for r in f.by_group if r.of == kind] for f in drawn]),
            np.array([r.trials for r in drawn[0].by_group if r.of == kind]),
        )
        for kind in kinds
    )
    hits = GroupHits(rates, np.zeros(2, dtype=np.bool_))
    c = principle.constraint
    assert inside(c, hits, 0.05).tolist() == [f.outcome == "holds" for f in drawn]
    assert outside(c, hits, 0.05).tolist() == [f.outcome == "fails" for f in drawn]
    assert breaches(c, hits).tolist() == [f.breaches for f in drawn]


def test_arrays_of_right_answers_are_decided_as_the_judge_decides_one() -> None:
    principle = promise("accuracy", **TWIN, floor=0.8)
    rights, behind = (8_600, 8_600, 7_000, 8_600), (60, 400, 60, 110)
    found = [
        judge(principle, _accurate(r, 10_000, only_twin=c, only_model=50), RULE, 0.05)
        for r, c in zip(rights, behind, strict=True)
    ]
    c = principle.constraint
    pair = PairedHits(np.array(rights), np.full(4, 50), np.array(behind), 10_000)
    assert inside(c, pair, 0.05).tolist() == [f.outcome == "holds" for f in found]
    assert outside(c, pair, 0.05).tolist() == [f.outcome == "fails" for f in found]
    assert breaches(c, pair).tolist() == [f.breaches for f in found]
    assert breaches(c, pair).tolist() == [False, True, True, False]
