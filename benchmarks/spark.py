"""A table prepared by both engines: equal artifacts, and what Spark takes for a row.

    python -m benchmarks spark [--rows N ...] [--files F] [--cores C] [--write]

A table of Adult's shape in F files becomes dataset and holdout on this machine and on
Spark, which gets C cores of it: whether identities and audits are equal, CPU seconds
and rows a second of both, bytes a row that Spark's shuffles write and that it holds at
most, by which `cluster-plan` works out a cluster. Needs a Java and `make spark`.
`--write` stores benchmarks/results/spark.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.local_spark import lacking, local_spark
from benchmarks.provenance import ROOT, in_form, store
from benchmarks.scale_tables import DATA, NARROW, drawn
from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS
from safescale_ammt.data.local_table import Held
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json
from safescale_ammt.stages import prepare_data

RESULT = ROOT / "benchmarks" / "results" / "spark.json"
MOST = 1000
"""Bytes of shuffles a row, at most: 10 TB for ten billion rows of Adult's shape."""
_EVENTS = ("SparkListenerTaskEnd", "SparkListenerBlockUpdated")
# Of one table all shards are written, as of a large one.
SHARD_ROWS = 1 << 18


def put(folder: Path, rows: int, files: int) -> int:
    """Writes a table as CSV files of about one size; returns their bytes."""
    folder.mkdir()
    for i in range(files):
        part = rows * (i + 1) // files - rows * i // files
        table = pa.concat_tables(drawn(part, NARROW, seed=i))
        pa_csv.write_csv(table, folder / f"{i:04}.csv")
    return sum(file.stat().st_size for file in folder.iterdir())


def seconds(*who: int) -> float:
    """Returns the CPU seconds of this process, of ended children, or of both."""
    used = [resource.getrusage(each) for each in who]
    return sum(each.ru_utime + each.ru_stime for each in used)


def taken(work: Callable[[], object]) -> dict[str, float]:
    """Does some work; returns CPU and wall seconds, those of its processes among them.

    Whatever it starts has to end with it.
    """
    both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    cpu, wall = seconds(*both), time.perf_counter()
    work()
    return {"cpu_s": seconds(*both) - cpu, "wall_s": time.perf_counter() - wall}


def made(folder: Path) -> dict[str, Any]:
    """Returns what has to be equal of the artifacts of a preparation."""
    identities = {
        kind: read_manifest(folder / kind).identity for kind in ("dataset", "holdout")
    }
    return {**identities, "audit": read_json(folder / "dataset" / "audit.json")}


def on_spark(given: dict[str, Any], folder: Path, cores: int) -> dict[str, float]:
    """Prepares on a server of this machine, which starts and ends for it.

    Returns:
        CPU and wall seconds without those of start and end, and bytes of its log.
    """
    log = folder / "log"
    log.mkdir(parents=True)
    settings = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.logBlockUpdates.enabled": "true",
        "spark.eventLog.dir": log.as_uri(),
        "spark.sql.shuffle.partitions": str(4 * cores),
        "spark.driver.memory": "2g",
        "spark.rdd.compress": "true",
    }
    walls: list[float] = []

    def work() -> None:
        environ = {"SAFESCALE_STORE": (folder / "store").as_uri()}
        with local_spark(cores, settings, environ) as session:
            address = session.client._builder.url  # noqa: SLF001 - the server's own
            environ[SPARK_ADDRESS] = f"sc://localhost:{address.port}/;{address.params}"
            started = time.perf_counter()
            prepared({**given, "engine": "spark"}, folder, environ)
            walls.append(time.perf_counter() - started)

    found = taken(work)
    return {"cpu_s": found["cpu_s"], "wall_s": walls[0], **of_log(events(log))}


def prepared(given: dict[str, Any], folder: Path, environ: dict[str, str]) -> None:
    """Runs the stage."""
    held = Held(shard_rows=SHARD_ROWS)
    paths = folder / "dataset", folder / "holdout"
    prepare_data.run(given, *paths, environ=environ, held=held)


def events(log: Path) -> Iterable[dict[str, Any]]:
    """Yields the events of a log of Spark, those that bytes are counted by."""
    for file in sorted(path for path in log.rglob("*") if path.is_file()):
        for line in file.read_text().splitlines():
            if (
                '"SparkListenerTaskEnd"' in line
                or '"SparkListenerBlockUpdated"' in line
            ):
                yield json.loads(line)


def of_log(found: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Sums the bytes that tasks wrote for shuffles, and the most that were held."""
    shuffled, blocks, most = 0, dict[str, int](), 0
    for event in found:
        if event["Event"] == "SparkListenerTaskEnd":
            metrics = event.get("Task Metrics") or {}
            written = metrics.get("Shuffle Write Metrics", {})
            shuffled += written.get("Shuffle Bytes Written", 0)
            continue
        block = event["Block Updated Info"]
        if block["Block ID"].startswith("rdd_"):
            blocks[block["Block ID"]] = block["Memory Size"] + block["Disk Size"]
            most = max(most, sum(blocks.values()))
    return {"shuffled": shuffled, "held": most}


def measured(rows: int, files: int, cores: int) -> dict[str, Any]:
    """Prepares so many rows by both engines."""
    with tempfile.TemporaryDirectory(prefix="spark-") as name:
        folder = Path(name)
        raw = put(folder / "in", rows, files)
        given = {**DATA, "source": (folder / "in").as_uri()}
        here, there = folder / "here", folder / "there"
        environ = {"SAFESCALE_STORE": (here / "store").as_uri()}
        local = taken(lambda: prepared(given, here, environ))
        spark = on_spark(given, there, cores)
        shards = [n for n in read_manifest(there / "dataset").files if "-" in n]
        return {
            "rows": rows,
            "equal": made(here) == made(there),
            "shards": 5 + len(shards),
            "raw_bytes_a_row": raw / rows,
            "local_cpu_s": local["cpu_s"],
            "local_wall_s": local["wall_s"],
            "spark_cpu_s": spark["cpu_s"],
            "spark_wall_s": spark["wall_s"],
            "spark_rows_a_s": rows / spark["wall_s"],
            "shuffle_bytes_a_row": spark["shuffled"] / rows,
            "held_bytes_a_row": spark["held"] / rows,
        }


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what was promised, with what was found at the largest size."""
    last = max(rows, key=lambda row: row["rows"])
    return [
        {
            "what": "tables of which Spark makes other artifacts",
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
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if reason := lacking():
        raise SystemExit(reason)
    rows = []
    for size in options.rows:
        rows.append(row := measured(size, options.files, options.cores))
        print(
            f"{size:>12,} rows: {'equal' if row['equal'] else 'DIFFERENT'}, CPU "
            f"seconds here {row['local_cpu_s']:.1f}, Spark {row['spark_cpu_s']:.1f}, "
            f"{row['spark_rows_a_s']:,.0f} rows a second of Spark, "
            f"{row['shuffle_bytes_a_row']:.0f} bytes of shuffles and "
            f"{row['held_bytes_a_row']:.0f} held a row",
            flush=True,
        )
    found = goals(rows)
    for goal in found:
        print(f"{goal['what']}: {goal['value']:.4g} (<= {goal['goal']})")
    if options.write:
        sizes = " ".join(map(str, options.rows))
        words = f"spark --rows {sizes} --files {options.files} --cores {options.cores}"
        stored = in_form(
            "spark",
            f"python -m benchmarks {words} --write",
            packages=("python", "numpy", "pyarrow", "pyspark"),
            rows=rows,
            goals=found,
            raw=rows,
            seeds=[0],
        )
        store(RESULT, stored)


if __name__ == "__main__":
    main()
