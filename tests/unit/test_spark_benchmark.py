"""The benchmark of Spark, without a Spark: what it draws, sums and promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.spark import drawn, goals, shuffled
from safescale_ammt.data.splitting import occurrences


def test_some_rows_are_equal_and_some_are_sealed() -> None:
    facts = drawn(5000)
    again = drawn(5000)
    assert facts.rows.tobytes() == again.rows.tobytes()
    assert 300 < np.count_nonzero(occurrences(facts.rows)) < 1500
    assert 400 < facts.sealed.sum() < 600


def test_bytes_of_shuffles_are_those_of_all_tasks(tmp_path: Path) -> None:
    ends = [
        {"Task Metrics": {"Shuffle Write Metrics": {"Shuffle Bytes Written": 70}}},
        {"Task Metrics": {"Shuffle Write Metrics": {"Shuffle Bytes Written": 5}}},
        {"Task Metrics": None},
    ]
    lines = [{"Event": "SparkListenerTaskEnd", **end} for end in ends]
    lines.append({"Event": "SparkListenerStageCompleted", "Shuffle Bytes Written": 9})
    (tmp_path / "eventlog_v2").mkdir()
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "eventlog_v2" / "events_1").write_text(text)
    assert shuffled(tmp_path) == 75


def test_a_table_that_differs_misses_the_goal() -> None:
    rows = [
        {"rows": 10, "equal": False, "shuffle_bytes_a_row": 900.0},
        {"rows": 20, "equal": True, "shuffle_bytes_a_row": 100.0},
    ]
    places, moved = goals(rows)
    assert (places["value"], places["goal"]) == (1, 0)
    assert moved["value"] == 100.0
