"""The benchmark of changed rows: its count of every three changes, and its goals."""

from __future__ import annotations

from benchmarks.rows_under_attack import SECONDS, figures


def test_goals_are_the_seconds_of_two_changes_and_may_be_missed() -> None:
    raw = [
        {
            "seed": 0,
            "learner": learner,
            "changes": changes,
            "rows": 100,
            "right": 90,
            "survived": 90 - 10 * changes,
            "permitted": 1_000,
            "cpu_s": seconds * changes,
            **({"exact": 55} if changes == 3 else {}),
        }
        for learner, seconds in (("nets", 1.0), ("trees", 40.0))
        for changes in (1, 2, 3)
    ]
    rows = {row["what"]: row for row in figures(raw)}
    goals = {what: row for what, row in rows.items() if row["goal"] is not None}
    assert list(goals) == [
        "nets, changes of up to 2: CPU seconds",
        "trees, changes of up to 2: CPU seconds",
    ]
    assert [row["value"] <= SECONDS for row in goals.values()] == [True, False]
    assert rows["nets, changes of up to 2: robust accuracy"]["value"] == 0.7
    assert round(rows["nets: share of rows that the search misses"]["value"], 9) == 0.05
