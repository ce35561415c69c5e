"""Cron: five fields become six, and what cannot be meant is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kubeflow.cron import seconds, six_fields
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
