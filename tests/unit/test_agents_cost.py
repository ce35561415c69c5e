"""The benchmark of what agents cost: its goals, and a run of a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_world import prepared

from benchmarks.agents_cost import LEAST_SHARE, ROOT, goals, measured, summary, table


def rows(**changes: float) -> list[dict[str, Any]]:
    """Returns raw rows of three repeats of one, eight and sixteen agents."""
    cost = {1: 1.0, 8: 2.0, 16: 5.0}
    return [
        {
            "build": "now",
            "agents": k,
            "repeat": repeat,
            "step_cpu_s": each * (1 + repeat),
            "to_one": each + repeat / 10,
            "share": changes.get("share", 0.8),
        }
        for repeat in range(3)
        for k, each in cost.items()
    ]


def test_goals_are_of_today_s_build_and_may_be_missed() -> None:
    before = [{**row, "build": "before", "to_one": 9.0} for row in rows()]
    found = goals(summary([*before, *rows(share=0.4)]))
    assert [(g["op"], g["goal"]) for g in found] == [
        ("<=", 2.5),
        ("<=", 4.0),
        (">=", LEAST_SHARE),
    ]
    assert [round(g["value"], 3) for g in found] == [2.1, 5.1, 0.4]
    assert found[0]["spread"] == [2.0, 2.2]


def test_the_table_has_a_row_for_each_build_and_number() -> None:
    before = [{**row, "build": "before"} for row in rows()]
    lines = table(summary([*before, *rows()])).splitlines()
    assert len(lines) == 2 + 6
    assert lines[-1] == "| now | 16 | 10000.00 | 5.10 (5.00 to 5.20) | 0.80 |"


def test_a_few_steps_of_this_checkout_are_measured(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, rows=300)
    found = measured(ROOT, dataset, 2, [1, 2], group="gender")
    assert list(found) == [1, 2]
    for figures in found.values():
        assert figures["step_cpu_s"] > 0
        assert figures["share"] > 0
