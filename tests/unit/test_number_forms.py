"""Numbers in every dress are the numbers they are, or stay text with the reason."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.number_forms import (
    AMBIGUOUS,
    MIXED,
    NumberForm,
    marked,
    number_form,
    unmarked,
)
from safescale_ammt.reading.readings import read_as


def found(*texts: str, declared: str = "") -> NumberForm | str | None:
    return number_form(pa.array(texts, pa.string()), declared)


def values(*texts: str, declared: str = "") -> list[float]:
    form = found(*texts, declared=declared)
    assert isinstance(form, NumberForm), form
    column = Column.of(pa.chunked_array([pa.array(texts, pa.string())]))
    read, wrong = read_as(column, form, ("",))
    assert not wrong.any()
    return [float(text) for text in read.texts().to_pylist()]


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1,5", "-2"], [1.5, -2]),
        (["1.234,56", "5"], [1234.56, 5]),
        (["1.234.567", "12"], [1234567, 12]),
        (["1,234.56", "0.5"], [1234.56, 0.5]),
        (["1,234,567", "1,234"], [1234567, 1234]),
        (["12,34,567.5"], [1234567.5]),
        (["1'234.56", "1’000"], [1234.56, 1000]),
        (["1 234", "12"], [1234, 12]),
        (["1\u00a0234,5", "1\u202f234", "1\u2009000"], [1234.5, 1234, 1000]),
        (["0,500", "1,234"], [0.5, 1.234]),
        (["12345,678"], [12345.678]),
        (["$5", "$1,234,567"], [5, 1234567]),
        (["$0", "$5,000"], [0, 5000]),
        (["£1,234", "GBP 10"], [1234, 10]),
        (["5,00 €", "1.234,50 €"], [5, 1234.5]),
        (["EUR 5", "EUR6.50", "7 EUR", "€8"], [5, 6.5, 7, 8]),
        (["R$ 1.234,50"], [1234.5]),
        (["CHF 1'000.50"], [1000.5]),
        (["100 kr", "1 000 kr"], [100, 1000]),
        (["12%", "5.5 %", "%7"], [0.12, 0.055, 0.07]),
        (["12,5 %"], [0.125]),
        (["5‰"], [0.005]),
        (["(1,234.50)", "7"], [-1234.5, 7]),
        (["($5)", "$(6)", "-$7", "$-8", "$9-", "+$1"], [-5, -6, -7, -8, -9, 1]),
        (["\u22125,5", "+3,0"], [-5.5, 3]),
        (["(5 €)", "(6) €"], [-5, -6]),
        ([",5", "1,25"], [0.5, 1.25]),
        # Some amounts without their sign are amounts all the same.
        (["$5", "6"], [5, 6]),
    ],
)
def test_a_dressed_number_has_its_value(texts: list[str], numbers: list[float]) -> None:
    assert values(*texts) == numbers


@pytest.mark.parametrize(
    "texts",
    [
        ["1,234", "5,000"],
        ["1,234", "999"],
        ["1,234%"],
        ["$1.234"],
        ["1.234 €"],
        ["1,459 €"],
        # In Kuwait three decimals are usual.
        ["KWD 1,234"],
    ],
)
def test_what_two_readings_fit_stays_text_until_it_is_declared(
    texts: list[str],
) -> None:
    assert found(*texts) == AMBIGUOUS
    by_comma, by_point = (values(*texts, declared=sign) for sign in ",.")
    assert by_comma != by_point


def test_one_text_that_only_one_reading_fits_settles_its_column() -> None:
    assert values("1,234", "1,5") == [1.234, 1.5]
    assert values("1,234", "0.5") == [1234, 0.5]
    assert values("1,234", "1,234,567") == [1234, 1234567]


@pytest.mark.parametrize(
    "texts",
    [
        ["1.5", "-2e3"],
        ["007", "12"],
        ["1,5", "abc"],
        ["1,5", "1.5"],
        ["192.168.1.1"],
        ["1.2.3"],
        ["1,2,3"],
        ["TOP123"],
        ["(-5)"],
        ["5 apples"],
        ["2020-01-01"],
        ["$5e3"],
        [],
    ],
)
def test_what_is_no_dressed_number_has_no_form(texts: list[str]) -> None:
    assert found(*texts) is None


def test_signs_that_differ_are_no_one_column_of_numbers() -> None:
    assert found("$5", "€5") == found("5%", "12") == MIXED
    assert found("5%", "12", declared=".") == MIXED


def test_a_declared_sign_makes_no_number_of_a_version() -> None:
    assert found("1.1", "1.10", declared=",") is None


def test_a_form_reads_no_text_of_another_form() -> None:
    rate, price = NumberForm(".", "%"), NumberForm(".", "$")
    assert rate.parse(pa.array(["5%", "5", "0.05", "$5"])).to_pylist() == [
        "5e-2",
        *[None] * 3,
    ]
    assert price.parse(pa.array(["$5", "5", "5 €", "5,5"])).to_pylist() == [
        "5",
        "5",
        None,
        None,
    ]


def test_a_number_that_a_reader_understood_is_not_read_again() -> None:
    texts = pa.array(["1.234", "-12.345", "0.123", "1234.567", "1.5", "a"])
    once = marked(texts)
    assert unmarked(once).equals(texts)
    read = NumberForm(",").parse(once.slice(0, 5)).to_pylist()
    assert [float(text) for text in read] == [1.234, -12.345, 0.123, 1234.567, 1.5]


GROUPED = {
    ".": (",", " ", "'", "\u202f", ""),
    ",": (".", " ", "’", "\u00a0", ""),
}


@given(
    numbers=st.lists(st.decimals(-(10**9), 10**9, places=2), min_size=1, max_size=6),
    sign=st.sampled_from(sorted(GROUPED)),
    which=st.integers(0, 4),
    dress=st.sampled_from(["{}", "${}", "{} €", "EUR {}", "{}\u00a0kr"]),
    brackets=st.booleans(),
)
def test_two_decimals_are_read_back_from_any_dress(
    numbers: list, sign: str, which: int, dress: str, brackets: bool
) -> None:
    texts = []
    for number in numbers:
        plain = f"{abs(number):,.2f}".replace(",", "g").replace(".", sign)
        plain = dress.format(plain.replace("g", GROUPED[sign][which]))
        minus = f"({plain})" if brackets else f"-{plain}"
        texts.append(minus if number < 0 else plain)
    if found(*texts) is None:
        # All are as programs write numbers.
        assert dress == "{}"
        assert sign == "."
        assert which == 4 or all(abs(number) < 1000 for number in numbers)
    else:
        assert values(*texts) == [float(number) for number in numbers]
