"""What raw rows cost on their way into batches, now and in an earlier revision.

    python -m benchmarks raw-rows [--before REV] [--rows N] [--repeats N] [--write]

A table of Adult's shape (nine columns of words, six of whole numbers) is drawn and
written as CSV and as Parquet. Then, N times in turn, each in a process of its own: the
table as REV reads it, whole, and the batches that this code makes of it, written aside
and read once. CPU seconds and peak memory, medians [least, greatest]. Last, the forms
in which batches could lie aside: CPU seconds to write and to read them, and bytes.
`--write` stores benchmarks/results/raw-rows.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import ALL, spool_table

RESULT = ROOT / "benchmarks" / "results" / "raw-rows.json"
# The last commit before rows streamed.
BEFORE = "b82994b"
WORDS = {"workclass": 9, "education": 16, "marital": 7, "occupation": 15, "kin": 6}
WORDS |= {"race": 5, "sex": 2, "country": 42, "income": 2}
NUMBERS = {"age": 74, "weight": 1_500_000, "years": 16, "gain": 120, "loss": 99}
NUMBERS |= {"hours": 96}
PIECE = 1 << 19
MOST = 1.1
"""CPU seconds now / before, at most."""
PEAK = 1 << 30
"""Bytes of memory at the peak, at most, however many the rows."""
MEASURED = """
import json, sys, tempfile, time
from pathlib import Path
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import ALL, read_table
uri, started, passed = Path(sys.argv[1]).as_uri(), time.process_time(), 0.0
if sys.argv[2] == "before":
    rows = read_table(uri, Layout()).rows
else:
    from safescale_ammt.reading.sources import spool_table
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as folder:
        spool = spool_table(uri, Layout(), ALL, Path(folder))
        passed = time.process_time()
        rows = sum(batch.rows for batch in spool.batches())
        passed = time.process_time() - passed
taken = time.process_time() - started
# Of this program alone: `ru_maxrss` begins at what the process had that started it.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
peak = int(peak.split()[1]) << 10
print(json.dumps({"rows": rows, "cpu": taken, "pass": passed, "peak": peak}))
"""


def write_table(folder: Path, rows: int) -> dict[str, Path]:
    """Draws a table piece by piece; returns its files by format."""
    rng = np.random.default_rng(0)
    files = {kind: folder / f"rows.{kind}" for kind in ("csv", "parquet")}
    schema = pa.schema(
        [(name, pa.string()) for name in WORDS]
        + [(name, pa.int64()) for name in NUMBERS]
    )
    with (
        pacsv.CSVWriter(files["csv"], schema) as text,
        pq.ParquetWriter(files["parquet"], schema) as coded,
    ):
        for start in range(0, rows, PIECE):
            n = min(PIECE, rows - start)
            columns = [
                pa.array([f"{name} {i:02}" for i in range(levels)]).take(
                    pa.array(rng.integers(0, levels, n))
                )
                for name, levels in WORDS.items()
            ]
            columns += [pa.array(rng.integers(0, n_, n)) for n_ in NUMBERS.values()]
            table = pa.table(columns, schema=schema)
            text.write_table(table)
            coded.write_table(table)
    return files


def measured(root: Path, file: Path, when: str) -> dict[str, float]:
    """Reads a file with the code of a checkout, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", MEASURED, str(file), when],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def ipc(batch: pa.RecordBatch, packed: str | None) -> tuple[int, Callable[[], Any]]:
    """Writes each column as an Arrow stream; returns bytes and what reads them."""
    options = pa.ipc.IpcWriteOptions(compression=packed, use_threads=False)
    written = []
    for column in batch.columns:
        sink, schema = pa.BufferOutputStream(), pa.schema([("", column.type)])
        with pa.ipc.new_stream(sink, schema, options=options) as stream:
            stream.write_batch(pa.record_batch([column], schema=schema))
        written.append(sink.getvalue())
    return (
        sum(data.size for data in written),
        lambda: [pa.ipc.open_stream(data).read_all() for data in written],
    )


def parquet(batch: pa.RecordBatch, packed: str | None) -> tuple[int, Callable[[], Any]]:
    """Writes a batch as a row group; returns bytes and what reads them."""
    sink = pa.BufferOutputStream()
    # Narrow codes are a type that not every version of Parquet's readers takes.
    wide = pa.dictionary(pa.int32(), pa.string())
    table = pa.table([c.cast(wide) for c in batch.columns], names=batch.schema.names)
    pq.write_table(table, sink, compression=packed or "none", write_statistics=False)
    data = sink.getvalue()
    names = table.column_names
    return data.size, lambda: pq.ParquetFile(
        pa.BufferReader(data), read_dictionary=names
    ).read(use_threads=False)


def forms(file: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Yields what each form costs in which batches could lie aside."""
    spool = spool_table(file.as_uri(), Layout(), ALL, folder)
    for form, write in (("arrow", ipc), ("parquet", parquet)):
        for packed in (None, "lz4", "zstd"):
            seconds, size = [0.0, 0.0], 0
            for batch in spool.batches():
                coded = {name: c.coded() for name, c in batch.columns.items()}
                rows = pa.record_batch(coded)
                start = time.process_time()
                more, read = write(rows, packed)
                between = time.process_time()
                read()
                seconds[0] += between - start
                seconds[1] += time.process_time() - between
                size += more
            yield {
                "what": f"{form}, {packed or 'not packed'}",
                "write_cpu_s": seconds[0],
                "read_cpu_s": seconds[1],
                "bytes": size,
            }


def result(found: dict[str, list[Any]], command: str, aside: list[Any]) -> Any:
    """Puts the figures into the form of all benchmark results."""
    goals = []
    for kind in ("csv", "parquet"):
        old, new = (found[f"{kind}, {when}"] for when in ("before", "now"))
        ratios = [b["cpu"] / a["cpu"] for a, b in zip(old, new, strict=True)]
        peaks = [each["peak"] for each in new]
        for what, most, values in (
            ("CPU seconds, now / before, median", MOST, ratios),
            ("bytes of memory at the peak, median", PEAK, peaks),
        ):
            goals.append(
                {
                    "what": f"{kind}: {what}",
                    "op": "<=",
                    "goal": most,
                    "value": statistics.median(values),
                    "spread": [min(values), max(values)],
                }
            )
    medians = [
        {
            "what": what,
            "rows": each[0]["rows"],
            "cpu_s": statistics.median(m["cpu"] for m in each),
            "pass_cpu_s": statistics.median(m["pass"] for m in each),
        }
        for what, each in found.items()
    ]
    return in_form(
        "raw-rows",
        command,
        packages=("python", "pyarrow"),
        seeds=[0],
        rows=[*medians, *aside],
        goals=goals,
        raw=[{"what": w, "each_cpu_s": each} for w, each in found.items()],
    )


def main() -> None:
    """Prints the figures; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[Any]] = defaultdict(list)
    with (
        checkout(options.before) as before,
        tempfile.TemporaryDirectory(prefix="raw-rows-") as name,
    ):
        files = write_table(Path(name), options.rows)
        for _ in range(options.repeats):
            for kind, file in files.items():
                for when, root in (("before", before), ("now", ROOT)):
                    found[f"{kind}, {when}"].append(measured(root, file, when))
        aside = [*forms(files["csv"], Path(name))]
    command = (
        f"python -m benchmarks raw-rows --before {options.before} "
        f"--rows {options.rows} --repeats {options.repeats} --write"
    )
    stored = result(dict(found), command, aside)
    for what, each in found.items():
        cpu, peak = (statistics.median(m[key] for m in each) for key in ("cpu", "peak"))
        print(f"{what:<20} {cpu:8.2f} CPU s {peak / 2**20:8.0f} MiB")
    for form in aside:
        spent = f"{form['write_cpu_s']:6.2f} + {form['read_cpu_s']:.2f} CPU s"
        print(f"{form['what']:<20} {spent} {form['bytes'] / 1e6:8.1f} MB")
    for goal in stored["goals"]:
        met = "met" if goal["value"] <= goal["goal"] else "MISSED"
        print(f"{goal['what']}: {goal['value']:.4g}, {met}")
    if options.write:
        store(RESULT, stored)


if __name__ == "__main__":
    main()
