"""Windows of dated files: what is read, what is refused, and that no clock is asked."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.config.window import Window, choose, day_of
from safescale_ammt.errors import ConfigError, DataError

days = st.dates(date(2020, 1, 1), date(2030, 1, 1))
WEEK = [f"2026-11-{day:02d}.csv" for day in range(9, 16)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Window()),
        ("7d", Window(days=7)),
        ("2w", Window(days=14)),
        ("7d/2026-11-16", Window(end=date(2026, 11, 16), days=7)),
        ("2026-11-09/2026-11-16", Window(date(2026, 11, 9), date(2026, 11, 16))),
    ],
)
def test_a_window_is_read_as_people_write_it(text, expected):
    assert Window.parse(text) == expected
    assert bool(expected) == bool(text)


@pytest.mark.parametrize(
    "text",
    [
        "7",
        "0d",
        "7m",
        "-7d",
        "7d/",
        "7d/7d",
        "/2026-11-16",
        "2026-11-16",
        "2026-11-16/",
        "2026-11-16/2026-11-16",
        "2026-11-16/2026-11-09",
        "2026-11-31/2026-12-01",
        "20261116/2026-11-17",
        "2026-W47-1/2026-11-17",
        "7d/2026-11-16/2026-11-17",
        "last week",
        " 7d",
        "99999d",
    ],
)
def test_what_is_no_window_is_refused_with_a_sentence(text):
    with pytest.raises(ConfigError, match="expected days such as 7d"):
        Window.parse(text)


def test_a_macro_that_the_server_left_alone_is_named():
    with pytest.raises(ConfigError, match="does not fill in what stands in brackets"):
        Window.parse("7d/[[ScheduledTime.2006-01-02]]")


def test_a_bad_window_is_refused_with_the_config():
    with pytest.raises(ConfigError, match=r"data\.window is 'tomorrow'"):
        DataConfig.from_params({"window": "tomorrow"})


@given(days, days, st.integers(1, 500))
def test_every_window_is_spelled_as_it_is_read(first, second, count):
    end = max(first, second) + timedelta(days=1)
    for window in (Window(days=count), Window(first, end), Window(end=end, days=count)):
        if window.start is None or window.start < end:
            assert Window.parse(str(window)) == window


@given(days, st.integers(1, 60), st.integers(1, 60))
def test_windows_that_follow_each_other_share_no_day(newest, first, second):
    early = Window(days=first).between(newest)
    late = Window(days=second).between(newest + timedelta(days=second))
    assert early[1] == late[0]
    assert (early[1] - early[0]).days == first


@given(st.sets(days, min_size=1, max_size=30), st.integers(1, 60))
def test_the_newest_days_always_hold_the_newest_file(dates, count):
    names = [f"dt={day}/part.csv" for day in dates]
    chosen = choose(Window(days=count), names, "s3://b/rows")
    assert f"dt={max(dates)}/part.csv" in chosen.files
    assert chosen.before + len(chosen.files) + chosen.after == len(names)
    assert chosen.after == 0
    span = (chosen.end - chosen.start).days
    assert span == len(chosen.gaps) + len(chosen.files)


def test_a_choice_can_be_made_again_from_what_is_recorded_of_it():
    chosen = choose(Window.parse("3d"), WEEK, "s3://b/rows")
    assert chosen.files == ("2026-11-13.csv", "2026-11-14.csv", "2026-11-15.csv")
    again = choose(chosen.window, [*WEEK, "2026-11-16.csv"], "s3://b/rows")
    assert again.files == chosen.files
    assert str(again.window) == "2026-11-13/2026-11-16"
    assert again.to_dict() == {
        **chosen.to_dict(),
        "asked": "2026-11-13/2026-11-16",
        "files_after": 1,
    }


def test_a_day_that_brought_nothing_is_recorded():
    chosen = choose(Window.parse("7d"), [WEEK[0], *WEEK[2:]], "s3://b/rows")
    assert chosen.to_dict()["absent_days"] == ["2026-11-10"]


def test_a_window_without_rows_says_which_days_there_are():
    window = Window.parse("7d/2026-12-24")
    with pytest.raises(DataError) as caught:
        choose(window, WEEK, "s3://b/rows")
    assert str(caught.value) == (
        "s3://b/rows has no rows from 2026-12-17 up to 2026-12-24 (data.window "
        "'7d/2026-12-24'): its files go from 2026-11-09 to 2026-11-15."
    )


@pytest.mark.parametrize(
    "name",
    [
        "2026-11-16.csv",
        "dt=2026-11-16/part-0.parquet",
        "2026/11/16/rows.csv",
        "rows-2026-11-16-v2.csv",
        "2026-11-16/rows-2026-11-16.csv",
    ],
)
def test_a_files_day_is_the_one_date_in_its_name(name):
    assert day_of(name, "s3://b/rows") == date(2026, 11, 16)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rows.csv", "no date"),
        ("12026-11-16.csv", "no date"),
        ("2026-11/16.csv", "no date"),
        ("2026-11-16/rows-2026-11-17.csv", "several dates"),
        ("2026-13-01.csv", "no real day"),
    ],
)
def test_a_file_without_one_clear_day_is_refused(name, said):
    with pytest.raises(DataError, match=said):
        day_of(name, "s3://b/rows")
