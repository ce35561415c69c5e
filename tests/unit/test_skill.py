"""Measures of use: their values, the true error of their bounds, their power."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from promises import adult_counts, constitution, counted, evidence_of, promise
from scipy.stats import binom
from sklearn.metrics import (
    balanced_accuracy_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from safescale_ammt.binomial.intervals import mean_bounds, mean_p_below
from safescale_ammt.binomial.paired import gain_p_above
from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import SKILL_METRICS
from safescale_ammt.data.counts import Counts
from safescale_ammt.errors import InputError, Uncertifiable
from safescale_ammt.judging.certify import breaches
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.gate import decide
from safescale_ammt.judging.judge import judge, paired_hits
from safescale_ammt.judging.power.check import power_check, refuse_uncertifiable
from safescale_ammt.judging.power.sizes import class_shares
from safescale_ammt.judging.power.skill import auc_error
from safescale_ammt.judging.skill import MeanHits, TwoClassHits, area, balance

RULE = GroupRule()
BEST = {"metric": "accuracy", "reference": "majority"}


def scored(
    rows: int, base: float, shift: float, seed: int = 0, **rest: Any
) -> Evidence:
    """Rows whose normal score lies `shift` higher for positives; one half decides."""
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < base).astype(np.int64)
    score = 1 / (1 + np.exp(-(rng.normal(size=rows) + shift * (label - 0.5))))
    prediction = (score >= 0.5).astype(np.int64)
    return Evidence(label, prediction, score, {}, **rest)


def found(metric: str, rows: Evidence, line: float | None = 0.5, **rest: Any):
    return judge(promise(metric, line, **rest), rows, RULE, 0.05)


def test_point_values_are_those_of_scikit_learn_with_ties_too() -> None:
    rows = scored(700, 0.2, 1.0)
    rows = replace(rows, score=np.round(rows.score, 1))
    expected = {
        "auc": roc_auc_score(rows.label, rows.score),
        "balanced_accuracy": balanced_accuracy_score(rows.label, rows.prediction),
        "precision": precision_score(rows.label, rows.prediction),
        "recall": recall_score(rows.label, rows.prediction),
    }
    assert set(expected) == set(SKILL_METRICS)
    for metric, value in expected.items():
        assert found(metric, rows).value == pytest.approx(value, abs=1e-12)


def test_balanced_accuracy_of_three_classes_is_the_mean_of_their_recalls() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, 900)
    said = np.where(rng.random(900) < 0.8, label, rng.integers(0, 3, 900))
    rows = Evidence(label, said, np.full(900, 0.9), {}, classes=3, positive=None)
    finding = found("balanced_accuracy", rows, 0.6)
    assert finding.value == pytest.approx(balanced_accuracy_score(label, said))
    assert (finding.outcome, finding.method) == ("holds", "Hoeffding")
    with pytest.raises(InputError, match="none is declared positive"):
        found("recall", rows)
    # One class against the rest, where one is declared.
    one = replace(rows, positive=2)
    assert found("recall", one).value == pytest.approx((said == 2)[label == 2].mean())


def test_a_metric_without_a_trial_is_undecided_and_says_so() -> None:
    rows = replace(scored(400, 0.2, 1.0), prediction=np.zeros(400, np.int64))
    precision = found("precision", rows)
    assert (precision.outcome, precision.value) == ("undecided", None)
    assert (precision.lower, precision.upper) == (None, None)
    assert "there are no rows that are answered positive" in precision.reason
    one_class = replace(rows, label=np.zeros(400, np.int64))
    for metric in SKILL_METRICS:
        finding = found(metric, one_class)
        assert finding.outcome == "undecided"
        assert (finding.value, finding.method) == (None, "none")
        assert "is not defined: there are no rows" in finding.reason
        assert "is 0." not in finding.reason


@pytest.mark.parametrize("metric", SKILL_METRICS)
def test_what_has_no_value_breaches_no_inviolable_promise(metric: str) -> None:
    no = np.zeros(400, np.int64)
    rows = replace(scored(400, 0.2, 1.0), prediction=no, label=no)
    rule = constitution(
        {"metric": metric, "threshold": 0.5, "tier": "inviolable"},
        allow_constant=True,
    )
    (principle,) = rule.principles
    finding = judge(principle, rows, RULE, 0.05)
    assert not finding.breaches
    assert decide(rule, [finding], guarantee="holds").decision == "needs_human"
    # The power check weighs what it draws in the same way.
    c = principle.constraint
    if metric in ("auc", "balanced_accuracy"):
        assert not breaches(c, area(rows) if metric == "auc" else balance(rows))
    else:
        assert not breaches(c, paired_hits(rows, c))


@pytest.mark.parametrize("metric", SKILL_METRICS)
def test_every_measure_of_use_holds_fails_and_stays_open(metric: str) -> None:
    rows = scored(3_000, 0.3, 2.0)
    value = found(metric, rows).value
    assert found(metric, rows, value - 0.07).outcome == "holds"
    assert found(metric, rows, value + 0.07).outcome == "fails"
    near = found(metric, rows, round(value, 3))
    assert near.outcome == "undecided"
    assert near.lower < value < near.upper


@pytest.mark.parametrize(("units", "alpha"), list(product((8, 40, 300), (0.05, 0.01))))
def test_the_bound_of_a_mean_errs_no_more_than_alpha_in_its_worst_case(
    units: int, alpha: float
) -> None:
    # Where all negatives have one score, AUC is a share of the positives: the largest
    # variance that it can have (van Dantzig 1951).
    hits = np.arange(units + 1)
    for rate in np.linspace(0.02, 0.98, 49):
        shown = mean_p_below(1 - hits / units, units, 1 - rate) <= alpha
        assert binom.pmf(hits, units, rate)[shown].sum() <= alpha


def test_the_bounds_of_a_mean_are_its_test_inverted() -> None:
    lower, upper = mean_bounds(0.8, 50, 0.05)
    assert mean_p_below(0.2, 50, 1 - lower) == pytest.approx(0.05, rel=1e-4)
    assert mean_p_below(0.8, 50, upper) == pytest.approx(0.05, rel=1e-4)
    assert mean_bounds(1.0, 50, 0.05)[1] == 1.0
    assert mean_bounds(0.5, 0, 0.05) == (0.0, 1.0)


def test_the_lower_bound_of_the_auc_covers_where_the_scores_are_normal() -> None:
    true = 0.7602  # P(N(1, 2) > 0)
    above = [
        mean_bounds(float(hits.value), hits.units, 0.05)[0] > true
        for hits in (area(scored(160, 0.3, 1.0, seed)) for seed in range(400))
    ]
    assert np.mean(above) <= 0.05


@pytest.mark.parametrize("line", [0.5, 0.7, 0.85])
def test_balanced_accuracy_is_shown_wrongly_no_more_often_than_alpha(
    line: float,
) -> None:
    n1, n0 = 14, 40
    tables = np.meshgrid(np.arange(n1 + 1), np.arange(n0 + 1), indexing="ij")
    shown = TwoClassHits(*tables, n1, n0).shows_above(line, 0.05)
    for tpr in np.linspace(max(0, 2 * line - 1), 1, 60):
        fpr = tpr - (2 * line - 1)
        mass = binom.pmf(tables[0], n1, tpr) * binom.pmf(tables[1], n0, fpr)
        assert mass[shown].sum() <= 0.05


def test_a_model_is_held_against_every_constant_answer() -> None:
    # 89 % positives: always "yes" is right for .89.
    rows = evidence_of([(880, 10, 50, 60)])
    beaten = judge(promise(**BEST), rows, RULE, 0.05)
    assert beaten.value == pytest.approx(0.94 - 0.89)
    assert beaten.outcome == "holds"
    assert beaten.method == "exact paired (Tango order)"
    assert beaten.by_group[1].value == "constant"
    assert beaten.by_group[1].rate == pytest.approx(0.89)
    assert "minus that of the best constant answer" in beaten.reason
    worse = judge(promise(**BEST), evidence_of([(800, 90, 80, 30)]), RULE, 0.05)
    assert (worse.outcome, worse.value) == ("fails", pytest.approx(-0.06))
    # Every constant must be beaten, and by the margin that is asked for.
    ahead = judge(promise(**BEST, delta=0.04), rows, RULE, 0.05)
    assert ahead.outcome == "undecided"


def test_what_is_shown_against_the_named_constant_is_shown_against_all() -> None:
    rng = np.random.default_rng(3)
    outcomes = set()
    for _ in range(40):
        # Three classes, two of them nearly as frequent.
        label = rng.choice(3, 400, p=[0.38, 0.36, 0.26])
        right = rng.random(400) < rng.uniform(0.38, 0.5)
        prediction = np.where(right, label, (label + 1) % 3)
        rows = Evidence(label, prediction, np.zeros(400), {}, classes=3)
        pair = paired_hits(rows, promise(**BEST).constraint)
        named = gain_p_above(int(pair.only_model), int(pair.only_reference), 400, 0.0)
        outcomes.add(named <= 0.05)
        for k in range(3):
            only = (
                int(((prediction == label) & (label != k)).sum()),
                int(((prediction != label) & (label == k)).sum()),
            )
            assert gain_p_above(*only, 400, 0.0) <= named or named > 0.5
    assert outcomes == {True, False}


def test_a_constant_answer_never_holds_against_the_constant() -> None:
    for yes in (0, 1):
        rows = scored(500, 0.5, 0.0)
        rows = replace(rows, prediction=np.full(500, yes))
        assert judge(promise(**BEST), rows, RULE, 0.05).outcome != "holds"


@pytest.mark.parametrize("metric", SKILL_METRICS)
def test_the_power_check_tests_each_measure_before_training(metric: str) -> None:
    counts = adult_counts()
    easy = power_check(
        constitution({"metric": metric, "threshold": 0.6}), counts, draws=200
    )
    assert easy.certifiable
    at_line = easy.principles[0].table[3]
    assert at_line.value == pytest.approx(0.4)
    assert at_line.passes <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    few = {name: counted({"F": (60, 6), "M": (60, 6)}) for name in counts.splits}
    rare = Counts(counts.classes, counts.positive, few)
    hard = power_check(
        constitution({"metric": metric, "threshold": 0.9}), rare, draws=200
    )
    assert hard.culprits == ("p0",)
    with pytest.raises(Uncertifiable, match=f"p0 \\({metric} >= 0.9\\)"):
        refuse_uncertifiable(constitution({"metric": metric, "threshold": 0.9}), hard)


def test_the_power_check_asks_whether_the_constant_can_be_beaten() -> None:
    counts = adult_counts()
    assert class_shares(counts)[0] == pytest.approx(0.759, abs=0.001)
    easy = power_check(constitution(BEST), counts, draws=200)
    assert easy.certifiable
    # The line is the constant's: what it gets wrong is all that can be gained.
    assert easy.principles[0].table[3].value == pytest.approx(0.241, abs=0.001)
    hard = power_check(constitution({**BEST, "delta": 0.24}), counts, draws=200)
    assert "accuracy minus the best constant answer's >= 0.24" in hard.sentence
    assert hard.to_dict()["principles"][0]["reference"] == "majority"
    # A table without a group column says its shares itself.
    splits = {name: replace(split, groups={}) for name, split in counts.splits.items()}
    plain = Counts(counts.classes, counts.positive, splits)
    told = power_check(constitution(BEST), plain, shares=(0.76, 0.24), draws=200)
    assert told.certifiable
    assert class_shares(plain) == (0.5, 0.5)


def test_the_assumed_error_of_an_auc_is_that_of_exponential_scores() -> None:
    rng = np.random.default_rng(0)
    # P(X > Y) of exponentials with means r and 1 is r / (1 + r).
    positive, negative = (
        rng.exponential(4, (2_000, 40)),
        rng.exponential(1, (2_000, 90)),
    )
    areas = (positive[:, :, None] > negative[:, None]).mean((1, 2))
    assert areas.std() == pytest.approx(auc_error(0.8, 40, 90), rel=0.05)


def test_three_classes_are_as_uncertain_as_the_rarest() -> None:
    label = np.repeat([0, 1, 2], (500, 300, 20))
    rows = Evidence(label, label, np.ones(820), {}, classes=3, positive=None)
    hits = balance(rows)
    assert isinstance(hits, MeanHits)
    assert (float(hits.value), hits.units) == (1.0, 20)
