"""What a finding's bounds leave out, counted over every table that small groups give.

The whole road of a judgement, from rows to the two bounds of a finding: each is on the
wrong side of the true value at most as often as alpha says, whatever the true rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_world import constitution, evidence, submission

from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import Constraint, Principle
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.verdict import differences

RULE = GroupRule(min_n=1, min_pos=1)
ROUNDING = 1e-9
Truth = Callable[[Sequence[float]], float]


def gap(rates: Sequence[float]) -> float:
    return max(rates) - min(rates)


def ratio(rates: Sequence[float]) -> float:
    return min(rates) / max(rates) if max(rates) else 1.0


def rows_of(sizes: Sequence[int], hits: Sequence[int]) -> Evidence:
    """Rows of groups in which so many are predicted positive; all labels are."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    of_each = [np.arange(n) < x for n, x in zip(sizes, hits, strict=True)]
    predicted = np.concatenate(of_each).astype(np.int64)
    names = tuple(f"g{i}" for i in range(len(sizes)))
    return Evidence(
        label=np.ones(len(group), np.int64),
        prediction=predicted,
        score=predicted.astype(float),
        groups={"g": (names, group)},
        twin_prediction=predicted,
        twin_score=predicted.astype(float),
    )


def wrong(
    constraint: Constraint, sizes: Sequence[int], truth: Truth, alpha: float
) -> tuple[float, float]:
    """Returns the largest chances, over true rates, of a bound on the wrong side."""
    principle = Principle(id="p", constraint=constraint)
    tables = list(product(*(range(n + 1) for n in sizes)))
    found = [judge(principle, rows_of(sizes, t), RULE, alpha) for t in tables]
    none = (-np.inf, np.inf)
    lower = np.array([none[0] if f.lower is None else f.lower for f in found])
    upper = np.array([none[1] if f.upper is None else f.upper for f in found])
    ways = np.array(
        [np.prod([comb(n, x) for n, x in zip(sizes, t, strict=True)]) for t in tables]
    )
    counts, size = np.array(tables), np.array(sizes)
    worst = [0.0, 0.0]
    for rates in product(
        np.linspace(0, 1, 11 if len(sizes) < 3 else 6), repeat=len(sizes)
    ):
        p = np.array(rates)
        chance = ways * np.prod(p**counts * (1 - p) ** (size - counts), axis=1)
        true = truth(rates)
        missed = (lower > true + ROUNDING, upper < true - ROUNDING)
        worst = [
            max(w, float(chance[m].sum())) for w, m in zip(worst, missed, strict=True)
        ]
    return worst[0], worst[1]


@pytest.mark.parametrize("sizes", [(5, 6), (2, 3, 3)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize(
    ("constraint", "truth"),
    [
        (Constraint(metric="dp_gap", group="g", op="<=", threshold=0.1), gap),
        (Constraint(metric="tpr_gap", group="g", op="<=", threshold=0.1), gap),
        (Constraint(metric="dp_ratio", group="g", op=">=", threshold=0.8), ratio),
        (
            Constraint(metric="worst_group_error", group="g", op="<=", threshold=0.2),
            lambda rates: 1 - min(rates),
        ),
    ],
    ids=lambda value: value.metric if isinstance(value, Constraint) else "",
)
def test_bounds_of_groups_are_wrong_at_most_as_often_as_they_say(
    constraint: Constraint, truth: Truth, sizes: Sequence[int], alpha: float
) -> None:
    assert max(wrong(constraint, sizes, truth, alpha)) <= alpha + ROUNDING


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("rows", [1, 8, 20])
def test_bounds_of_accuracy_are_wrong_at_most_as_often_as_they_say(
    rows: int, alpha: float
) -> None:
    accuracy = Constraint(metric="accuracy", op=">=", threshold=0.7)
    lower, upper = wrong(accuracy, (rows,), lambda rates: rates[0], alpha)
    assert max(lower, upper) <= alpha + ROUNDING


def test_the_counting_finds_a_bound_that_is_too_narrow() -> None:
    # At a tenth of the level that it claims no bound would be left out so often.
    constraint = Constraint(metric="dp_gap", group="g", op="<=", threshold=0.1)
    assert max(wrong(constraint, (5, 6), gap, 0.2)) > 0.02


def in_order(rows: Evidence, order: np.ndarray) -> Evidence:
    return Evidence(
        label=rows.label[order],
        prediction=rows.prediction[order],
        score=rows.score[order],
        groups={
            n: (values, codes[order]) for n, (values, codes) in rows.groups.items()
        },
        twin_prediction=rows.twin_prediction[order],
        twin_score=rows.twin_score[order],
    )


@settings(max_examples=6)
@given(
    gap=st.sampled_from([0.0, 0.12, 0.3]),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["drawn", "reversed", "by label", "by group"]),
)
def test_no_word_or_figure_of_a_verdict_depends_on_the_order_of_rows(
    gap: float, seed: int, kind: str
) -> None:
    rows = evidence(120, gap, seed)
    orders = {
        "drawn": np.random.default_rng(seed).permutation(120),
        "reversed": np.arange(120)[::-1],
        "by label": np.argsort(rows.label, kind="stable"),
        "by group": np.argsort(rows.groups["race"][1], kind="stable"),
    }
    about = submission("sha256:" + "0" * 64)
    rule, digest = constitution(), "sha256:" + "1" * 64
    one, other = (
        assemble(rule, each, about, digest)
        for each in (rows, in_order(rows, orders[kind]))
    )
    decided = (one.decision, one.reasons, one.findings)
    assert decided == (other.decision, other.reasons, other.findings)
    # Mean scores of a calibration curve are sums of floats: to the tolerance by which
    # a verdict is derived again.
    assert not list(differences(one.to_dict(), other.to_dict()))
