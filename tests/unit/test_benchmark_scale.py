"""The benchmark of sizes, on few rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale import STAGES, called, drawn, goals, put
from benchmarks.scale_others import OTHERS

ROOT = Path(__file__).parents[2]


def test_a_table_has_the_rows_and_columns_that_are_asked_for() -> None:
    for columns in (15, 40):
        table = pa.concat_tables(drawn(3000, columns))
        assert (table.num_rows, table.num_columns) == (3000, columns)
        assert table.equals(pa.concat_tables(drawn(3000, columns)))
        assert {"race", "sex", "income"} <= set(table.column_names)


def test_each_stage_and_library_is_measured_by_itself(tmp_path: Path) -> None:
    put(tmp_path, 3000, 15)
    rows = []
    for stage, code in STAGES.items():
        found = called(code, tmp_path, ROOT)
        assert 0 < found["start_cpu_s"] < found["cpu_s"]
        assert found["peak_mib"] > 50
        rows.append({"rows": 3000, "columns": 15, "stage": stage, "by": "now"} | found)
    sizes = [
        pq.read_metadata(tmp_path / "dataset" / f"{name}.parquet").num_rows
        for name in ("train", "select")
    ]
    called(OTHERS["polars"], tmp_path, ROOT)
    other = [pq.read_metadata(tmp_path / f"polars{i}.parquet").num_rows for i in (0, 4)]
    # The same shares of the same strata, by another hash.
    assert all(abs(a - b) < 20 for a, b in zip(sizes, other, strict=True))
    (peak,) = goals(rows)
    assert peak["value"] == max(row["peak_mib"] for row in rows)


def test_the_command_prints_a_line_for_each_and_the_goals() -> None:
    command = [sys.executable, "-m", "benchmarks", "scale", "--rows", "2000", "3000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["2,000", "3,000"]
    assert sum("(<= " in line for line in lines) == 1 + len(STAGES)
