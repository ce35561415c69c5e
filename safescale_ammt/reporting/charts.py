"""Charts of what was measured: bounds, group rates, twin, calibration.

Every chart is a function from data to a `Picture`; a chart without data says so
in the place of its drawing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from safescale_ammt.data.counts import LEAST_SHOWN
from safescale_ammt.judging.findings import Finding, figure
from safescale_ammt.reporting.axes import GRID, INK, MUTED, WIDTH, Axes
from safescale_ammt.reporting.figures import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Panel,
    Picture,
    missing,
)
from safescale_ammt.reporting.glossary import rate_words
from safescale_ammt.reporting.measure_bar import measures_of
from safescale_ammt.reporting.scales import Scale, percent, short
from safescale_ammt.reporting.wording import (
    METRICS,
    RATES,
    measured,
    rows_told,
    without_few,
)

Json = Mapping[str, Any]
OUTCOME_COLOUR = {"holds": GREEN, "undecided": ORANGE, "fails": RED}
# Beyond this a chart cannot be read at a glance; the table below it has every group.
_MANY = 14
_RATES = (
    "Beside each group: the rows that the rate is a share of. Filled dots: the model; "
    "hollow: the unconstrained twin. Lines are two-sided 95 % Clopper-Pearson "
    f"intervals. A share of under {LEAST_SHOWN} rows is not shown: it tells of persons."
)
"""How to read the rates of groups."""
_TWIN = (
    "Filled dots: the model; hollow: the twin. The twin has the same form and the same "
    "data, but was trained without the constitution: the distance between the dots is "
    "what the promises changed."
)
"""How to read the comparison with the twin."""
_BOUNDS = (
    "Shaded: what the constitution allows; the upright bar is its line. The dot is the "
    "measured gap, the coloured bar reaches from its lower to its upper bound. A "
    "promise is shown to be kept when the whole bar lies inside the shade."
)
"""How to read the bounds of the gaps."""


def group_rates(number: int, name: str, figures: Json, positive: str) -> Picture:
    """Draws the rates of each value of one group column, model and twin.

    Args:
        number: of the chart on its page, which makes its name unique.
        name: the group column.
        figures: the verdict's figures.
        positive: the positive class, "" if there is none.
    """
    title = f"Rates by {name}"
    model, twin = (
        without_few(figures[who]["groups"][name]["rates"]) for who in ("model", "twin")
    )
    kinds = [k for k in RATES if k in model[0]]
    # A column's name may hold any character, an id may not.
    slug = f"rates-{number}"
    if len(model) > _MANY:
        return missing(slug, title, f"{len(model)} groups are too many to draw")

    def draw(axes: Axes, kind: str) -> None:
        _whiskers(axes, [r[kind] for r in model], BLUE, filled=True)
        _whiskers(axes, [r[kind] for r in twin], MUTED, filled=False)
        # An interval is read against its own rows, those that the rate is a share of.
        names = (
            f"{short(str(r['value']), WIDTH - 86)} · {rows_told(r[kind]['n'])}"
            for r in model
        )
        axes.in_rows(list(names))
        axes.x.words = percent

    names, height = [r["value"] for r in model], 36.0 + 36.0 * len(model)
    panels = [
        Panel(
            *(RATES[k], partial(draw, kind=k), height),
            side_by_side(
                names, [[r[k]["value"] for r in w] for w in (model, twin)], "not shown"
            ),
        )
        for k in kinds
    ]
    # Once on a page is enough.
    words = [] if number else [f"{RATES[k]}: {rate_words(k, positive)}." for k in kinds]
    return Picture(slug, title, " ".join([*words, _RATES]), panels)


def side_by_side(
    names: Sequence[object],
    pairs: Sequence[Sequence[float | None]],
    none: str = "not defined",
) -> str:
    """Says in words what dots show: a number of the model and of its twin per name.

    Args:
        names: n names.
        pairs: the model's n numbers and the twin's, None where there is none.
        none: what is said of those.
    """
    shown = ([none if v is None else f"{v:.4f}" for v in values] for values in pairs)
    return ". ".join(
        f"{name}: model {model}, twin {twin}"
        for name, model, twin in zip(names, *shown, strict=True)
    )


def _whiskers(axes: Axes, rates: Sequence[Json], colour: str, *, filled: bool) -> None:
    """Draws one dot with its interval per row, and none where there is no rate."""
    # Model above, twin below the row's middle: equal rates would hide one another.
    offset = -0.13 if filled else 0.13
    for i, rate in enumerate(rates):
        if rate["value"] is None:
            # Of few rows or of none, which the page does not tell apart.
            if filled:
                axes.say(i, "not shown")
            continue
        ends, row = (rate["lower"], rate["upper"]), i + offset
        axes.line(ends, (row, row), colour, width=2.0)
        axes.dots([rate["value"]], [row], colour, filled=filled)


def gap_bounds(findings: Sequence[Finding]) -> Picture:
    """Draws each gap's interval against its own line."""
    name, title = "bounds", "Gaps against their lines"
    # Ratios and utilities are bounded from below and have another scale.
    shown = [f for f in findings if f.op == "<="]
    if not shown:
        return missing(name, title, "no principle bounds a gap from above")

    def draw(axes: Axes) -> None:
        for i, f in enumerate(shown):
            colour = OUTCOME_COLOUR[f.outcome]
            if f.value is None or f.lower is None or f.upper is None:
                # Nothing at 0 or 1: what is not defined lies nowhere on the axis.
                axes.say(i, f"{figure(None)}; the line is {f.threshold:g}")
                continue
            axes.box((0, f.threshold), (i - 0.15, i + 0.15), GRID)
            # A gap is never negative, while the bound of a difference can be.
            axes.line((max(f.lower, 0), f.upper), (i, i), colour, width=4.0)
            axes.dots([f.value], [i], colour, size=7.5)
            line = (f.threshold, f.threshold)
            axes.line(line, (i - 0.22, i + 0.22), INK, width=2.0)
        axes.in_rows([f"{f.principle}\n{measured(f)}" for f in shown])
        most = max(max(f.upper or 0.0, f.threshold) for f in shown)
        # A line at 0 whose gap is not defined leaves the axis no width.
        axes.x.low, axes.x.high = 0.0, 1.05 * most or 1.0

    words = ". ".join(m.sentence for f in shown for m in measures_of(f))
    panel = Panel("", draw, 36.0 + 50.0 * len(shown), words)
    return Picture(name, title, _BOUNDS, [panel])


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
        if group in named and metric in ("dp_gap", "tpr_gap", "fpr_gap")
        # Where groups are classes no rate of a class has two of them to compare, and
        # that different garments are called differently is no gap.
        if any(entry["gaps"].get(m, 0.0) is not None for m in ("tpr_gap", "fpr_gap"))
    ][:_MANY]

    def accuracies(axes: Axes) -> None:
        accuracy = [figures[who]["accuracy"] for who in ("model", "twin")]
        _whiskers(axes, accuracy[:1], BLUE, filled=True)
        _whiskers(axes, accuracy[1:], MUTED, filled=False)
        axes.in_rows(["All rows"])
        axes.x.words = percent

    differences = [
        [figures[who]["groups"][group]["gaps"][metric] for _, metric, group in rows]
        for who in ("model", "twin")
    ]

    def gaps(axes: Axes) -> None:
        for i, (model, twin) in enumerate(zip(*differences, strict=True)):
            # Of the same rows: where the model's is not defined, the twin's is neither.
            if model is None or twin is None:
                axes.say(i, figure(None))
                continue
            axes.line((model, twin), (i, i), GRID, width=3.0)
            # The model's dot last: where both are equal, it is the one to see.
            axes.dots([twin], [i], MUTED, filled=False)
            axes.dots([model], [i], BLUE)
        axes.in_rows([text for text, _, _ in rows])
        axes.x.low = 0.0

    shares = [[figures[who]["accuracy"]["value"]] for who in ("model", "twin")]
    words = side_by_side(["all rows"], shares)
    panels = [Panel("Accuracy", accuracies, 72.0, words)]
    if rows:
        heading = "Gaps between groups (smaller is fairer)"
        words = side_by_side([text for text, _, _ in rows], differences)
        panels.append(Panel(heading, gaps, 36.0 + 33.0 * len(rows), words))
    return Picture(name, title, _TWIN, panels)


def reliability(figures: Json) -> Picture:
    """Draws predicted probability against observed frequency."""
    name, title = "calibration", "Calibration"
    curves = {who: figures[who]["calibration"] for who in ("model", "twin")}
    if not all(curves.values()):
        return missing(name, title, "scores of more than two classes have no one curve")

    def curve(axes: Axes) -> None:
        axes.line((0, 1), (0, 1), MUTED, width=1.0, dashed=True)
        # Only the model has a shade: two of them would hide each other.
        for who, colour in (("twin", MUTED), ("model", BLUE)):
            bins = curves[who]["bins"]
            x = [b["score"] for b in bins]
            if who == "model":
                low, high = ([b[k] for b in bins] for k in ("lower", "upper"))
                axes.band(x, low, high, colour)
            y = [b["value"] for b in bins]
            axes.line(x, y, colour, dashed=who == "twin", label=who)
        axes.x = Scale("mean score in the bin", 0.0, 1.0)
        axes.y = Scale("share of positives", 0.0, 1.0)

    def counts(axes: Axes) -> None:
        spread = curves["model"]["spread"]
        for i, rows in enumerate(spread):
            left, right = i / len(spread), (i + 0.92) / len(spread)
            axes.box((left, right), (0, rows), BLUE)
        axes.x = Scale("score", 0.0, 1.0)
        axes.y.low = 0.0

    errors = {who: curve["error"] for who, curve in curves.items()}
    caption = (
        "On the diagonal, scores mean what they say. Mean distance from it (expected "
        f"calibration error): model {errors['model']:.4f}, twin {errors['twin']:.4f}. "
        "Shade: 95 % intervals. Calibration is reported, never certified."
    )
    panels = [Panel("Reliability", curve, 200.0), Panel("Rows per bin", counts, 168.0)]
    return Picture(name, title, caption, panels)
