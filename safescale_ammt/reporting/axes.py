"""Axes of a chart, written as SVG by hand: scales, ticks, marks and a legend.

A report has two dozen small drawings of lines, dots and bars. A library for figures
takes a second to import and another to draw them; what they need of one stands here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from safescale_ammt.reporting.scales import (
    FONT_SIZE,
    Numbers,
    Scale,
    short,
    width_of,
)

# The page decides what they look like in light, in dark and in print.
INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
SURFACE = "var(--surface)"
WIDTH = 252.0
"""Units that a drawing is wide: points, on paper."""
LEGEND_LINE = 16.0
"""Units of one line of a legend."""
_HANDLE = 28.0  # the line beside a label of a legend, with its gap
_EDGE = 4.0  # around a drawing
_TICK = 4.0
_LINE = 12.0  # from one line of text to the next


class Axes:
    """What one drawing holds: marks in the units of its data, drawn in their order.

    Args:
        height: of the drawing, in units; its width is `WIDTH`.
    """

    def __init__(self, height: float) -> None:
        self.height = height
        self.x, self.y = Scale(), Scale()
        self.rows: list[str] = []
        self._marks: list[Callable[[], str]] = []
        self._seen: tuple[list[float], list[float]] = ([], [])
        self._legend: dict[str, str] = {}

    def line(
        self,
        x: Numbers,
        y: Numbers,
        colour: str,
        *,
        width: float = 1.6,
        dashed: bool = False,
        label: str = "",
    ) -> None:
        """Draws a line through points; one that is not finite is a gap."""
        dash = "; stroke-dasharray: 5 3" if dashed else ""
        style = f"fill: none; stroke: {colour}; stroke-width: {width:g}{dash}"
        self._add(x, y, lambda: f'<path d="{self.path(x, y)}" style="{style}"/>')
        if label:
            handle = f'<path d="M0 -3.5H20" style="{style}"/>'
            self._legend.setdefault(label, handle)

    def dots(
        self,
        x: Numbers,
        y: Numbers,
        colour: str,
        *,
        size: float = 6.0,
        shape: str = "o",
        filled: bool = True,
        label: str = "",
    ) -> None:
        """Draws a mark at each point: o, x, square or star."""

        def draw() -> str:
            return "".join(
                mark(shape, self.x.place(a), self.y.place(b), size, colour, filled)
                for a, b in zip(x, y, strict=True)
            )

        self._add(x, y, draw)
        if label:
            handle = mark(shape, 10, -3.5, min(size, 9), colour, filled)
            self._legend[label] = self._legend.get(label, "") + handle

    def band(self, x: Numbers, low: Numbers, high: Numbers, colour: str) -> None:
        """Shades what lies between two curves."""

        def draw() -> str:
            there, back = self.path(x, low), self.path(x[::-1], high[::-1])
            path = f"{there}L{back[1:]}Z"
            return f'<path d="{path}" style="fill: {colour}; fill-opacity: 0.18"/>'

        self._add([*x, *x], [*low, *high], draw)

    def box(self, x: tuple[float, float], y: tuple[float, float], colour: str) -> None:
        """Fills a box from corner to corner."""

        def draw() -> str:
            (a, b), (c, d) = map(self.x.place, x), map(self.y.place, y)
            left, top = min(a, b), min(c, d)
            size = f'width="{abs(b - a):.2f}" height="{abs(d - c):.2f}"'
            return f'<rect x="{left:.2f}" y="{top:.2f}" {size} style="fill: {colour}"/>'

        self._add(x, y, draw)

    def across(self, y: float, colour: str, *, dashed: bool = False) -> None:
        """Draws a line from side to side."""
        self._add([], [y], lambda: self.rule(self.x, y, colour, dashed))

    def upright(self, x: float, colour: str, words: str = "") -> None:
        """Draws a line from top to bottom, and words at its right."""

        def draw() -> str:
            rule = self.rule(self.y, x, colour, False)
            middle = (self.y.start + self.y.end) / 2
            return rule + written(words, self.x.place(x) + 5, middle, MUTED)

        self._add([x], [], draw)

    def say(self, row: int, words: str) -> None:
        """Writes why there is nothing to draw in a row."""
        self._add(
            [],
            [row],
            lambda: written(words, self.x.start + 2, self.y.place(row) + 3.5, MUTED),
        )

    def in_rows(self, labels: Sequence[str]) -> None:
        """Makes the upright axis one of rows, each below its label of some lines."""
        # Beside the axis, long names would leave a telephone no room for the drawing.
        self.rows = list(labels)
        self.y = Scale(low=len(labels) - 0.55, high=-0.8, ticks=[])
        self.x.most = 5

    def path(self, x: Numbers, y: Numbers) -> str:
        """Returns the path through points, begun again behind one that is none."""
        steps, pen = [], "M"
        for a, b in zip(x, y, strict=True):
            if math.isfinite(a) and math.isfinite(b):
                steps.append(f"{pen}{self.x.place(a):.2f} {self.y.place(b):.2f}")
                pen = "L"
            else:
                pen = "M"
        return "".join(steps) or "M0 0"

    def svg(self) -> str:
        """Returns what stands inside of the drawing's `svg`."""
        self.x.fit(self._seen[0])
        self.y.fit(self._seen[1])
        names = list(self._legend)
        legend = LEGEND_LINE * len(names) + (4 if names else 0)
        below = _TICK + _LINE + 2 + (_LINE + 2 if self.x.label else 0)
        self.y.start = self.height - _EDGE - legend - below
        self.y.end = _EDGE + 4
        written_y = [word for _, word in self.y.numbers()]
        beside = max(map(width_of, written_y), default=0.0)
        beside += (_TICK + 3 if written_y else 2) + (_LINE + 2 if self.y.label else 0)
        self.x.start, self.x.end = _EDGE + beside, WIDTH - _EDGE
        # Half of a number may stand beyond the end that it names.
        halves = [(value, width_of(word) / 2) for value, word in self.x.numbers()]
        before = [half - self.x.place(value) for value, half in halves[:1]]
        behind = [self.x.place(value) + half for value, half in halves[-1:]]
        self.x.start += max([0.0, *before])
        self.x.end -= max([4.0, *(place - self.x.end for place in behind)])
        return "".join(
            [
                *self.grid(),
                *(draw() for draw in self._marks),
                *self.labels(),
                *self.legends(names, self.height - _EDGE - legend),
            ]
        )

    def _add(self, x: Numbers, y: Numbers, draw: Callable[[], str]) -> None:
        self._seen[0].extend(x)
        self._seen[1].extend(y)
        self._marks.append(draw)

    def rule(self, along: Scale, at: float, colour: str, dashed: bool) -> str:
        """Returns a line along the whole of one axis."""
        dash = "; stroke-dasharray: 5 3" if dashed else ""
        if along is self.x:
            place = self.y.place(at)
            path = f"M{along.start:.2f} {place:.2f}H{along.end:.2f}"
        else:
            path = f"M{self.x.place(at):.2f} {along.start:.2f}V{along.end:.2f}"
        return f'<path d="{path}" style="fill: none; stroke: {colour}{dash}"/>'

    def grid(self) -> Iterable[str]:
        """Yields the grid, the two axes and the numbers at them."""
        left, right, foot, top = self.x.start, self.x.end, self.y.start, self.y.end
        grid, marks = "", f"M{left:.2f} {top:.2f}V{foot:.2f}H{right:.2f}"
        for value, word in self.x.numbers():
            at = self.x.place(value)
            grid += f"M{at:.2f} {top:.2f}V{foot:.2f}"
            marks += f"M{at:.2f} {foot:.2f}v{_TICK:g}"
            yield written(word, at, foot + _TICK + 11, INK, "middle")
        for value, word in self.y.numbers():
            at = self.y.place(value)
            grid += f"M{left:.2f} {at:.2f}H{right:.2f}"
            marks += f"M{left:.2f} {at:.2f}h-{_TICK:g}"
            yield written(word, left - _TICK - 2, at + 3, INK, "end")
        for path, colour, wide in ((grid, GRID, 0.7), (marks, MUTED, 0.8)):
            style = f"fill: none; stroke: {colour}; stroke-width: {wide}"
            yield f'<path d="{path or "M0 0"}" style="{style}"/>'

    def labels(self) -> Iterable[str]:
        """Yields the labels of rows and of the two axes."""
        for row, label in enumerate(self.rows):
            lines = label.split("\n")
            for i, line in enumerate(lines):
                up = 11.5 + _LINE * (len(lines) - 1 - i)
                place = self.y.place(row) - up
                yield written(short(line, WIDTH - 26), self.x.start + 2, place, INK)
        if self.x.label:
            middle = (self.x.start + self.x.end) / 2
            foot = self.y.start + _TICK + 2 * _LINE + 2
            yield written(self.x.label, middle, foot, INK, "middle")
        if self.y.label:
            middle = (self.y.start + self.y.end) / 2
            yield written(self.y.label, _EDGE + 9, middle, INK, "middle", upright=True)

    def legends(self, names: Sequence[str], top: float) -> Iterable[str]:
        """Yields each label once, below the drawing, with the mark that it names."""
        for i, name in enumerate(names):
            foot = top + LEGEND_LINE * (i + 1) - 2
            handle = f'<g transform="translate({_EDGE + 8:g} {foot:.2f})">'
            yield f"{handle}{self._legend[name]}</g>"
            left = _EDGE + 8 + _HANDLE
            yield written(short(name, WIDTH - left - _EDGE), left, foot, INK)


def mark(  # noqa: PLR0917
    shape: str, x: float, y: float, size: float, colour: str, filled: bool
) -> str:
    """Returns one mark: o, x, square or star, `size` units wide."""
    half = size / 2
    fill = colour if filled else SURFACE
    style = f"fill: {fill}; stroke: {colour}; stroke-width: 1.4"
    if shape == "o":
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{half:.2f}" style="{style}"/>'
    if shape == "x":
        path = f"M{x - half:.2f} {y - half:.2f}l{size:g} {size:g}m0 -{size:g}"
        path += f"l-{size:g} {size:g}"
    elif shape == "square":
        path = f"M{x - half:.2f} {y - half:.2f}h{size:g}v{size:g}h-{size:g}Z"
    else:
        turns = [math.pi * (n / 5 - 0.5) for n in range(10)]
        ends = [
            (x + r * math.cos(turn), y + r * math.sin(turn))
            for turn, r in zip(turns, [half, 0.4 * half] * 5, strict=True)
        ]
        path = "M" + "L".join(f"{a:.2f} {b:.2f}" for a, b in ends) + "Z"
    return f'<path d="{path}" style="{style}"/>'


def written(
    text: str,
    x: float,
    y: float,
    colour: str,
    anchor: str = "start",
    *,
    upright: bool = False,
) -> str:
    """Returns a text whose foot stands at a place; "" without one."""
    if not text.strip():
        return ""
    place = f'transform="translate({x:.2f} {y:.2f})"'
    if upright:
        place = f'x="{x:.2f}" y="{y:.2f}" transform="rotate(-90 {x:.2f} {y:.2f})"'
    style = f"font-size: {FONT_SIZE}px; text-anchor: {anchor}; fill: {colour}"
    return f'<text {place} style="{style}">{escape(text)}</text>'
