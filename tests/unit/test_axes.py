"""Drawings written by hand: round numbers, places, marks, and what stays inside."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safescale_ammt.reporting.axes import GRID, INK, WIDTH, Axes
from safescale_ammt.reporting.page_check import beyond_a_drawing
from safescale_ammt.reporting.scales import (
    Scale,
    compact,
    percent,
    plain,
    round_steps,
)

HEIGHT = 160.0
FINITE = st.floats(-1e9, 1e9, allow_nan=False)


def whole(axes: Axes) -> ElementTree.Element:
    return ElementTree.fromstring(f"<svg>{axes.svg()}</svg>")


@pytest.mark.parametrize(
    ("low", "high", "most", "steps"),
    [
        (0.0, 1.0, 6, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 0.084, 5, [0, 0.02, 0.04, 0.06, 0.08]),
        (57.0, 69.0, 5, [60, 65]),
        (-0.081, 0.004, 6, [-0.08, -0.06, -0.04, -0.02, 0]),
        (0.0, 8462.0, 6, [0, 2000, 4000, 6000, 8000]),
    ],
)
def test_the_numbers_at_an_axis_are_round(low, high, most, steps):
    assert round_steps(low, high, most) == pytest.approx(steps)


@given(FINITE, FINITE, st.integers(2, 8))
@example(0.0, 5e-324, 2)
@example(0.0, 1e-322, 3)
def test_numbers_at_an_axis_are_few_inside_and_evenly_apart(one, other, most):
    low, high = min(one, other), max(one, other)
    steps = round_steps(low, high, most)
    room = 1e-6 * max(1.0, high - low)
    assert len(steps) <= most
    assert all(low - room <= step <= high + room for step in steps)
    apart = [b - a for a, b in pairwise(steps)]
    assert not apart or max(apart) == pytest.approx(min(apart))


def test_numbers_bear_the_decimals_that_tell_them_apart_and_a_true_minus():
    assert plain([0.0, 0.025, 0.05]) == ["0.000", "0.025", "0.050"]
    assert plain([-0.5, -0.0, 0.5]) == ["−0.5", "0.0", "0.5"]
    assert plain([0, 4000, 8000]) == ["0", "4,000", "8,000"]
    assert percent([0.075, 0.1]) == ["7.5%", "10%"]
    assert compact([500.0, 20_000.0, 1.5e6, 2e9]) == ["500", "20k", "1.5M", "2G"]


@pytest.mark.parametrize("values", [[14_000.0, 28_000.0], [7.0, 9e5], [3.0]])
def test_an_axis_of_ratios_has_numbers_to_read_a_place_by(values):
    scale = Scale(log=True, words=compact)
    scale.start, scale.end = 20.0, 240.0
    scale.fit(values)
    places = list(map(scale.place, values))
    assert all(20 <= place <= 240 for place in places)
    assert len(scale.ticks or ()) >= 2
    if len(values) == 2:
        middle = scale.place(math.sqrt(values[0] * values[1]))
        assert middle == pytest.approx(sum(places) / 2)


def test_a_value_that_is_no_number_is_a_gap_in_its_line():
    axes = Axes(HEIGHT)
    axes.line([0, 1, 2, 3, 4], [1.0, 2.0, math.nan, 3.0, 4.0], INK)
    path = re.findall(
        r'd="([^"]+)" style="fill: none; stroke: var\(--ink\)', axes.svg()
    )
    assert [command for command in path[-1] if command.isalpha()] == list("MLML")


@pytest.mark.parametrize("values", [[], [math.nan], [0.5], [0.0, 0.0], [1e-12, 1e12]])
def test_an_axis_of_nothing_or_of_one_number_can_be_drawn(values):
    axes = Axes(HEIGHT)
    axes.line(values, values, INK)
    axes.dots(values, values, INK)
    assert not beyond_a_drawing(axes.svg())


def every_mark() -> Axes:
    axes = Axes(HEIGHT)
    axes.band([0, 1], [0, 0.5], [1, 1], INK)
    axes.box((0, 1), (0, 1), GRID)
    axes.across(0.5, INK, dashed=True)
    axes.upright(0.5, INK, "<here>")
    for shape in ("o", "x", "square", "star"):
        axes.dots([0.1, 0.9], [0.2, 0.8], INK, shape=shape, filled=shape != "o")
    axes.line([0, 1], [0, 1], INK, dashed=True, label="a & b")
    axes.x.label, axes.y.label = "across", "up"
    return axes


def test_every_mark_is_a_shape_that_a_checked_page_may_hold():
    assert not beyond_a_drawing(every_mark().svg())
    words = {text.text for text in whole(every_mark()).iter("text")}
    assert {"<here>", "a & b", "across", "up"} <= words


def test_the_same_drawing_is_the_same_bytes():
    assert every_mark().svg() == every_mark().svg()


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8))
def test_every_mark_lies_inside_of_its_drawing(points):
    axes = Axes(HEIGHT)
    axes.dots([x for x, _ in points], [y for _, y in points], INK, size=0.0)
    for circle in whole(axes).iter("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT


def test_rows_run_downwards_each_below_its_label():
    axes = Axes(HEIGHT)
    axes.dots([0.3], [0], INK)
    axes.say(1, "not shown")
    axes.in_rows(["first\nof two lines", "second"])
    places = {
        text.text: float(re.findall(r"[\d.]+", text.attrib["transform"])[1])
        for text in whole(axes).iter("text")
    }
    dot = float(next(whole(axes).iter("circle")).attrib["cy"])
    assert places["first"] < places["of two lines"] < dot
    assert dot < places["second"] < places["not shown"]
