"""Relations of rows: with any number of buckets, the placement that is defined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from safescale_ammt.data.buckets import Buckets
from safescale_ammt.data.relations import REMOVED, SEALED_CODE, RowFacts, Rule
from safescale_ammt.data.splitting import (
    ROW,
    contained,
    draw_splits,
    entity_hashes,
    occurrences,
    one_of_each,
)
from safescale_ammt.reading.columns import Column

N = 3000
PARTS = (0.4, 0.1, 0.1, 0.1, 0.1, 0.2)


def hashes(number: np.ndarray) -> np.ndarray:
    """Gives each number a hash."""
    random = np.random.default_rng(0).bytes(16 * (int(number.max()) + 1))
    return np.frombuffer(random, ROW)[number]


def table(seed: int, official: bool, entities: int = 0) -> RowFacts:
    """Generates rows, many of them equal, and some without a label."""
    rng = np.random.default_rng(seed)
    entity = rng.integers(0, entities, N) if entities else None
    sealed = np.arange(N) >= (2000 if official else N)
    if entities and official:
        entity = np.where(sealed, entity + entities, entity)
    return RowFacts(
        hashes(rng.integers(0, 2500, N)),
        sealed,
        rng.integers(0, 5, N).astype(np.uint16),
        entity,
        rng.random(N) < 0.05,
    )


def batches(facts: RowFacts, rows: int) -> Iterator[RowFacts]:
    """Cuts a table into batches."""
    for i in range(0, len(facts.rows), rows):
        part = slice(i, i + rows)
        fields = (facts.rows, facts.sealed, facts.stratum, facts.entity, facts.absent)
        yield RowFacts(*(None if f is None else f[part] for f in fields))


def defined(facts: RowFacts, rule: Rule) -> np.ndarray:
    """Places rows by the functions of `splitting`, all at once."""
    split = np.full(N, REMOVED)
    kept = np.flatnonzero(~facts.absent)
    rows, sealed = facts.rows[kept], facts.sealed[kept]
    repeats = np.zeros(len(kept), bool)
    if rule.drop_duplicates:
        for side in (sealed, ~sealed):
            repeats[side] = occurrences(rows[side]) > 0
    free = ~sealed & ~repeats & ~contained(rows, rows[sealed])
    who = None
    if facts.entity is not None:
        codes = facts.entity[kept].astype(np.int32)
        who = Column(codes, pa.array([f"{i}" for i in range(codes.max() + 1)]))
    here = draw_splits(
        rows[free],
        facts.stratum[kept][free].astype(np.int64),
        rule.fractions,
        rule.seed,
        who.take(free) if who else None,
    )
    split[kept[sealed & ~repeats]] = SEALED_CODE
    split[kept[free]] = here
    if who:
        judged = np.flatnonzero(split[kept] == SEALED_CODE)
        drawn = one_of_each(codes[judged].astype(np.int64), rows[judged])
        split[kept[judged[~drawn]]] = REMOVED
    return split


@pytest.mark.parametrize("entities", [0, 400])
@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("drop", [False, True])
def test_rows_are_placed_in_any_number_of_buckets_as_they_are_all_at_once(
    tmp_path: Path, official: bool, drop: bool, entities: int
) -> None:
    facts = table(1, official, entities)
    parts = (0.5, 0.2, 0.1, 0.1, 0.1, 0.0) if official else PARTS
    ids = pa.array([f"{i}" for i in range(2 * entities)])
    who = entity_hashes(Column(np.zeros(0, np.int32), ids)) if entities else None
    rule = Rule(parts, 3, drop, who)
    expected = defined(facts, rule)
    for rows, bucket in ((N, N), (7, 50), (1000, 900)):
        found = Buckets(N, tmp_path, bucket).place(
            lambda r=rows: batches(facts, r), rule
        )
        np.testing.assert_array_equal(found.split, expected)
        development = facts.rows[expected < SEALED_CODE]
        assert found.repeated == np.count_nonzero(occurrences(development))
        assert found.first[expected >= SEALED_CODE].sum() == 0
        assert found.sizes == np.bincount(expected, minlength=7)[:6].tolist()
    assert not list(tmp_path.iterdir())


def test_an_entity_on_both_sides_is_counted_and_nothing_is_placed(
    tmp_path: Path,
) -> None:
    facts = table(1, True, 400)
    facts = RowFacts(facts.rows, facts.sealed, facts.stratum, facts.entity % 450)
    rule = Rule(PARTS, 0, False, hashes(np.arange(800)))
    found = Buckets(N, tmp_path, 100).place(lambda: batches(facts, 500), rule)
    assert found.shared > 0
    assert not found.first.any()
    assert sum(found.sizes[:SEALED_CODE]) == 0


def test_every_key_is_counted_with_those_that_are_asked_about(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    keys = rng.integers(0, 2**63, 700, dtype=np.uint64)[rng.integers(0, 700, N)]
    asked = rng.random(N) < 0.3
    expected = Counter(keys.tolist()), Counter(keys[asked].tolist())
    for bucket in (N, 40):
        parts = ((keys[i : i + 99], asked[i : i + 99]) for i in range(0, N, 99))
        every, some = map(
            np.concatenate, zip(*Buckets(N, tmp_path, bucket).times(parts), strict=True)
        )
        assert sorted(every.tolist()) == sorted(expected[0].values())
        assert some.sum() == asked.sum()
        assert (some <= every).all()


def test_no_rows_have_no_keys(tmp_path: Path) -> None:
    assert not sum(len(t) for t, _ in Buckets(0, tmp_path).times([]))
    assert len(Buckets(0, tmp_path).distinct([])) == 0


def test_distinct_hashes_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    rows = hashes(np.random.default_rng(3).integers(0, 800, N))
    for bucket in (N, 40):
        found = Buckets(N, tmp_path, bucket).distinct([rows[:1000], rows[1000:]])
        np.testing.assert_array_equal(found, np.unique(rows))
