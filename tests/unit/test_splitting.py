"""Splits: decided by what a row says, whatever stands around it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from safescale_ammt.binomial.intervals import rate_p_above, rate_p_below
from safescale_ammt.data import splitting
from safescale_ammt.data.splitting import (
    assign_splits,
    contained,
    drawn_keys,
    entity_hashes,
    entity_strata,
    occurrences,
    one_of_each,
    row_hex,
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
    return drawn_keys(rows, f"split {seed}")


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


def cells(*counts: int) -> np.ndarray:
    texts = [(str(i),) for i, n in enumerate(counts) for _ in range(n)]
    return row_hashes(columns_of(texts))


def cut_of(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    drawn = drawn_keys(rows, f"split {seed}", occurrences(rows))
    return assign_splits(drawn, np.zeros(len(rows), np.int64), FRACTIONS)


def test_equal_rows_are_spread_over_the_splits_as_unequal_ones_are() -> None:
    splits = cut_of(cells(400, 400, 400))
    for equal in splits.reshape(3, 400):
        np.testing.assert_allclose(
            np.bincount(equal, minlength=4) / 400, FRACTIONS, atol=0.07
        )


def test_how_many_of_equal_rows_are_drawn_varies_as_without_replacement() -> None:
    # 40 equal rows of 400: hypergeometric, mean 4 and variance 4 * .9 * 360 / 399.
    rows = cells(40, *(1 for _ in range(360)))
    drawn = [np.sum(cut_of(rows, seed)[:40] == 3) for seed in range(800)]
    assert abs(np.mean(drawn) - 4) < 3 * 1.8 / np.sqrt(800)
    assert abs(np.var(drawn) - 3.25) < 0.6


def test_which_equal_rows_go_where_does_not_depend_on_the_files_order() -> None:
    rows = cells(*(i % 7 + 1 for i in range(100)))
    order = np.random.default_rng(0).permutation(len(rows))

    def told(rows: np.ndarray) -> list[tuple[str, int]]:
        return sorted(zip(row_hex(rows), cut_of(rows).tolist(), strict=True))

    assert told(rows) == told(rows[order])


def test_equal_rows_are_numbered_in_their_order() -> None:
    rows = cells(1, 1, 1)[[0, 1, 0, 2, 1, 0]]
    np.testing.assert_array_equal(occurrences(rows), [0, 0, 1, 0, 1, 2])
    assert len(occurrences(rows[:0])) == 0


def test_one_more_equal_row_moves_only_those_at_a_cut() -> None:
    few, more = cells(1000, 1000), cells(1000, 1001)
    assert (cut_of(few) != cut_of(more)[:2000]).mean() < 0.01


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


def test_a_stratum_of_one_unit_may_land_in_any_split() -> None:
    drawn = [
        assign_splits(keys(1, seed), np.zeros(1, int), FRACTIONS)[0]
        for seed in range(200)
    ]
    shares = np.bincount(drawn, minlength=4) / 200
    np.testing.assert_allclose(shares, FRACTIONS, atol=0.12)


def test_an_entity_has_one_key_and_one_stratum() -> None:
    entity = columns_of([("ann",), ("bob",), ("ann",)])["0"]
    assert len(set(row_hex(entity_hashes(entity)))) == 2
    strata = entity_strata(entity.codes.astype(np.int64), np.array([3, 1, 2]))
    np.testing.assert_array_equal(strata, [2, 1])


def test_one_row_of_every_entity_is_drawn_whatever_the_order() -> None:
    rows = row_hashes(columns_of([(str(i),) for i in range(300)]))
    entity = np.arange(300) // 3
    drawn = one_of_each(entity, rows)
    np.testing.assert_array_equal(np.bincount(entity[drawn]), np.ones(100))
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(one_of_each(entity[order], rows[order]), drawn[order])


def test_each_row_of_an_entity_is_drawn_equally_often() -> None:
    rows = row_hashes(columns_of([(str(i),) for i in range(3000)]))
    drawn = np.flatnonzero(one_of_each(np.arange(3000) // 3, rows)) % 3
    np.testing.assert_allclose(np.bincount(drawn) / 1000, 1 / 3, atol=0.045)


def test_a_row_that_an_entity_has_three_times_is_drawn_three_times_as_often() -> None:
    # Of 1000 entities each has row A thrice and row B once.
    rows = cells(*(n for _ in range(1000) for n in (3, 1)))
    drawn = np.flatnonzero(one_of_each(np.arange(4000) // 4, rows)) % 4
    assert abs(np.mean(drawn < 3) - 0.75) < 0.041


def test_rows_are_found_among_others() -> None:
    rows = row_hashes(columns_of([(str(i),) for i in range(5)]))
    np.testing.assert_array_equal(
        contained(rows, rows[[3, 1]]), [False, True, False, True, False]
    )
    assert not contained(rows, rows[:0]).any()


def sealed_of(size: int, share: float) -> dict[int, float]:
    """The law of how many units of a stratum are sealed."""
    whole, part = divmod((1 - share) * size, 1)
    least = size - int(whole) - 1
    return {least: part, least + 1: 1 - part} if size else {0: 1.0}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_of_few_units_each_is_sealed_as_often_as_of_many(size: int) -> None:
    rng = np.random.default_rng(size)
    strata = np.repeat(np.arange(20_000), size)
    keys = rng.integers(0, 2**64, len(strata), np.uint64)
    sealed = assign_splits(keys, strata, [0.7, 0.3]) == 1
    found = np.bincount(np.bincount(strata[sealed], minlength=20_000))
    expected = sealed_of(size, 0.3)
    assert set(np.flatnonzero(found)) <= expected.keys()
    for count, chance in expected.items():
        assert found[count] / 20_000 == pytest.approx(chance, abs=0.015)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("rates", [(0.0, 1.0), (0.05, 0.7), (0.9, 0.2), (0.4, 0.5)])
@pytest.mark.parametrize("weight", [0.05, 0.3, 0.5])
def test_a_rate_that_mixes_strata_errs_no_more_often_than_its_level(
    share: float, rates: tuple[float, float], weight: float
) -> None:
    """Enumerated over 80 people in two strata, whose hits are no binomial sum."""
    people, level = 80, 0.05
    rate = weight * rates[0] + (1 - weight) * rates[1]
    low = high = 0.0
    for first in range(people + 1):
        drawn = product(
            sealed_of(first, share).items(), sealed_of(people - first, share).items()
        )
        for (n0, chance0), (n1, chance1) in drawn:
            laws = [
                binom.pmf(np.arange(n + 1), n, r)
                for n, r in zip((n0, n1), rates, strict=True)
            ]
            law = np.convolve(*laws) * chance0 * chance1
            law *= binom.pmf(first, people, weight)
            hits = np.arange(n0 + n1 + 1)
            low += law[rate_p_below(hits, n0 + n1, rate) <= level].sum()
            high += law[rate_p_above(hits, n0 + n1, rate) <= level].sum()
    assert max(low, high) <= level
