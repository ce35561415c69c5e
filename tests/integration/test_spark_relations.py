"""Relations of rows on a real Spark: the answers of the buckets of one machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spark_server import SPARK, partitions

from safescale_ammt.data.buckets import Buckets
from safescale_ammt.data.relations import RowFacts, Rule
from safescale_ammt.data.splitting import ROW

pytestmark = SPARK

CUT = (0.4, 0.1, 0.1, 0.1, 0.1, 0.2)
OFFICIAL = (0.5, 0.2, 0.1, 0.1, 0.1, 0.0)


def random_rows(seed: int, rows: int, distinct: int, official: bool) -> RowFacts:
    """Draws rows, with few hashes many of them equal; keys of draws tie too."""
    rng = np.random.default_rng(seed)
    halves = rng.integers(0, 2**64, (distinct, 2), np.uint64)
    # A draw looks at the first half alone: different rows have one key of it.
    halves[::3, 0] = halves[0, 0]
    number = rng.integers(0, distinct, rows)
    return RowFacts(
        halves[number].view(ROW)[:, 0],
        rng.random(rows) < (0.3 if official else 0.0),
        rng.integers(0, 4, rows).astype(np.uint16) * 16383,
        None,
        rng.random(rows) < 0.05,
    )


def with_entities(facts: RowFacts, entities: int, *, apart: bool) -> RowFacts:
    """Gives rows entities; `apart` lets none be on both sides."""
    who = np.random.default_rng(1).integers(0, entities, len(facts.rows))
    return replace(facts, entity=2 * who + (facts.sealed if apart else 0))


def assert_same(spark, facts: RowFacts, rule: Rule, batch: int) -> None:
    """Compares the placement of Spark with that of the buckets."""
    from safescale_ammt.spark.relations import SparkRelations

    rows = len(facts.rows)

    def batches():
        fields = (facts.rows, facts.sealed, facts.stratum, facts.entity, facts.absent)
        for i in range(0, rows, batch):
            part = slice(i, i + batch)
            yield RowFacts(*(None if f is None else f[part] for f in fields))

    expected = Buckets(rows).place(batches, rule)
    found = SparkRelations(spark, rows, 97).place(batches, rule)
    np.testing.assert_array_equal(found.split, expected.split)
    np.testing.assert_array_equal(found.first, expected.first)
    assert found.split.dtype == expected.split.dtype
    for name in ("copies", "dropped", "thinned", "shared"):
        assert getattr(found, name) == getattr(expected, name), name


@pytest.mark.parametrize(
    ("count", "official", "drop"),
    [
        (1, False, False),
        (3, False, True),
        (3, True, False),
        (7, False, False),
        (7, True, True),
    ],
)
def test_spark_places_rows_as_buckets_do(spark, count, official, drop) -> None:
    with partitions(spark, count):
        facts = random_rows(count, 700, 300, official)
        rule = Rule(OFFICIAL if official else CUT, count, drop)
        assert_same(spark, facts, rule, 111)


@pytest.mark.parametrize(
    ("count", "official", "drop"),
    [(3, False, False), (7, True, True), (1, True, False)],
)
def test_spark_places_entities_as_buckets_do(spark, count, official, drop) -> None:
    with partitions(spark, count):
        facts = with_entities(random_rows(5, 700, 300, official), 90, apart=True)
        hashes = np.random.default_rng(3).bytes(16 * 181)
        rule = Rule(OFFICIAL if official else CUT, 2, drop, np.frombuffer(hashes, ROW))
        assert_same(spark, facts, rule, 200)


def test_spark_counts_entities_on_both_sides_and_places_nothing(spark) -> None:
    facts = with_entities(random_rows(7, 400, 300, True), 90, apart=False)
    hashes = np.frombuffer(np.random.default_rng(3).bytes(16 * 181), ROW)
    with partitions(spark, 3):
        assert_same(spark, facts, Rule(OFFICIAL, 0, False, hashes), 400)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_spark_places_tables_of_hardly_a_row(spark, rows: int) -> None:
    with partitions(spark, 3):
        assert_same(spark, random_rows(1, rows, 5, False), Rule(CUT, 0), 1)


def test_a_table_of_one_row_many_times_has_no_hot_place(spark) -> None:
    with partitions(spark, 7):
        assert_same(spark, random_rows(1, 600, 1, False), Rule(CUT, 0), 600)
        assert_same(spark, random_rows(1, 600, 1, True), Rule(OFFICIAL, 0), 600)


def test_spark_counts_keys_as_buckets_do(spark, tmp_path: Path) -> None:
    from safescale_ammt.spark.relations import SparkRelations

    rng = np.random.default_rng(2)
    keys = rng.integers(0, 2**64, 300, np.uint64)[rng.integers(0, 300, 900)]
    keys[:40], keys[40:50] = 0, 2**64 - 1
    batches = [
        (keys[i : i + 99], rng.random(99)[: 900 - i] < 0.3) for i in range(0, 900, 99)
    ]
    pairs = []
    for relations in (Buckets(900), SparkRelations(spark, 900)):
        found = relations.times(iter(batches))
        pairs.append(
            Counter(
                p
                for part in found
                for p in zip(*(a.tolist() for a in part), strict=True)
            )
        )
    assert pairs[0] == pairs[1]
    assert not [*SparkRelations(spark, 0).times([])]


def test_spark_sorts_distinct_hashes_by_their_bytes(spark) -> None:
    from safescale_ammt.spark.relations import SparkRelations

    rng = np.random.default_rng(3)
    rows = np.frombuffer(rng.bytes(16 * 400), ROW)[rng.integers(0, 400, 900)]
    # The bytes that a signed or a turned-about number puts elsewhere.
    edges = [
        b"\x7f" + bytes(15),
        b"\x80" + bytes(15),
        bytes(15) + b"\x80",
        b"\xff" * 16,
    ]
    rows = np.concatenate([rows, np.frombuffer(b"".join(edges), ROW)])
    for count in (1, 7):
        with partitions(spark, count):
            found = SparkRelations(spark, 904).distinct([rows[:500], rows[500:]])
            np.testing.assert_array_equal(found, Buckets(904).distinct([rows]))
    assert len(SparkRelations(spark, 0).distinct([])) == 0
