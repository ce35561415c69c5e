"""Odd tables, and workers that die, on Spark: the artifacts of one machine."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spark_server
from prepared_tables import SPLITS, people, section
from test_spark_preparation import both, few_partitions

from benchmarks.local_spark import lacking
from safescale_ammt.spark import frames, shards
from safescale_ammt.spark.faults import Batches, guarded
from safescale_ammt.spark.local_server import local_server

__all__ = ["few_partitions"]
pytestmark = spark_server.SPARK
ROWS = 240
Mapped = Callable[[Batches], Batches]


@pytest.fixture(scope="module")
def trying(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that tries a task again, as a cluster does."""
    if reason := lacking():
        pytest.skip(reason)
    environ = {**os.environ, **spark_server.ENVIRON}
    with local_server("1,4", environ, spark_server.SETTINGS, 180) as uri:
        yield uri


def dying(folder: Path) -> Callable[[Mapped], Mapped]:
    """Makes `guarded` kill its worker the first time, when it has given a batch."""
    folder.mkdir()
    numbers = iter(range(99))

    def killing(function: Mapped) -> Mapped:
        inner, once = guarded(function), str(folder / str(next(numbers)))

        def run(batches: Batches) -> Batches:
            # A worker imports nothing of tests.
            import os
            import signal

            for batch in inner(batches):
                yield batch
                if not os.path.exists(once):  # noqa: PTH110
                    os.mkdir(once)  # noqa: PTH102
                    os.kill(os.getpid(), signal.SIGKILL)

        return run

    return killing


def typed(rows: int, seed: int) -> pa.Table:
    """A table of typed columns, gaps and names that no query may hold."""
    rng = np.random.default_rng(seed)
    start = datetime.datetime(2020, 3, 29, tzinfo=datetime.UTC)
    hours = [
        start + datetime.timedelta(hours=int(h)) for h in rng.integers(0, 9999, rows)
    ]
    texts = ["a\0b", "a", "a\0c", '"', "'", "\\N", " ", None, "e\u0301", "\u00e9"]
    odd = [-0.0, 0.0, float("nan"), 5e-324, None, 1e30, 0.1]
    kept = people(rows, seed)
    return pa.table(
        {
            "a.b`": pa.array([Decimal(int(x)) / 4 for x in rng.integers(0, 99, rows)]),
            "Age": pa.array([int(a) if a else None for a in kept["age"]], pa.int16()),
            "AGE": pa.array([odd[i % 7] for i in range(rows)]),
            "{c0}": pa.array(hours, pa.timestamp("ns")),
            "at": pa.array(hours, pa.timestamp("ms", "Asia/Tokyo")),
            "it's": pa.array([h.date() for h in hours]),
            "split": pa.array([bool(i % 3) if i % 7 else None for i in range(rows)]),
            "\U0001f600 $1": pa.array([texts[i % 10] for i in range(rows)]),
            "sex": pa.array(kept["sex"], pa.large_string()),
            "origin": pa.array(kept["origin"]).dictionary_encode(),
            "approved": pa.array([y == "yes" for y in kept["approved"]]),
            "who": pa.array([f"{'p' * (1 + i % 2)}\0{i % 150}" for i in range(rows)]),
        }
    )


def test_odd_tables_are_those_of_one_machine_whatever_workers_are_killed(
    trying, tmp_path: Path, monkeypatch
) -> None:
    # Ranges of few positions, as a table of millions of rows has many.
    monkeypatch.setattr(frames, "_RANGE_BITS", 5)
    monkeypatch.setattr(shards, "_BITS", 5)
    killed, table = tmp_path / "killed", typed(ROWS, 1)
    monkeypatch.setattr(frames, "guarded", dying(killed))
    names = ("g=01", "g=__HIVE_DEFAULT_PARTITION__", "g=a%20b")
    for i, name in enumerate(names):
        folder = tmp_path / "in \u00e9 #%" / f"dt=2026-11-0{i + 1}" / name
        folder.mkdir(parents=True)
        part = table.slice(i * 80, 80)
        pq.write_table(part, folder / "a.parquet", row_group_size=25)
    given = section(
        source=(tmp_path / "in \u00e9 #%").as_uri(),
        window="2026-11-01/2026-11-03",
        positive="True",
        entity="who",
        splits={**SPLITS, "train": 0.3, "sealed": 0.3},
    )
    both(given, tmp_path, trying, shard_rows=32, audited_rows=90)
    # One of every function that gives rows.
    assert len([*killed.iterdir()]) > 8
