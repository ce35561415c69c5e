"""Cron: five fields become six, and what cannot be meant is refused."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp_api.cron_times import NeverComesBack, cron_times, day_fits

from pipelines.kubeflow.cron import (
    days_of,
    refuse_rare,
    seconds,
    six_fields,
    times_of,
)
from safescale_ammt.errors import InputError


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("0 3 * * 1", "0 0 3 * * 1"),
        ("*/15 0 1,15 * ?", "0 */15 0 1,15 * *"),
        ("0 3 * * mon-FRI", "0 0 3 * * 1-5"),
        ("0 0 1 jan,jul *", "0 0 0 1 1,7 *"),
        ("30 0 3 * * 1", "30 0 3 * * 1"),
        ("  5   4 * * *  ", "0 5 4 * * *"),
        ("@weekly", "0 0 0 * * 0"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),
    ],
)
def test_an_expression_is_sent_with_seconds_first(written, sent):
    assert six_fields(written) == sent


@pytest.mark.parametrize(
    ("written", "sent"),
    [("7", "0"), ("5-7", "5,6,0"), ("1-7/2", "1,3,5,0"), ("0,7", "0"), ("sun", "0")],
)
def test_sunday_is_never_called_seven(written, sent):
    assert six_fields(f"0 0 * * {written}") == f"0 0 0 * * {sent}"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("* * *", "has 3 fields"),
        ("", "has 0 fields"),
        ("60 * * * *", "no minute"),
        ("0 24 * * *", "no hour"),
        ("0 0 0 * *", "no day of the month"),
        ("0 0 * 13 *", "jan to dec"),
        ("0 0 * * 8", "sun to sat"),
        ("5-3 * * * *", "5 comes after 3"),
        ("*/0 * * * *", "a step is 1 to 59"),
        ("*-5 * * * *", "takes no range"),
        ("1,,2 * * * *", "no minute"),
        ("-1 * * * *", "no minute"),
        ("1/2/3 * * * *", "no minute"),
        ("0 0 31 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 31 2 */2", "never comes: .* both day and weekday must fit"),
        ("0 0 30-31 2 ?", "never comes"),
        ("0 0 */31 12 1", "comes too seldom|never comes"),
        ("0 0 29 2 */6", "comes too seldom|never comes"),
        ("* * * * * *", "more than once a minute"),
        ("@every 1h", "--every 7d"),
        ("@reboot", "is unknown"),
        ("0 0 L * *", "no day of the month"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(written, said):
    with pytest.raises(InputError, match=said):
        six_fields(written)


def test_a_day_that_never_comes_comes_with_a_weekday_beside_it():
    # Either of the two is enough for a cron: the Monday comes.
    assert six_fields("0 0 31 2 1") == "0 0 0 31 2 1"


@pytest.mark.parametrize(
    ("written", "day"),
    [
        # A star alone is no condition.
        ("0 0 13 * *", "2026-12-13"),
        ("0 0 * * 1", "2026-11-30"),
        # Neither is starred: one of the two is enough.
        ("0 0 13 * 5", "2026-12-04"),
        ("0 0 1-31/31 * 5", "2026-12-01"),
        # A step keeps the star, so that both must fit.
        ("0 0 13 * */5", "2026-12-13"),
        ("0 0 */31 * 5", "2027-01-01"),
        ("0 0 1,*/30 * 2", "2026-12-01"),
    ],
)
def test_a_star_makes_day_and_weekday_two_conditions(written, day):
    first = date(2026, 11, 30)
    expression = six_fields(written)
    assert str(next(days_of(expression, first, 2031))) == day


def test_a_day_that_comes_now_and_then_not_for_six_years_is_refused():
    # The first of December is a Sunday in 2030, and then not before 2041.
    expression = "0 0 0 */31 12 0"
    with pytest.raises(InputError, match="after 2030-12-01 not for more than five"):
        refuse_rare(expression, "0 0 */31 12 0", date(2026, 11, 29))
    with pytest.raises(InputError, match="never comes"):
        refuse_rare(expression, "0 0 */31 12 0", date(2031, 1, 1))


def _some(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    pairs = st.tuples(numbers, numbers).map(sorted)
    steps = st.integers(1, high)
    part = st.one_of(
        st.just("*"),
        numbers.map(str),
        pairs.map(lambda p: f"{p[0]}-{p[1]}"),
        steps.map(lambda step: f"*/{step}"),
        st.tuples(pairs, steps).map(lambda p: f"{p[0][0]}-{p[0][1]}/{p[1]}"),
        st.tuples(numbers, steps).map(lambda p: f"{p[0]}/{p[1]}"),
    )
    return st.lists(part, min_size=1, max_size=2).map(",".join)


_expressions = st.tuples(
    *(_some(0, 59), _some(0, 23), _some(1, 31), _some(1, 12), _some(0, 6))
).map(lambda fields: "0 " + " ".join(fields))
_moments = st.integers(1_700_000_000, 2_800_000_000).map(
    lambda second: datetime.fromtimestamp(second, UTC)
)


@settings(max_examples=150, deadline=None)
@given(_expressions, _moments)
def test_times_are_those_that_trying_every_day_finds(expression, after):
    until = after + timedelta(days=40)
    ours = list(times_of(expression, after, until))
    tried: list[datetime] = []
    with suppress(NeverComesBack):
        tried = list(takewhile(lambda t: t <= until, cron_times(expression, after)))
    assert ours == tried


_rare_days = st.tuples(
    st.sampled_from(["29", "30", "31", "*/31", "*/30", "29-31", "*", "30,*/31"]),
    st.sampled_from(["2", "4", "2,4", "12", "1", "*", "2/12"]),
    st.sampled_from(["*", "0", "*/6", "*/5", "*/4", "*/2", "1-5/4", "6"]),
).map(lambda fields: "0 0 0 " + " ".join(fields))


@settings(max_examples=100, deadline=None)
@given(_rare_days, st.dates(date(2024, 1, 1), date(2050, 12, 31)))
def test_what_the_controller_would_not_come_back_from_is_refused(expression, today):
    """It walks from each day to the next, and gives up after five years."""
    days = (today + timedelta(days=n) for n in range(1, 41 * 366))
    tried = [day for day in days if day_fits(expression, day)]
    years = [today.year, *(d.year for d in tried if d.year <= today.year + 40)]
    gaps = [b - a for a, b in pairwise(years)] + [today.year + 40 - years[-1]]
    endless = max(gaps) > 5
    if endless:
        with pytest.raises(InputError, match="search for ever"):
            refuse_rare(expression, expression, today)
    else:
        refuse_rare(expression, expression, today)


_minutes = st.integers(0, 59)
_parts = st.one_of(
    st.just("*"),
    _minutes.map(str),
    st.tuples(_minutes, _minutes).map(lambda p: f"{min(p)}-{max(p)}"),
    st.integers(1, 59).map(lambda step: f"*/{step}"),
)


@given(st.lists(_parts, min_size=1, max_size=4).map(",".join), st.integers(0, 6))
def test_a_normal_form_is_its_own_normal_form(minutes, weekday):
    once = six_fields(f"{minutes} 0 * * {weekday}")
    assert six_fields(once) == once
    assert len(once.split()) == 6


@pytest.mark.parametrize(
    ("written", "length"), [("90m", 5400), ("12h", 43200), ("7d", 604800), ("60s", 60)]
)
def test_an_interval_is_counted_in_seconds(written, length):
    assert seconds(written) == length


@pytest.mark.parametrize(
    "written", ["", "7", "d", "1.5h", "-1h", "59s", "7 days", "53w"]
)
def test_an_interval_that_is_none_is_refused(written):
    with pytest.raises(InputError, match="--every"):
        seconds(written)
