"""Cells of a row's key: one value is one pair of words, whoever wrote the file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safescale_ammt.data.splitting import row_hashes
from safescale_ammt.reading.cells import Cells, cells_of, is_counter
from safescale_ammt.reading.columns import Column


def column(*texts: str) -> Column:
    return Column.of(pa.chunked_array([pa.array(texts, pa.string())]))


def words(*texts: str) -> list[tuple[int, ...]]:
    cells = Cells.of(column(*texts))
    return [tuple(pair) for pair in cells.words[cells.codes].tolist()]


@pytest.mark.parametrize(
    "texts",
    [
        ("39", "39.0", "+39", "3.9e1", " 39 ", "39.", "３９"),
        ("-0.5", "-.5", "-5e-1", "-0.50"),
        ("true", "TRUE", "True", "yes", "Y", "t", "1"),
        ("false", "No", "n", "F", "0"),
        ("", "?", "NA", "n/a", "nan", "NULL", "None", "-", " "),
        ("2020-01-01", "2020-01-01T00:00:00", "2020-01-01 00:00"),
        (">50K", ">50K.", " >50K", ">50K. "),
        ("New York", "New  York", "New\u00a0York", "New York."),
        ("Köln", "Ko\u0308ln"),
    ],
)
def test_spellings_of_one_value_are_one_cell(texts: tuple[str, ...]) -> None:
    assert len(set(words(*texts))) == 1
    assert {words(text)[0] for text in texts} == set(words(texts[0]))


@pytest.mark.parametrize(
    "texts",
    [
        ("F ", "M", "m", "f1", "Ma"),
        ("1", "-1", "10", "0.1", "1e-7", "1000000.5", "1000000.25"),
        ("123456789012345678", "123456789012345679"),
        ("0.1234567890123456", "0.1234567890123457"),
        ("007", "7", "0", "00"),
        (".5", "5", "U.S.", "U.K", "SU"),
        ("2020-01-01", "2020-01-02", "2020-01-01 00:00:01", "20200101"),
        ("New York", "NewYork", "new york"),
        ("", "a", "A", "ä"),
    ],
)
def test_different_values_are_different_cells(texts: tuple[str, ...]) -> None:
    assert len(set(words(*texts))) == len(texts)


@given(value=st.floats(-1e15, 1e15), other=st.floats(-1e15, 1e15))
@settings(deadline=None)
def test_a_double_is_one_cell_in_every_spelling(value: float, other: float) -> None:
    forms = {repr(value), f"{value:.17e}", f"+{value!r}" if value > 0 else repr(value)}
    assert len({words(text)[0] for text in forms}) == 1
    assert (words(repr(other)) == words(repr(value))) is (other == value)


def test_numbers_and_texts_of_a_column_are_told_apart_and_a_gap_is_neither() -> None:
    cells = Cells.of(column("1", "a", "", "-2.5e3", "007", "?"))
    assert cells.numbers[cells.codes].tolist() == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert cells.texts[cells.codes].tolist() == [False, True, False, False, True, False]
    assert not cells.constant
    assert Cells.of(column("NA", "", "?")).constant


def test_a_row_is_the_same_in_any_order_of_its_columns() -> None:
    table = {"a": column("1", "2"), "b": column("x", "y"), "c": column("2", "1")}
    rows = row_hashes(cells_of(table))
    turned = row_hashes(cells_of(dict(reversed(table.items()))))
    np.testing.assert_array_equal(rows, turned)
    # A value belongs to its column: 1 in a and 2 in c is not 2 in a and 1 in c.
    swapped = row_hashes(cells_of({**table, "a": table["c"], "c": table["a"]}))
    assert not set(rows.tolist()) & set(swapped.tolist())


def test_of_a_column_s_name_only_letters_and_digits_count() -> None:
    cells = Cells.of(column("1", "2"))
    named = cells.named("Marital Status")
    for name in ("marital_status", "MARITAL-STATUS", "maritalstatus"):
        np.testing.assert_array_equal(cells.named(name), named)
    assert (cells.named("status") != named).all()


@pytest.mark.parametrize(
    ("texts", "counts"),
    [
        ([str(i) for i in range(50)], True),
        ([f"APP-{i:06}" for i in range(900, 800, -1)], True),
        ([str(3 * i) for i in range(50)], True),
        ([str(i * i * 7919 % 99_991) for i in range(50)], False),
        ([str(i % 40) for i in range(80)], False),
        ([f"{i}.5" for i in range(50)], False),
        ([*[str(i) for i in range(49)], "none of these"], False),
        (["7", "7"], False),
        (["x1", "y2", "z3"], True),
        (["123456789012345678", "123456789012345679"], False),
    ],
)
def test_a_column_that_only_numbers_the_rows_is_a_counter(
    texts: list[str], counts: bool
) -> None:
    assert is_counter(column(*texts)) is counts
