#!/bin/sh
# One filter finds other rows in a Parquet file than in memory once a NaN is among them.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  duckdb==2.0.0 polars==2.1.0 pyarrow==26.0.1
cd "$work"
cat >finding.py <<'PYTHON'
from importlib.metadata import version

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

rows = pa.table({"score": [1.0, float("nan")]})
pq.write_table(rows, "file.parquet")


def count(source, condition):
    """Counts the rows that DuckDB finds."""
    query = f"SELECT count(*) FROM {source} WHERE {condition}"
    return duckdb.execute(query).fetchone()[0]


def pair(in_memory, in_file):
    return {"memory": in_memory, "file": in_file}


# DuckDB documents NaN as larger than any number; IEEE 754 says that NaN != 1.
seen = {
    "duckdb score > 2": pair(
        count("rows", "score > 2"), count("'file.parquet'", "score > 2")
    ),
    "duckdb score != 1": pair(
        count("rows", "score != 1"), count("'file.parquet'", "score != 1")
    ),
    "pyarrow score != 1": pair(
        rows.filter(pc.field("score") != 1).num_rows,
        ds.dataset("file.parquet").to_table(filter=pc.field("score") != 1).num_rows,
    ),
    "polars score != 1": pair(
        pl.from_arrow(rows).filter(pl.col("score") != 1).height,
        pl.scan_parquet("file.parquet").filter(pl.col("score") != 1).collect().height,
    ),
}

print(*(f"{name} {version(name)}" for name in ("duckdb", "polars", "pyarrow")))
print("guess: a filter finds the same rows wherever the column lies")
print("rows found (statistics in the file leave NaN out, and two engines trust them):")
for query, counts in seen.items():
    print(f"seen: {query}: {counts}")
expected = {
    "duckdb score > 2": pair(1, 0),
    "duckdb score != 1": pair(1, 0),
    "pyarrow score != 1": pair(1, 0),
    "polars score != 1": pair(1, 1),
}
if seen != expected:
    raise SystemExit("changed: other rows are found")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# duckdb 2.0.0 polars 2.1.0 pyarrow 26.0.1
# rows found (statistics in the file leave NaN out, and two engines trust them):
# seen: duckdb score > 2: {'memory': 1, 'file': 0}
# seen: duckdb score != 1: {'memory': 1, 'file': 0}
# seen: pyarrow score != 1: {'memory': 1, 'file': 0}
# seen: polars score != 1: {'memory': 1, 'file': 1}
