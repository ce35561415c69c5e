"""The benchmark of changed copies: what it holds against what, and its goals."""

from __future__ import annotations

import pytest

from benchmarks.changed_copies import COPIES, COST, GAINS, figures


def test_goals_are_gains_by_seed_beside_the_run_without_copies() -> None:
    raw = [
        {
            "seed": seed,
            "learner": learner,
            "copies": copies,
            "rows": 100,
            "accuracy": 0.8 + 0.1 * seed - 0.01 * copies,
            "robust": 0.7 + 0.1 * seed + gain * copies,
            "tpr_gap": 0.0,
            "cpu_s": 1.0,
        }
        for seed in (0, 1)
        for learner, gain in (("nets", 0.03), ("trees", 0.001))
        for copies in COPIES
    ]
    rows = {row["what"]: row for row in figures(raw)}
    goals = {what: row for what, row in rows.items() if row["goal"] is not None}
    assert {
        what: (row["goal"], round(row["value"], 6)) for what, row in goals.items()
    } == {
        "nets, 2 copies: robust minus that without": (GAINS["nets"], 0.06),
        "nets, 2 copies: accuracy minus that without": (COST, -0.02),
        "trees, 2 copies: robust minus that without": (GAINS["trees"], 0.002),
        "trees, 2 copies: accuracy minus that without": (COST, -0.02),
    }
    assert rows["nets, 4 copies: robust"]["spread"] == pytest.approx([0.82, 0.92])
