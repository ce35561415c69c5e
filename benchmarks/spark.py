"""The places of rows by Spark and by the buckets of one machine.

    python -m benchmarks spark [--rows N ...] [--cores C] [--write]

Rows with hashes of their own, some equal, some sealed, are placed by both engines (see
`data.relations`), each with what it has on this machine: rows a CPU second, whether all
places are equal, and the bytes a row that Spark's shuffles write, which is what a plan
for a cluster goes by. Needs a Java and `make spark`.
`--write` stores benchmarks/results/spark.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.local_spark import lacking, local_spark
from benchmarks.provenance import ROOT, origin
from safescale_ammt.data.buckets import BUCKET_ROWS, Buckets
from safescale_ammt.data.relations import RowFacts, Rule
from safescale_ammt.data.splitting import ROW
from safescale_ammt.spark.placing import Drawing
from safescale_ammt.spark.relations import facts_table

RESULT = ROOT / "benchmarks" / "results" / "spark.json"
RULE = Rule((0.6, 0.1, 0.1, 0.1, 0.1, 0.0), seed=0)
KINDS = "at bigint, high bigint, low bigint, stratum int, sealed boolean, entity bigint"
MOST = 200
"""Bytes of shuffles a row, at most: 2 TB for ten billion rows."""

Found = TypeVar("Found")


def drawn(rows: int) -> RowFacts:
    """Draws rows: every fifth has an equal, every tenth is sealed."""
    rng = np.random.default_rng(0)
    number = np.where(rng.random(rows) < 0.2, rng.integers(0, rows, rows), range(rows))
    hashes = np.frombuffer(rng.bytes(16 * rows), ROW)[number]
    strata = rng.integers(0, 10, rows).astype(np.uint16)
    return RowFacts(hashes, rng.random(rows) < 0.1, strata)


def timed(work: Callable[[], Found], who: int) -> tuple[Found, float]:
    """Does some work; returns what it gives, and CPU seconds of this process."""

    def seconds() -> float:
        used = resource.getrusage(who)
        return used.ru_utime + used.ru_stime

    before = seconds()
    found = work()
    return found, seconds() - before


def placed(facts: RowFacts, folder: Path, cores: int) -> tuple[pa.Table, float]:
    """Places rows by Spark, from Parquet to Parquet; returns CPU seconds too.

    Those are of a server that starts, works and ends.
    """
    pq.write_table(facts_table(facts, 0), folder / "facts.parquet")
    bits = max(1, (len(facts.rows) // BUCKET_ROWS).bit_length())

    def work() -> None:
        log = folder / "log"
        log.mkdir()
        settings = {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.compress": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.eventLog.dir": log.as_uri(),
        }
        with local_spark(cores, settings, {}) as session:
            session.conf.set("spark.sql.shuffle.partitions", str(4 * cores))
            rows = session.read.schema(KINDS).parquet(str(folder / "facts.parquet"))
            drawing = Drawing(session, RULE, bits)
            fates = drawing.fates(rows).persist()
            drawing.drawn(fates).write.parquet(str(folder / "placed"))

    _, seconds = timed(work, resource.RUSAGE_CHILDREN)
    return pq.read_table(folder / "placed").sort_by("at"), seconds


def shuffled(log: Path) -> int:
    """Returns the bytes that all tasks of an event log wrote for shuffles."""
    files = [file for file in log.rglob("*") if file.is_file()]
    lines = (line for file in files for line in file.read_text().splitlines())
    tasks = (json.loads(line) for line in lines if '"SparkListenerTaskEnd"' in line)
    metrics = (task.get("Task Metrics") or {} for task in tasks)
    written = (m.get("Shuffle Write Metrics", {}) for m in metrics)
    return sum(each.get("Shuffle Bytes Written", 0) for each in written)


def measured(rows: int, cores: int) -> dict[str, Any]:
    """Places so many rows by both engines."""
    facts = drawn(rows)
    with tempfile.TemporaryDirectory(prefix="spark-") as name:
        folder = Path(name)
        found, spark = placed(facts, folder, cores)
        own = Buckets(rows, folder)
        local, here = timed(
            lambda: own.place(lambda: [facts], RULE), resource.RUSAGE_SELF
        )
        at = found["at"].to_numpy()
        kept = np.flatnonzero(local.split < len(RULE.fractions))
        same = np.array_equal(at, kept) and all(
            np.array_equal(found[name].to_numpy(), of[kept])
            for name, of in (("split", local.split), ("first", local.first))
        )
        return {
            "rows": rows,
            "equal": bool(same),
            "local_cpu_s": here,
            "spark_cpu_s": spark,
            "shuffle_bytes_a_row": shuffled(folder / "log") / rows,
        }


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what was promised, with what was found at the largest size."""
    last = max(rows, key=lambda row: row["rows"])
    return [
        {
            "what": "tables whose rows Spark places elsewhere",
            "op": "<=",
            "goal": 0,
            "value": sum(not row["equal"] for row in rows),
        },
        {
            "what": f"bytes of shuffles a row, of {last['rows']:,}",
            "op": "<=",
            "goal": MOST,
            "value": last["shuffle_bytes_a_row"],
        },
    ]


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if reason := lacking():
        raise SystemExit(reason)
    rows = []
    for size in options.rows:
        rows.append(row := measured(size, options.cores))
        print(
            f"{size:>12,} rows: {'equal' if row['equal'] else 'DIFFERENT'}, CPU "
            f"seconds here {row['local_cpu_s']:.1f}, Spark {row['spark_cpu_s']:.1f}, "
            f"{row['shuffle_bytes_a_row']:.0f} bytes of shuffles a row",
            flush=True,
        )
    found = goals(rows)
    for goal in found:
        print(f"{goal['what']}: {goal['value']:.4g} (<= {goal['goal']})")
    if options.write:
        sizes = " ".join(map(str, options.rows))
        words = f"spark --rows {sizes} --cores {options.cores} --write"
        stored = {
            "name": "spark",
            "command": f"python -m benchmarks {words}",
            **origin("spark"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            "seeds": [0],
            "rows": rows,
            "goals": found,
            "raw": rows,
        }
        RESULT.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
