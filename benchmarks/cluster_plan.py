"""What a preparation on Spark takes, on paper: from figures a row to disks and hours.

    python -m benchmarks cluster-plan [--shuffle-bytes B] [--held-bytes H] [--cpu-us C]
        [--row-bytes R] [--rows N] [--executors E] [--cores C] [--scratch GIB]
        [--network GBIT] [--store MB]

The figures a row come from a measurement, `python -m benchmarks spark`: bytes that
shuffles write and that are held at most, of its largest table, CPU microseconds that
each further row takes, and raw bytes. Where benchmarks/results/spark.json is not
stored, they have to be named. It measures and stores nothing; docs/scale.md reads it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from math import ceil

from benchmarks.provenance import ROOT

MEASURED = ROOT / "benchmarks" / "results" / "spark.json"
KEPT = 2.0
"""Shuffled bytes on disk at once, in shares of what is written: all of it may stay
until the session ends, and as much again while it is sorted."""
PART = 128 << 20
"""Bytes of a shuffle's partition, which a task sorts in its share of a heap."""
READS = 2
"""A file is read for what it says, and again for its rows."""


@dataclass(frozen=True)
class Need:
    """What a row takes.

    Attributes:
        shuffled: bytes that shuffles write.
        kept: bytes of what is looked at again, at most.
        cpu: seconds.
        raw: bytes in its file.
    """

    shuffled: float
    kept: float
    cpu: float
    raw: float


@dataclass(frozen=True)
class Cluster:
    """What there is.

    Attributes:
        executors: how many.
        cores: of each.
        scratch: bytes of disk that each has.
        network: bytes a second, of each.
        store: bytes a second that the object store gives each.
    """

    executors: int
    cores: int
    scratch: float
    network: float
    store: float


@dataclass(frozen=True)
class Plan:
    """What follows; times are of one part alone, and overlap at best.

    Attributes:
        shuffled: bytes, in all.
        held: bytes on each executor's disk, at most.
        fits: rows that these disks hold.
        partitions: of a shuffle (`spark.sql.shuffle.partitions`).
        computing, moving, reading: seconds of CPU, network and store.
    """

    shuffled: float
    held: float
    fits: int
    partitions: int
    computing: float
    moving: float
    reading: float

    @property
    def binds(self) -> str:
        """The part that takes longest."""
        parts = {
            "CPU": self.computing,
            "network": self.moving,
            "store": self.reading,
        }
        return max(parts, key=parts.__getitem__)


def plan(rows: int, need: Need, cluster: Cluster) -> Plan:
    """Works out a plan.

    Args:
        rows: of the table.
        need: of each.
        cluster: what there is.
    """
    many = cluster.executors
    shuffled, a_row = rows * need.shuffled, KEPT * need.shuffled + need.kept
    # A row stays where it is with the chance 1 / executors.
    crossing = shuffled * (many - 1) / many
    return Plan(
        shuffled=shuffled,
        held=rows * a_row / many,
        fits=int(many * cluster.scratch / a_row),
        partitions=max(many * cluster.cores, ceil(shuffled / PART)),
        computing=rows * need.cpu / (many * cluster.cores),
        moving=crossing / (many * cluster.network),
        reading=READS * rows * need.raw / (many * cluster.store),
    )


def measured() -> dict[str, float]:
    """Returns what `python -m benchmarks spark` has stored; nothing if it has not."""
    if not MEASURED.is_file():
        return {}
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))["rows"]
    first, *_, last = sorted(rows, key=lambda row: int(row["rows"]))
    # A server that starts takes as much for a table of any size.
    more = last["spark_cpu_s"] - first["spark_cpu_s"]
    return {
        "shuffle_bytes": last["shuffle_bytes_a_row"],
        "held_bytes": last["held_bytes_a_row"],
        "cpu_us": 1e6 * more / (last["rows"] - first["rows"]),
        "row_bytes": last["raw_bytes_a_row"],
    }


def main() -> None:
    """Prints a plan."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = measured()
    for name in ("shuffle_bytes", "held_bytes", "cpu_us", "row_bytes"):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            default=known.get(name),
            required=name not in known,
        )
    parser.add_argument("--rows", type=int, default=10_000_000_000)
    parser.add_argument("--executors", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--scratch", type=float, default=26.0)
    parser.add_argument("--network", type=float, default=10.0)
    parser.add_argument("--store", type=float, default=100.0)
    given = parser.parse_args()
    cpu = given.cpu_us / 1e6
    need = Need(given.shuffle_bytes, given.held_bytes, cpu, given.row_bytes)
    cluster = Cluster(
        given.executors,
        given.cores,
        given.scratch * 2**30,
        given.network * 1e9 / 8,
        given.store * 1e6,
    )
    found = plan(given.rows, need, cluster)
    hours = max(found.computing, found.moving, found.reading) / 3600
    print(
        f"{given.rows:,} rows on {given.executors} executors of {given.cores} cores\n"
        f"shuffles            {found.shuffled / 1e12:.2f} TB\n"
        f"scratch an executor {found.held / 2**30:.0f} GiB of {given.scratch:.0f}; "
        f"these disks hold {found.fits:,} rows\n"
        f"partitions          {found.partitions:,}\n"
        f"CPU, network, store {found.computing / 3600:.1f}, "
        f"{found.moving / 3600:.1f}, {found.reading / 3600:.1f} h: the "
        f"{found.binds} binds\n"
        f"executor-hours      {given.executors * hours:.0f} at least"
    )


if __name__ == "__main__":
    main()
