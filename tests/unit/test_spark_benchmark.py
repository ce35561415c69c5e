"""The benchmark of Spark, without a Spark: what it draws, sums and promises."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.csv as pa_csv

from benchmarks.spark import events, goals, of_log, put


def test_a_table_is_cut_into_files_that_hold_all_of_it(tmp_path: Path) -> None:
    size = put(tmp_path / "a", 1000, 3)
    assert put(tmp_path / "b", 1000, 3) == size
    tables = [pa_csv.read_csv(file) for file in sorted((tmp_path / "a").iterdir())]
    assert [len(table) for table in tables] == [333, 333, 334]
    assert tables[0]["age"].to_pylist() != tables[1]["age"].to_pylist()


def block(name: str, memory: int, disk: int) -> dict:
    info = {"Block ID": name, "Memory Size": memory, "Disk Size": disk}
    return {"Event": "SparkListenerBlockUpdated", "Block Updated Info": info}


def test_bytes_are_those_of_all_tasks_and_the_most_that_blocks_had(
    tmp_path: Path,
) -> None:
    ends = [
        {"Task Metrics": {"Shuffle Write Metrics": {"Shuffle Bytes Written": 70}}},
        {"Task Metrics": {"Shuffle Write Metrics": {"Shuffle Bytes Written": 5}}},
        {"Task Metrics": None},
    ]
    lines = [{"Event": "SparkListenerTaskEnd", **end} for end in ends]
    lines.append({"Event": "SparkListenerStageCompleted", "Shuffle Bytes Written": 9})
    lines += [
        block("rdd_1_0", 30, 0),
        block("rdd_2_0", 0, 11),
        block("shuffle_1", 5, 0),
    ]
    lines += [block("rdd_1_0", 0, 0), block("rdd_3_0", 20, 0)]
    (tmp_path / "eventlog_v2").mkdir()
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "eventlog_v2" / "events_1").write_text(text)
    assert of_log(events(tmp_path)) == {"shuffled": 75, "held": 41}


def test_a_table_that_differs_misses_the_goal() -> None:
    rows = [
        {"rows": 10, "equal": False, "shuffle_bytes_a_row": 9000.0},
        {"rows": 20, "equal": True, "shuffle_bytes_a_row": 100.0},
    ]
    artifacts, moved = goals(rows)
    assert (artifacts["value"], artifacts["goal"]) == (1, 0)
    assert moved["value"] == 100.0
