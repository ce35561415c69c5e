"""Scales of a chart: which round numbers stand at an axis, how wide their texts are.

Widths of texts are those of DejaVu Sans, wider than most that a browser may take.
"""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from safescale_ammt.printable import printable

# On a telephone of 360 pixels, a drawing of 252 units, a text of 9.5 has 11 pixels.
FONT_SIZE = 9.5
"""Units of every text of a drawing."""
_ADVANCES = {
    letter: advance
    for advance, letters in {
        280: "'ijl",
        300: "IJ",
        320: " ,.",
        340: "/:;\\|",
        360: "f",
        380: "-",
        400: "()[]t",
        420: "!r",
        460: '"',
        500: "*_`",
        540: "?sz",
        560: "Lc",
        580: "Fk",
        600: "vxy",
        620: "PTYaeo",
        640: "$0123456789ESbdghnpqu{}",
        660: "K",
        700: "ABCRVXZ",
        740: "U",
        760: "HN",
        780: "&DG",
        800: "OQ",
        820: "w",
        840: "#+<=>^~",
        880: "M",
        960: "%",
        980: "m",
        1000: "@W",
    }.items()
    for letter in letters
}
"""Advances of ASCII, in thousandths of the font's size, rounded up to 20."""
_OTHER = {"Ll": 760, "Mn": 0}
"""Advances of a letter beyond them, in small, and of an accent; of all else, 1000."""

Numbers = Sequence[float]


def width_of(text: str) -> float:
    """Returns how wide a text is, in units; of foreign letters, at most so wide."""
    total = 0
    for letter in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(letter)
        total += _ADVANCES.get(letter) or _OTHER.get(kind, 1000)
    return total * FONT_SIZE / 1000


def short(text: str, room: float) -> str:
    """Cuts a label that is wider than `room` units, and marks it by an ellipsis."""
    # No font has a picture of what nobody sees.
    text = printable(text)
    if width_of(text) <= room:
        return text
    # Most labels fit, and the others are names that nobody reads to their end.
    cut = next(
        n for n in range(len(text) - 1, -1, -1) if width_of(text[:n] + "…") <= room
    )
    return text[:cut] + "…"


def round_steps(low: float, high: float, most: int) -> list[float]:
    """Returns at most `most` round numbers from low to high, evenly apart."""
    part = (high - low) / most
    # Equal, or so near that a power of ten below is 0 to a float.
    part = 1 / most if part < sys.float_info.min else part
    size = 10.0 ** math.floor(math.log10(part))
    for factor in (1, 2, 5, 10, 20):
        step = factor * size
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [step * n for n in range(first, last + 1)]


def plain(values: Numbers) -> list[str]:
    """Writes numbers that are evenly apart with the decimals that tell them apart."""
    steps = [b - a for a, b in pairwise(values)] or [1.0]
    places = next(
        (n for n in range(9) if abs(round(steps[0], n) - steps[0]) < 1e-9 * steps[0]), 9
    )
    # A true minus, as wide as a digit; and no zero that is less than zero.
    return [f"{v + 0.0:,.{places}f}".replace("-", "\u2212") for v in values]


def percent(values: Numbers) -> list[str]:
    """Writes shares as percentages."""
    return [f"{value * 100:.4g}%" for value in values]


def compact(values: Numbers) -> list[str]:
    """Writes large numbers short: 20k, 1.5M."""
    written = []
    for value in values:
        for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")):
            if value >= size or size == 1:
                written.append(f"{value / size:.4g}{unit}")
                break
    return written


@dataclass
class Scale:
    """One axis: from numbers to places.

    Attributes:
        label: what it measures.
        low, high: its ends; None = those of what is drawn, with a little room.
        ticks: where it has a number; None = at round ones.
        words: writes those numbers.
        log: whether equal ratios are equally far apart.
        most: ticks that it has at most.
    """

    label: str = ""
    low: float | None = None
    high: float | None = None
    ticks: Numbers | None = None
    words: Callable[[Numbers], list[str]] = plain
    log: bool = False
    most: int = 6
    start: float = field(default=0.0, init=False)
    end: float = field(default=1.0, init=False)

    def fit(self, values: Iterable[float]) -> None:
        """Sets the ends and ticks that are not given, by the numbers drawn."""
        found = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(found), max(found)
        if self.log:
            low, high = low * (low / high or 1) ** 0.05, high * (high / low) ** 0.05
            if low == high:
                low, high = low / 1.5, high * 1.5
        else:
            room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
            low, high = low - room, high + room
        self.low = low if self.low is None else self.low
        self.high = high if self.high is None else self.high
        if self.ticks is None and self.log:
            tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            every = [m * 10.0**ten for ten in tens for m in (1, 2, 5)]
            self.ticks = [v for v in every if low <= v <= high]
            # Over less than a decade those are too few to read a place by.
            if len(self.ticks) < 3:
                self.ticks = round_steps(low, high, self.most)
        elif self.ticks is None:
            self.ticks = round_steps(self.low, self.high, self.most)

    def place(self, value: float) -> float:
        """Returns where a number lies, in units of the drawing."""
        assert self.low is not None
        assert self.high is not None
        share = (value - self.low) / (self.high - self.low)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def numbers(self) -> list[tuple[float, str]]:
        """Returns the ticks and their words, every second one where they are close."""
        ticks = list(self.ticks or [])
        words = self.words(ticks)
        room = abs(self.end - self.start)
        # An axis that runs upwards has its numbers one above the other.
        upright = self.start > self.end
        while len(ticks) > 2:
            sizes = [2 * FONT_SIZE if upright else width_of(w) + 8 for w in words]
            if sum(sizes) <= room:
                break
            ticks, words = ticks[::2], words[::2]
        return list(zip(ticks, words, strict=True))
