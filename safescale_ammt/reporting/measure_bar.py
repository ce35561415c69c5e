"""A finding as a small bar: the interval, the line, and the side that is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED, Finding, figure
from safescale_ammt.reporting.wording import REFERENCES, ends

# In CSS pixels, the size that the style sheet gives `.measure`. The pad keeps the dot,
# of radius 5 and stroke 3, inside of the frame.
_WIDTH, _HEIGHT, _PAD = 230.0, 34.0, 8.0


@dataclass(frozen=True)
class Measure:
    """One number with its bounds beside one line.

    Attributes:
        label: what is measured.
        op: `<=` or `>=`, the allowed side.
        line: where the line is.
        value: point value, None where it is not defined.
        lower: lower bound, None where there is none.
        upper: upper bound, None where there is none.
        outcome: `holds`, `fails` or `undecided`.
    """

    label: str
    op: str
    line: float
    value: float | None
    lower: float | None
    upper: float | None
    outcome: str

    @property
    def sentence(self) -> str:
        """The measure in words, for screen readers and as a tooltip."""
        return (
            f"{self.label}: {figure(self.value)}, {ends(self.lower, self.upper)}; the "
            f"line is {self.op} {self.line:.4f}: {self.outcome}"
        )


def measures_of(finding: Finding) -> list[Measure]:
    """Returns a finding's measures: one, or two for a twin's line with a floor."""
    f = finding
    label = f.metric
    if f.reference is not None:
        label += f" minus {REFERENCES[f.reference]}"
    numbers = (f.op, f.threshold, f.value, f.lower, f.upper)
    if f.floor is None:
        return [Measure(label, *numbers, f.outcome)]
    # The finding's outcome is that of both lines together, so each bar gets its own.
    own = f.by_group[0]
    return [
        Measure(label, *numbers, _side(f.op, f.threshold, f.lower, f.upper)),
        Measure(
            *(f.metric, f.op, f.floor, own.rate, own.lower, own.upper),
            _side(f.op, f.floor, own.lower, own.upper),
        ),
    ]


def _side(op: str, line: float, lower: float | None, upper: float | None) -> str:
    """Says on which side of a line an interval lies."""
    if lower is None or upper is None:
        return UNDECIDED
    if op == "<=":
        return HOLDS if upper <= line else FAILS if lower > line else UNDECIDED
    return HOLDS if lower >= line else FAILS if upper < line else UNDECIDED


def mark(measure: Measure, x: Callable[[float], float]) -> str:
    """Draws dot and range, or says that there are none.

    Args:
        measure: the measure.
        x: place of a number on the scale.
    """
    value, lower, upper = measure.value, measure.lower, measure.upper
    if value is None or lower is None or upper is None:
        # Neither a dot nor a bar at 0 or 1: what is not defined lies nowhere.
        return (
            f'<text class="undefined" x="{_WIDTH / 2:g}" y="21" text-anchor="middle">'
            f"{figure(None)}</text>"
        )
    return (
        f'<line class="range" x1="{x(lower)}" x2="{x(upper)}" y1="17" y2="17"/>'
        f'<circle cx="{x(value)}" cy="17" r="5"/>'
    )


def measure_bar(measure: Measure) -> str:
    """Draws a measure as inline SVG; of one that is not defined, just its line."""
    drawn = (measure.line, measure.value, measure.lower, measure.upper)
    numbers = [number for number in drawn if number is not None]
    low, high = min(numbers), max(numbers)
    # The scale needs a width even if all four numbers are equal.
    room = 0.25 * max(high - low, 1e-6)
    # Gaps and errors begin at 0. What must be large has no such end to show.
    low = 0.0 if measure.op == "<=" else low - room
    high += room

    def x(at: float) -> float:
        # A lower bound of a gap may be negative, outside of the scale.
        share = (min(max(at, low), high) - low) / (high - low)
        return round(_PAD + share * (_WIDTH - 2 * _PAD), 1)

    line = x(measure.line)
    left, right = (x(low), line) if measure.op == "<=" else (line, x(high))
    label = escape(measure.sentence)
    return (
        f'<svg class="measure {measure.outcome}" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'role="img" aria-label="{label}"><title>{label}</title>'
        f'<rect class="allowed" x="{left}" y="5" width="{right - left:.1f}" '
        'height="24" rx="3"/>'
        f'<line class="axis" x1="{x(low)}" x2="{x(high)}" y1="29" y2="29"/>'
        f"{mark(measure, x)}"
        f'<line class="line" x1="{line}" x2="{line}" y1="1" y2="33"/></svg>'
    )
