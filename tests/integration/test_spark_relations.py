"""Relations of rows on a real Spark: the answers of the buckets of one machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from spark_server import SPARK, partitions

from safescale_ammt.data.buckets import Buckets
from safescale_ammt.data.relations import REMOVED, RowFacts, Rule
from safescale_ammt.data.splitting import ROW

pytestmark = SPARK

CUT = (0.4, 0.1, 0.1, 0.1, 0.1, 0.2)
OFFICIAL = (0.5, 0.2, 0.1, 0.1, 0.1, 0.0)
ENTITIES = np.frombuffer(np.random.default_rng(3).bytes(16 * 181), ROW)


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


def assert_same(spark, facts: RowFacts, rule: Rule, bits: int) -> None:
    """Compares the placement of Spark with that of the buckets."""
    from safescale_ammt.spark import placing
    from safescale_ammt.spark.frames import checkpointed, frame_of
    from safescale_ammt.spark.relations import facts_table

    expected = Buckets(len(facts.rows)).place(lambda: [facts], rule)
    # Spark may hold rows in any order.
    table = facts_table(facts, 0)
    order = np.random.default_rng(0).permutation(len(table))
    drawing = placing.Drawing(spark, rule, bits)
    fates = checkpointed(drawing.fates(frame_of(spark, table.take(pa.array(order)))))
    assert drawing.shared(fates) == expected.shared
    if expected.shared:
        return
    counted = Counter(fates.toArrow()["fate"].to_pylist())
    assert counted[placing.COPY] == expected.copies
    repeats = counted[placing.REPEAT], counted[placing.JUDGED_REPEAT]
    assert repeats == expected.dropped
    drawn = drawing.drawn(fates).toArrow()
    at, places = (drawn[name].to_numpy() for name in ("at", "split"))
    split, first = np.full(len(facts.rows), REMOVED), np.zeros(len(facts.rows), bool)
    assert len({*at.tolist()}) == len(at)
    split[at], first[at] = places, drawn["first"].to_numpy()
    np.testing.assert_array_equal(split, expected.split)
    np.testing.assert_array_equal(first, expected.first)
    assert np.count_nonzero(places == REMOVED) == expected.thinned


@pytest.mark.parametrize(
    ("count", "official", "drop"),
    [(1, False, True), (3, True, False)],
)
def test_spark_places_rows_as_buckets_do(spark, count, official, drop) -> None:
    with partitions(spark, count):
        facts = random_rows(count, 700, 300, official)
        rule = Rule(OFFICIAL if official else CUT, count, drop)
        assert_same(spark, facts, rule, count)


@pytest.mark.parametrize(("official", "drop"), [(False, False), (True, True)])
def test_spark_places_entities_as_buckets_do(spark, official, drop) -> None:
    with partitions(spark, 3):
        facts = with_entities(random_rows(5, 700, 300, official), 90, apart=True)
        rule = Rule(OFFICIAL if official else CUT, 2, drop, ENTITIES)
        assert_same(spark, facts, rule, 3)


def test_spark_counts_entities_on_both_sides_and_places_nothing(spark) -> None:
    facts = with_entities(random_rows(7, 400, 300, True), 90, apart=False)
    with partitions(spark, 3):
        assert_same(spark, facts, Rule(OFFICIAL, 0, False, ENTITIES), 1)


@pytest.mark.parametrize("rows", [0, 1])
def test_spark_places_tables_of_hardly_a_row(spark, rows: int) -> None:
    with partitions(spark, 3):
        assert_same(spark, random_rows(1, rows, 5, False), Rule(CUT, 0), 1)


def test_a_table_of_one_row_many_times_has_no_hot_place(spark) -> None:
    with partitions(spark, 3):
        assert_same(spark, random_rows(1, 600, 1, True), Rule(OFFICIAL, 0), 3)


def test_spark_counts_keys_as_buckets_do(spark) -> None:
    from safescale_ammt.spark.frames import frame_of
    from safescale_ammt.spark.keys import signed
    from safescale_ammt.spark.relations import times_of

    rng = np.random.default_rng(2)
    keys = rng.integers(0, 2**64, 300, np.uint64)[rng.integers(0, 300, 900)]
    keys[:40], keys[40:50] = 0, 2**64 - 1
    asked = rng.random(900) < 0.3
    table = pa.table({"key": pa.array(signed(keys)), "asked": pa.array(asked)})
    with partitions(spark, 3):
        found = [*times_of(spark, frame_of(spark, table))]
        none = [*times_of(spark, frame_of(spark, table.slice(0, 0)))]
    pairs = [
        Counter(
            pair
            for times, mine in parts
            for pair in zip(times.tolist(), mine.tolist(), strict=True)
        )
        for parts in (found, Buckets(900).times([(keys, asked)]))
    ]
    assert pairs[0] == pairs[1]
    assert not none
