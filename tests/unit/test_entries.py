"""Columns of entries that stand for many rows: as the rows themselves, to the bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from safescale_ammt.data.associations import proxies, proxies_by_law
from safescale_ammt.data.coded_rows import CodedRows, regular
from safescale_ammt.data.encoding import (
    learn_categorical,
    learn_date,
    learn_numeric,
    sorted_quantiles,
)
from safescale_ammt.data.input_keys import InputKeys
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.data.typed_entries import TypedEntries
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.spool import Spool


def table(rows: int, columns: int, seed: int = 0) -> RawTable:
    """Generates a table of texts, in each column others."""
    rng = np.random.default_rng(seed)
    values = {
        f"c{j}": Column.of(
            pa.chunked_array([[f"{j} {v}" for v in rng.integers(0, 9 + j, rows)]])
        )
        for j in range(columns)
    }
    return RawTable(values, rows, "here", {})


@pytest.mark.parametrize("most", [1, 7, 50, 1000])
def test_the_rows_of_any_batches_are_coded_as_entries(
    tmp_path: Path, most: int
) -> None:
    source, sealed = table(50, 70), table(20, 70, 1)
    sides = [Spool.of(source), Spool.of(sealed)]
    rows = CodedRows(sides, Shelf(tmp_path, 0), most)
    assert rows.starts[-1] == 70
    for name in source.columns:
        entries = rows.tables[0].columns[name].extended(rows.tables[1].columns[name])
        found = [
            text
            for batch in rows.batches
            for text in entries.take(rows.codes(name, batch)).texts().to_pylist()
        ]
        assert found == [
            *source.columns[name].texts().to_pylist(),
            *sealed.columns[name].texts().to_pylist(),
        ]
        assert entries.stands_for.sum() == 70
        sides_of = rows.count(name, lambda i: np.array(rows.sealed(i)), 2)
        assert sides_of.sum(axis=0).tolist() == [50, 20]


def test_batches_of_any_sizes_become_batches_of_one_size() -> None:
    whole = table(97, 3)
    cuts = [0, 1, 2, 40, 41, 90, 97]
    parts = (whole.take(slice(a, b)) for a, b in pairwise(cuts))
    batches = list(regular(parts, 10))
    assert [len(batch["c0"]) for batch in batches] == [10] * 9 + [7]
    for name, column in whole.columns.items():
        texts = [t for batch in batches for t in batch[name].texts().to_pylist()]
        assert texts == column.texts().to_pylist()


def test_what_is_on_the_shelf_is_what_was_put_there(tmp_path: Path) -> None:
    for shelf in (Shelf(), Shelf(tmp_path, 0), Shelf(tmp_path, 40)):
        arrays = [
            np.arange(12).reshape(4, 3)[:, 1],
            np.frombuffer(bytes(range(64)), "V16"),
            np.zeros(0, np.uint8),
            np.array([True, False]),
            np.array([[1.5, np.nan]]),
        ]
        loads = [shelf.keep(array) for array in arrays]
        texts = shelf.keep_texts(pa.array(["a", "", "éé", "d"])[1:])
        for load, array in zip(loads, arrays, strict=True):
            assert load().tobytes() == array.tobytes()
            assert (load().dtype, load().shape) == (array.dtype, array.shape)
        assert texts().to_pylist() == ["", "éé", "d"]
    assert not list(tmp_path.iterdir())


def test_what_lies_in_the_file_takes_no_memory(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 0)
    before = pa.total_allocated_bytes()
    load = shelf.keep_texts(pa.array([f"text {i}" for i in range(100_000)]))
    assert pa.total_allocated_bytes() - before < 1000
    assert load()[99_999].as_py() == "text 99999"


def test_a_number_is_learnt_of_values_and_their_rows_as_of_the_rows() -> None:
    rng = np.random.default_rng(3)
    for values in (
        rng.normal(size=700),
        np.where(rng.random(700) < 0.7, 0.0, rng.integers(1, 90, 700) / 3),
        np.full(700, np.nan),
        np.append(np.full(699, 2.0), np.nan),
    ):
        weights = rng.integers(1, 40, len(values))
        rows = rng.permutation(np.repeat(values, weights))
        assert learn_numeric("x", values, 25, weights) == learn_numeric("x", rows, 25)


def test_quantiles_of_sorted_values_are_numpys_to_the_bit() -> None:
    rng = np.random.default_rng(4)
    for n in (1, 2, 3, 10, 257, 5000):
        values = np.sort(rng.normal(size=n) * 10.0 ** rng.integers(-9, 9, n))
        shares = np.append(np.linspace(0, 1, 25), rng.random(50))
        found = sorted_quantiles(values, shares)
        np.testing.assert_array_equal(found, np.quantile(values, shares))


def test_levels_and_dates_are_learnt_of_entries_as_of_the_rows() -> None:
    rng = np.random.default_rng(5)
    texts = pa.array([f"v{i}" for i in range(30)] + [""])
    weights = rng.integers(1, 60, 31)
    entries = Column(np.arange(31, dtype=np.int32), texts, weights)
    rows = Column(np.repeat(np.arange(31, dtype=np.int32), weights), texts)
    for most in (4, 64):
        learnt = learn_categorical("x", entries, ("",), most)
        assert learnt == learn_categorical("x", rows, ("",), most)
    seconds = rng.integers(0, 10**8, 31) * 10
    times = pa.array(seconds * 10**6, pa.timestamp("us"), mask=np.arange(31) == 7)
    each = times.take(pa.array(np.repeat(np.arange(31), weights)))
    ones = np.ones(len(each), np.int64)
    assert learn_date("t", times, False, 9, 4, weights=weights) == learn_date(
        "t", each, False, 9, 4, weights=ones
    )


def test_typed_entries_give_rows_with_their_gaps(tmp_path: Path) -> None:
    codes = np.array([3, 0, 0, 2, 1], np.uint8)
    for entries in (
        pa.array([1.5, None, -0.0, 1e9]),
        pa.array(["a", None, "", "a"]),
        pa.array([5, None, -7, 5], pa.timestamp("us")),
    ):
        for shelf in (Shelf(), Shelf(tmp_path, 0)):
            typed = TypedEntries.of(entries, shelf)
            assert typed.array(codes).equals(entries.take(pa.array(codes)))
            assert typed.array().equals(entries)
            assert typed.gaps.tolist() == [False, True, False, False]
    assert sorted(typed.counts(np.array([2, 4, 0, 5])).tolist()) == [4, 7]


def test_keys_are_equal_where_all_columns_are() -> None:
    shelf = Shelf()
    rows = CodedRows([Spool.of(table(400, 2))], shelf, 90)
    columns = {
        name: (lambda n=name: rows.tables[0].columns[n].codes) for name in ("c0", "c1")
    }
    keys = InputKeys.of(rows, columns, shelf)
    every = np.concatenate([keys(batch) for batch in rows.batches])
    pairs = [
        np.concatenate([rows.codes(name, batch) for batch in rows.batches])
        for name in columns
    ]
    assert len(np.unique(every)) == len(
        set(zip(*(p.tolist() for p in pairs), strict=True))
    )


def test_the_law_finds_what_permutations_find() -> None:
    rng = np.random.default_rng(6)
    group = rng.integers(0, 3, 20_000)
    features = [
        np.where(rng.random(20_000) < 0.6, group, rng.integers(0, 3, 20_000)),
        *(rng.integers(0, 20, 20_000) for _ in range(6)),
        np.zeros(20_000, np.int64),
    ]
    drawn, law = proxies(features, [group], 200, 0), proxies_by_law(features, [group])
    assert [p.p_value <= 0.05 for p in law] == [p.p_value <= 0.05 for p in drawn]
    for one, other in zip(drawn, law, strict=True):
        assert abs(one.strength - other.strength) < 0.001


def test_the_law_errs_no_more_often_than_its_level() -> None:
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(200):
        features = [rng.integers(0, 20, 3000) for _ in range(10)]
        found = proxies_by_law(features, [rng.integers(0, 4, 3000)])
        wrong += any(p.p_value <= 0.05 for p in found)
    # Nine in two hundred are expected; 19 have a chance of 1 in 500.
    assert wrong < 19
