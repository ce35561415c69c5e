"""Splits: decided by what a row says, whatever stands around it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from safescale_ammt.data import splitting
from safescale_ammt.data.splitting import (
    assign_splits,
    contained,
    entity_hashes,
    entity_strata,
    row_hex,
    seeded_keys,
)
from safescale_ammt.reading.cells import cells_of
from safescale_ammt.reading.columns import Column

FRACTIONS = (0.5, 0.2, 0.2, 0.1)


def columns_of(rows: list[tuple[str, ...]]) -> dict[str, Column]:
    return {
        str(i): Column.of(pa.chunked_array([pa.array(texts, pa.string())]))
        for i, texts in enumerate(zip(*rows, strict=True))
    }


def row_hashes(columns: dict[str, Column]) -> np.ndarray:
    return splitting.row_hashes(cells_of(columns))


def test_a_row_hash_is_the_sum_of_its_cells_words() -> None:
    table = columns_of([("a", "b"), ("c", "")])
    cells = cells_of(table)
    total = sum(c.named(name)[c.codes] for name, c in cells.items())
    assert row_hex(row_hashes(table)) == [row.tobytes().hex() for row in total]


texts = st.text(st.sampled_from(["a", "\\", "\x1f", "u", "0"]), max_size=4)


@given(rows=st.lists(st.tuples(texts, texts), min_size=2, max_size=8, unique=True))
@settings(deadline=None)
def test_different_rows_have_different_hashes(rows: list[tuple[str, ...]]) -> None:
    stripped = [tuple(text.strip() for text in row) for row in rows]
    assert len(set(row_hex(row_hashes(columns_of(rows))))) == len(set(stripped))


def keys(n: int, seed: int = 0) -> np.ndarray:
    rows = row_hashes(columns_of([(str(i),) for i in range(n)]))
    return seeded_keys(rows, seed)


def test_fractions_hold_in_every_stratum() -> None:
    strata = np.repeat([0, 1], [1000, 300])
    splits = assign_splits(keys(1300), strata, FRACTIONS)
    for stratum, n in ((0, 1000), (1, 300)):
        shares = np.bincount(splits[strata == stratum], minlength=4) / n
        np.testing.assert_allclose(shares, FRACTIONS, atol=2.5 / n)


def test_the_order_of_rows_does_not_matter() -> None:
    drawn, strata = keys(500), np.arange(500) % 3
    order = np.random.default_rng(0).permutation(500)
    shuffled = assign_splits(drawn[order], strata[order], FRACTIONS)
    np.testing.assert_array_equal(
        shuffled, assign_splits(drawn, strata, FRACTIONS)[order]
    )


def test_equal_rows_share_a_split() -> None:
    drawn = np.tile(keys(200), 3)
    splits = assign_splits(drawn, np.zeros(600, np.int64), FRACTIONS)
    np.testing.assert_array_equal(splits[:200], splits[200:400])
    np.testing.assert_array_equal(splits[:200], splits[400:])


def test_adding_rows_moves_only_those_at_a_cut() -> None:
    few = assign_splits(keys(2000), np.zeros(2000, np.int64), FRACTIONS)
    more = assign_splits(keys(2100), np.zeros(2100, np.int64), FRACTIONS)[:2000]
    assert (few != more).mean() < 0.05


def test_another_seed_draws_another_split() -> None:
    strata = np.zeros(1000, np.int64)
    first = assign_splits(keys(1000, 0), strata, FRACTIONS)
    assert (first != assign_splits(keys(1000, 1), strata, FRACTIONS)).mean() > 0.5


def test_tiny_strata_do_not_all_fall_into_the_first_split() -> None:
    splits = assign_splits(keys(3000), np.arange(3000), FRACTIONS)
    shares = np.bincount(splits, minlength=4) / 3000
    np.testing.assert_allclose(shares, FRACTIONS, atol=0.04)


def test_a_stratum_of_one_large_block_may_land_in_any_split() -> None:
    drawn = [
        assign_splits(keys(1, seed).repeat(50), np.zeros(50, int), FRACTIONS)
        for seed in range(200)
    ]
    shares = np.bincount([splits[0] for splits in drawn], minlength=4) / 200
    assert all(len(set(splits)) == 1 for splits in drawn)
    np.testing.assert_allclose(shares, FRACTIONS, atol=0.12)


def test_an_entity_has_one_key_and_one_stratum() -> None:
    entity = columns_of([("ann",), ("bob",), ("ann",)])["0"]
    hashes = row_hex(entity_hashes(entity))
    assert hashes[0] == hashes[2] != hashes[1]
    strata = entity_strata(entity.codes.astype(np.int64), np.array([3, 1, 2]))
    np.testing.assert_array_equal(strata, [2, 1, 2])


def test_rows_are_found_among_others() -> None:
    rows = row_hashes(columns_of([(str(i),) for i in range(5)]))
    np.testing.assert_array_equal(
        contained(rows, rows[[3, 1]]), [False, True, False, True, False]
    )
    assert not contained(rows, rows[:0]).any()
