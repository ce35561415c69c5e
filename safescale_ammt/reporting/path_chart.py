"""The chart of accuracy against the promises: what else there was to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from safescale_ammt.judging.findings import Finding
from safescale_ammt.reporting.axes import INK, LEGEND_LINE, MUTED, Axes
from safescale_ammt.reporting.figures import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Panel,
    Picture,
    missing,
)
from safescale_ammt.reporting.wording import line, measured

Json = Mapping[str, Any]
_MANY = 4
"""Most promises that get a panel."""
_MARKS = {
    "form": ("other forms", "o", BLUE, True),
    "agent": ("single agents", "o", MUTED, False),
    "step": ("steps to the twin", "square", GREEN, False),
    "twin": ("unconstrained twin", "square", ORANGE, True),
    "constant": ("one answer for everybody", "x", INK, True),
}
"""Kind of a point -> its label and its mark."""


def path_chart(events: Sequence[Json], findings: Sequence[Finding]) -> Picture:
    """Draws the accuracy of all candidates against what they are promised to keep.

    Args:
        events: events of `training.jsonl`.
        findings: of the verdict, which say where the lines are.
    """
    name, title = "path", "What else there was to choose"
    merged = next((e for e in reversed(events) if e.get("event") == "merge"), {})
    points: Sequence[Json] = merged.get("path", ())
    shown = [f for f in findings if any(f.principle in p["values"] for p in points)]
    if not shown:
        return missing(name, title, "the training log holds no path of candidates")
    shown, choice = shown[:_MANY], merged["choice"]
    tall = 170.0 + LEGEND_LINE * (2 + len(_MARKS))
    panels = []
    for f in shown:
        draw = partial(_draw, points=points, choice=choice, finding=f)
        panels.append(Panel(f"{measured(f)} {line(f)}", draw, tall))
    return Picture(name, title, " ".join(words_of(points, choice, shown)), panels)


def _draw(axes: Axes, points: Sequence[Json], choice: str, finding: Finding) -> None:
    """Draws the candidates of one promise, its line and the choice."""
    for kind, (label, shape, colour, filled) in _MARKS.items():
        own = [p for p in points if p["kind"] == kind and p["name"] != choice]
        x, y = _places(own, finding)
        axes.dots(x, y, colour, shape=shape, filled=filled, label=label if x else "")
    x, y = _places([p for p in points if p["name"] == choice], finding)
    axes.dots(x, y, RED, size=15.0, shape="star", label="chosen")
    axes.upright(finding.threshold, INK)
    axes.x.label, axes.y.label = "value, and its line", "accuracy on select"


def _places(
    points: Sequence[Json], finding: Finding
) -> tuple[list[float], list[float]]:
    """Returns the places of the points whose metric has a value."""
    found = [(p["values"].get(finding.principle), p["accuracy"]) for p in points]
    known = [(float(x), float(y)) for x, y in found if x is not None]
    return [x for x, _ in known], [y for _, y in known]


def words_of(
    points: Sequence[Json], choice: str, shown: Sequence[Finding]
) -> list[str]:
    """Says what was chosen beside constant and twin, and how to read the chart."""
    by_name = {p["name"]: p for p in points}
    words = ["All candidates on the rows of select, before anything was sealed."]
    if choice in by_name:
        own = by_name[choice]["accuracy"]
        constants = [p for p in points if p["kind"] == "constant"]
        best = max(constants, key=lambda p: float(p["accuracy"]))
        words.append(
            f"The choice, {choice}, is right for {own:.4f} of them, the best constant "
            f"answer for {best['accuracy']:.4f}, the unconstrained twin for "
            f"{by_name['twin']['accuracy']:.4f}."
        )
        better = [p for p in points if beats(p, by_name[choice], shown)]
        if better:
            most = max(better, key=lambda p: float(p["accuracy"]))
            words.append(
                f"{most['name']} is right more often ({most['accuracy']:.4f}) at "
                "values that are no worse; choices are made on one half of these "
                "rows, and ties go to the simpler form."
            )
    words.append("Values carry the noise of these rows; the gate judges sealed ones.")
    return words


def beats(point: Json, choice: Json, shown: Sequence[Finding]) -> bool:
    """Tells whether a point is more accurate and no worse in any promise shown."""
    if point["accuracy"] <= choice["accuracy"]:
        return False
    for finding in shown:
        x, own = (p["values"].get(finding.principle) for p in (point, choice))
        if x is None or own is None or (x > own if finding.op == "<=" else x < own):
            return False
    return True
