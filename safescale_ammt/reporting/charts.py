"""Charts of what was measured: bounds, group rates, twin, calibration.

Every chart is a function from data to a `Picture`; a chart without data says so
in the place of its drawing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safescale_ammt.judging.findings import Finding
from safescale_ammt.reporting.figures import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    RED,
    SURFACE,
    Picture,
    legend,
    missing,
    picture,
    short,
)
from safescale_ammt.reporting.wording import METRICS, RATES, measured

Json = Mapping[str, Any]
OUTCOME_COLOUR = {"holds": GREEN, "undecided": ORANGE, "fails": RED}
# Beyond this a chart cannot be read at a glance; the table below it has every group.
_MANY = 14
_BESIDE: dict[str, Any] = {
    "textcoords": "offset points",
    "va": "center",
    "fontsize": 8.5,
}
"""How a number stands beside the end of its bar."""
_BOUNDS = (
    "Shaded: what the constitution allows; the upright bar is its line. The dot is the "
    "measured gap, the coloured bar reaches from its lower to its upper bound. A "
    "promise is shown to be kept when the whole bar lies inside the shade."
)
"""How to read the bounds of the gaps."""


def group_rates(number: int, name: str, figures: Json) -> Picture:
    """Draws the rates of each value of one group column, model and twin.

    Args:
        number: of the chart on its page, which makes its name unique.
        name: the group column.
        figures: the verdict's figures.
    """
    title = f"Rates by {name}"
    model, twin = (figures[who]["groups"][name]["rates"] for who in ("model", "twin"))
    kinds = [k for k in RATES if k in model[0]]
    # A column's name may hold any character, an id may not.
    slug = f"rates-{number}"
    if len(model) > _MANY:
        return missing(slug, title, f"{len(model)} groups are too many to draw")

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            _whiskers(axes, [r[kind] for r in model], BLUE, "model", filled=True)
            _whiskers(axes, [r[kind] for r in twin], MUTED, "twin", filled=False)
            axes.set_title(RATES[kind])
            # Upside down: the first value stands on top, as in the table.
            axes.set_ylim(len(model) - 0.4, -0.6)
            axes.xaxis.set_major_formatter(_percent)
        panels[0].set_yticks(range(len(model)))
        # An interval is read against its rows; for the true positive rate these are
        # the positives alone.
        panels[0].set_yticklabels(
            f"{short(str(r['value']), 30)}\n{r['n']:,} rows"
            + ("" if r.get("n_pos") is None else f", {r['n_pos']:,} pos.")
            for r in model
        )
        legend(figure, panels[0])

    caption = (
        "Filled dots: the model; hollow: the unconstrained twin. Lines are two-sided "
        "95 % Clopper-Pearson intervals."
    )
    return picture(slug, title, caption, draw, (9.4, 1.3 + 0.42 * len(model)))


def _percent(value: float, _position: object = None) -> str:
    return f"{value * 100:.4g}%"


def _whiskers(
    axes: Axes, rates: Sequence[Json], colour: str, label: str, *, filled: bool
) -> None:
    """Draws one dot with its interval per row; undefined rates stay empty."""
    # Model above, twin below the row's middle: equal rates would hide one another.
    offset = -0.13 if filled else 0.13
    for i, rate in enumerate(rates):
        if rate["value"] is None:
            continue
        axes.hlines(i + offset, rate["lower"], rate["upper"], colour, linewidth=2)
        axes.plot(
            rate["value"],
            i + offset,
            "o",
            markersize=5.5,
            color=colour,
            markerfacecolor=colour if filled else SURFACE,
            label=label,
        )


def gap_bounds(findings: Sequence[Finding]) -> Picture:
    """Draws each gap's interval against its own line."""
    name, title = "bounds", "Gaps against their lines"
    # Ratios and utilities are bounded from below and have another scale.
    shown = [f for f in findings if f.op == "<=" and f.lower is not None]
    if not shown:
        return missing(name, title, "no principle bounds a gap from above")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, f in enumerate(shown):
            colour = OUTCOME_COLOUR[f.outcome]
            axes.barh(i, f.threshold, height=0.62, color=GRID, label="allowed")
            # A gap is never negative, while the bound of a difference can be.
            axes.hlines(i, max(f.lower, 0), f.upper, colour, linewidth=4)
            axes.plot(f.value, i, "o", color=colour, markersize=8)
            axes.vlines(f.threshold, i - 0.38, i + 0.38, INK, linewidth=2)
            end = (max(f.upper, f.threshold), i)
            axes.annotate(f"bound {f.upper:.3f}", end, (8, 0), **_BESIDE)
        labels = [f"{f.principle}\n{measured(f)}" for f in shown]
        axes.set_yticks(range(len(shown)), labels)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        # Room on the right for the number beside the longest bar.
        axes.set_xlim(0, 1.18 * max(max(f.upper, f.threshold) for f in shown))
        axes.grid(visible=False, axis="y")

    return picture(name, title, _BOUNDS, draw, (9.4, 0.8 + 0.62 * len(shown)))


def twin_comparison(figures: Json, named: Collection[str]) -> Picture:
    """Draws accuracy and gaps of the model beside those of its twin.

    Args:
        figures: the verdict's figures.
        named: group columns that the constitution names.
    """
    name, title = "twin", "The model against its unconstrained twin"
    # Other columns may have values so rare that their gaps are chance. Ratios and
    # errors would not share the axis of the gaps.
    rows = [
        (f"{METRICS[metric]}, {group}", metric, group)
        for group, entry in figures["model"]["groups"].items()
        for metric in entry["gaps"]
        if group in named
        and metric in ("dp_gap", "tpr_gap", "fpr_gap")
        and entry["gaps"][metric] is not None
    ][:_MANY]

    def draw(figure: Figure) -> None:
        widths = [1.0, 2.2] if rows else [1.0]
        panels = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        accuracy = [figures[who]["accuracy"] for who in ("model", "twin")]
        _whiskers(panels[0], accuracy[:1], BLUE, "model", filled=True)
        _whiskers(panels[0], accuracy[1:], MUTED, "twin", filled=False)
        panels[0].set_ylim(0.6, -0.6)
        panels[0].set_yticks([])
        panels[0].set_title("Accuracy")
        panels[0].xaxis.set_major_formatter(_percent)
        legend(figure, panels[0])
        if not rows:
            return
        for i, (_, metric, group) in enumerate(rows):
            model, twin = (
                figures[who]["groups"][group]["gaps"][metric]
                for who in ("model", "twin")
            )
            panels[1].hlines(i, model, twin, GRID, linewidth=3)
            # The model's dot last: where both are equal, it is the one to see.
            panels[1].plot(twin, i, "o", color=MUTED, markerfacecolor=SURFACE)
            panels[1].plot(model, i, "o", color=BLUE)
        panels[1].set_yticks(range(len(rows)))
        panels[1].set_yticklabels([short(text, 40) for text, _, _ in rows])
        panels[1].set_ylim(len(rows) - 0.5, -0.5)
        panels[1].set_xlim(left=0)
        panels[1].set_title("Gaps between groups (smaller is fairer)")

    caption = (
        "The twin has the same form and the same data, but was trained without the "
        "constitution: the distance between the dots is what the promises changed."
    )
    return picture(name, title, caption, draw, (9.4, 1.5 + 0.3 * len(rows)))


def reliability(figures: Json) -> Picture:
    """Draws predicted probability against observed frequency."""
    name, title = "calibration", "Calibration"
    curves = {who: figures[who]["calibration"] for who in ("model", "twin")}
    if not all(curves.values()):
        return missing(name, title, "scores of more than two classes have no one curve")

    def draw(figure: Figure) -> None:
        axes, counts = figure.subplots(1, 2, width_ratios=[1.4, 1])
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        # Only the model has a shade: two of them would hide each other.
        for who, colour, style in (("twin", MUTED, "--"), ("model", BLUE, "-")):
            bins = curves[who]["bins"]
            x = [b["score"] for b in bins]
            axes.plot(x, [b["value"] for b in bins], style, color=colour, label=who)
            if who == "model":
                low, high = ([b[k] for b in bins] for k in ("lower", "upper"))
                axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="mean score in the bin", ylabel="share of positives")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_title("Reliability")
        axes.legend(loc="upper left")
        spread = curves["model"]["spread"]
        edges = np.linspace(0, 1, len(spread) + 1)
        width = 0.92 / len(spread)
        counts.bar(edges[:-1], spread, width, align="edge", color=BLUE)
        counts.set(xlabel="score", xlim=(0, 1))
        counts.set_title("Rows per bin")
        counts.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")

    errors = {who: curve["error"] for who, curve in curves.items()}
    caption = (
        "On the diagonal, scores mean what they say. Mean distance from it (expected "
        f"calibration error): model {errors['model']:.4f}, twin {errors['twin']:.4f}. "
        "Shade: 95 % intervals. Calibration is reported, never certified."
    )
    return picture(name, title, caption, draw, (9.4, 3.1))
