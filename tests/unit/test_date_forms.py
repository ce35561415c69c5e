"""Days and instants in the usual forms, and the order that a column shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.reading.date_forms import DateForm, date_form, instants


def read(*texts: str, declared: str = "") -> list[str]:
    form = date_form(texts, declared)
    assert isinstance(form, DateForm), form
    return form.parse(pa.array(texts, pa.string())).to_pylist()


@pytest.mark.parametrize(
    ("texts", "days"),
    [
        (["31/12/2020", "01/02/2020"], ["2020-12-31", "2020-02-01"]),
        (["12/31/2020", "01/02/2020"], ["2020-12-31", "2020-01-02"]),
        (["31.12.2020", "1.2.2020"], ["2020-12-31", "2020-02-01"]),
        (["2020/12/31", "2020.1.5"], ["2020-12-31", "2020-01-05"]),
        (["31-Dec-2020", "1 feb 2020"], ["2020-12-31", "2020-02-01"]),
        (["Dec 31, 2020", "February 1 2020"], ["2020-12-31", "2020-02-01"]),
        (["3rd March 2021"], ["2021-03-03"]),
        (["31.12.2020 13:45"], ["2020-12-31 13:45:00"]),
        (["12/31/2020 12:30 AM", "1/2/2020 1:05 pm"],
         ["2020-12-31 00:30:00", "2020-01-02 13:05:00"]),
        (["2020-12-31T13:45:00.250"], ["2020-12-31 13:45:00.25"]),
        (["2020-12-31 01:00+02:00"], ["2020-12-30 23:00:00Z"]),
        (["Thu, 31 Dec 2020 13:45:00 GMT"], ["2020-12-31 13:45:00Z"]),
        # Both orders say the same.
        (["05/05/2020"], ["2020-05-05"]),
        # A program's form is the same in every order.
        (["31/12/2020", "2020-02-01"], ["2020-12-31", "2020-02-01"]),
    ],
)  # fmt: skip
def test_a_date_is_the_day_it_says(texts: list[str], days: list[str]) -> None:
    assert read(*texts) == days


def test_two_orders_stay_text_until_one_is_declared() -> None:
    assert "either order" in str(date_form(["01/02/2020", "03/04/2020"]))
    assert read("01/02/2020", declared="dmy") == ["2020-02-01"]
    assert read("01/02/2020", declared="mdy") == ["2020-01-02"]


def test_years_of_two_digits_are_read_only_if_the_order_is_declared() -> None:
    assert "two digits" in str(date_form(["25/12/99"]))
    texts = ["25/12/69", "25/12/68", "01/02/03"]
    assert read(*texts, declared="dmy") == ["1969-12-25", "2068-12-25", "2003-02-01"]
    assert "this century" in str(date_form(texts, "dmy"))
    assert read("20200131", declared="ymd") == ["2020-01-31"]


@pytest.mark.parametrize(
    "texts",
    [
        ["2020-02-30"],
        ["31/31/2020"],
        ["31/12/2020", "soon"],
        ["1.2.3"],
        ["192.168.1.10"],
        ["13:45"],
        ["12/31/2020 13:45 PM"],
        # An instant and a time of nowhere are not to be compared.
        ["2020-12-31T13:45:00Z", "2020-12-31 13:45"],
        [],
    ],
)
def test_what_is_no_column_of_dates_has_no_form(texts: list[str]) -> None:
    assert date_form(texts) is None


def test_a_form_reads_no_text_of_another_form() -> None:
    texts = pa.array(["31/12/2020", "12/31/2020", "31/12/20", "2020-12-31 00:00:00Z"])
    assert DateForm("dmy").parse(texts).to_pylist() == ["2020-12-31", *[None] * 3]
    iso = pa.array(["2020-12-31", "2020-02-30", "2020-01-01 10:00:00"])
    assert DateForm().parse(iso).to_pylist() == [
        "2020-12-31",
        None,
        "2020-01-01 10:00:00",
    ]


FORMS = {
    "%d/%m/%Y %H:%M:%S": "dmy",
    "%m/%d/%Y %I:%M:%S %p": "mdy",
    "%Y-%m-%dT%H:%M:%S": "ymd",
    "%d %B %Y %H:%M:%S": "dmy",
    "%a, %d %b %Y %H:%M:%S": "dmy",
    "%b %d, %Y %H:%M:%S": "mdy",
}
TIME = st.datetimes(datetime(1000, 1, 1), datetime(9999, 1, 1))  # noqa: DTZ001


@given(
    times=st.lists(TIME, min_size=1, max_size=5),
    form=st.sampled_from(sorted(FORMS)),
    zone=st.none() | st.integers(-14 * 60, 14 * 60),
)
def test_seconds_are_read_back_from_any_form(
    times: list[datetime], form: str, zone: int | None
) -> None:
    times = [time.replace(microsecond=0) for time in times]
    if zone is not None:
        offset = timezone(timedelta(minutes=zone))
        times = [time.replace(tzinfo=offset) for time in times]
    texts = [time.strftime(form) + time.strftime("%z") for time in times]
    days = read(*texts, declared=FORMS[form])
    back = instants(pa.array(days, pa.string())).to_pylist()
    utc = UTC
    expected = [
        t.astimezone(utc).replace(tzinfo=None) if t.tzinfo else t for t in times
    ]
    assert back == expected
