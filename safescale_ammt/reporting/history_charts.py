"""Charts of the stages before the verdict: training, search, power check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from safescale_ammt.judging.sampling_model import units_in_words
from safescale_ammt.reporting.axes import GRID, INK, LEGEND_LINE, MUTED, Axes
from safescale_ammt.reporting.figures import (
    BLUE,
    ORANGE,
    RED,
    SERIES,
    Panel,
    Picture,
    missing,
)
from safescale_ammt.reporting.logs import last_rounds
from safescale_ammt.reporting.scales import Scale, compact, short

Json = Mapping[str, Any]
# Lines of one panel; a metric with many groups has a multiplier for every pair.
_MOST_LINES = 10
# The seed is one of the search's own candidates, as are its children.
_ORIGINS = {"random": MUTED, "evolution": BLUE}
_CANDIDATES = (
    "Filled: bred from what did well; hollow: drawn at random. Crosses: infeasible. "
    "Line: the Pareto front of the search; the star is the winner."
)
"""How to read the dots of the search."""
Curve = tuple[list[float], list[float]]
"""Steps and values, of equal length."""


def training_curves(events: Sequence[Json]) -> Picture:
    """Draws losses, violations on held-out rows and multipliers over the steps.

    Args:
        events: events of `training.jsonl`, in their order.
    """
    name, title = "training", "Training"
    # Training writes an event per sync round; one round alone is a point, no curve.
    rounds = last_rounds(events)
    if len(rounds) < 2:
        return missing(name, title, "the training log holds no rounds")
    trunk = [e for e in events if e.get("event") == "trunk"]
    gaps, pairs = (_series(rounds, key) for key in ("violation", "multiplier"))

    def violation(axes: Axes) -> None:
        axes.across(0.0, INK)
        for colour, (label, (x, y)) in _coloured(gaps):
            axes.line(x, y, colour, label=label)
        axes.x.label = "step"

    def dual(axes: Axes) -> None:
        for colour, (label, (x, y)) in _coloured(pairs):
            # Promises are told apart by their beginnings, pairs by what follows; with
            # one promise its name would only repeat the other panel's legend.
            promise, _, pair = label.partition(": ")
            known = "" if len(gaps) == 1 else f"{short(promise, 60)} "
            axes.line(x, y, colour, label=known + pair)
        axes.x.label = "step"

    k = np.size(rounds[-1]["loss"])
    # Boosters have no trunk in common.
    after = ", after the common trunk" * bool(trunk)
    caption = (
        f"Loss: that of {k} agent{'s' * (k > 1)} (thin), their mean and the "
        f"twin{after}. Violation: by how much a line is missed, pooled "
        "over rows that each agent had set aside; above 0 the promise is broken. "
        "Multipliers: what the violation drives, and how hard a promise presses."
    )
    # Where the section left their number open, why they are as many.
    reasons = [e["reason"] for e in events if e.get("event") == "agents"]
    caption = " ".join([caption, *reasons])
    tall = 150.0 + LEGEND_LINE * max(3, len(gaps), len(pairs))
    panels = [
        Panel("Loss", partial(_losses, trunk=trunk, rounds=rounds), tall),
        Panel("Violation on held-out rows", violation, tall),
        Panel("Multipliers", dual, tall),
    ]
    return Picture(name, title, caption, panels)


def _losses(axes: Axes, trunk: Sequence[Json], rounds: Sequence[Json]) -> None:
    """Draws the trunk's loss, each agent's, their mean and the twin's."""
    if trunk:
        x, y = [e["step"] for e in trunk], [_floats(e["loss"])[0] for e in trunk]
        axes.line(x, y, ORANGE, label="trunk")
    steps = [e["step"] for e in rounds]
    agents = np.array([_floats(e["loss"]) for e in rounds])
    for own in agents.T:
        axes.line(steps, own.tolist(), GRID, width=0.9)
    # Not `nanmean`: it warns at a round in which every agent is lost, and a round like
    # that has to be a gap in the curve.
    finite = np.isfinite(agents)
    mean = np.where(finite, agents, 0).sum(1) / np.maximum(finite.sum(1), 1)
    mean = np.where(finite.any(1), mean, np.nan)
    axes.line(steps, mean.tolist(), BLUE, label="agents")
    if "twin_loss" in rounds[0]:
        twin = [_floats(e["twin_loss"])[0] for e in rounds]
        axes.line(steps, twin, MUTED, dashed=True, label="twin")
    axes.x.label = "step"


def _floats(values: Any) -> list[float]:
    """Returns a log's number or numbers as floats, NaN for those that it left out."""
    # JSON has no NaN, so the log writes None for a loss that is not finite.
    return [np.nan if v is None else float(v) for v in np.atleast_1d(values).tolist()]


def _series(rounds: Sequence[Json], key: str) -> dict[str, Curve]:
    """Collects nested numbers of one key as curves over the steps, the largest ones."""
    curves: dict[str, Curve] = {}
    for event in rounds:
        for principle, entry in (event.get(key) or {}).items():
            # A violation is one number, a multiplier stands beside each pair's name.
            pairs = entry if isinstance(entry, Mapping) else {"": entry}
            for pair, value in pairs.items():
                # Each curve has its own steps: a value of None leaves its round out.
                if value is not None:
                    name = f"{principle}: {pair}" if pair else principle
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(event["step"])
                    values.append(float(value))
    largest = sorted(curves, key=lambda n: -max(map(abs, curves[n][1])))[:_MOST_LINES]
    return {name: curves[name] for name in sorted(largest)}


def _coloured(curves: Mapping[str, Curve]) -> list[tuple[str, tuple[str, Curve]]]:
    """Gives each curve a colour, in turn."""
    return [
        (SERIES[i % len(SERIES)], item) for i, item in enumerate(sorted(curves.items()))
    ]


def search_front(search: Json | None, control: Json | None = None) -> Picture:
    """Draws the loss of every candidate against its cost, the front and the winner.

    Args:
        search: `search.json` of the architecture.
        control: `control.json`, whose candidates are drawn beside them.
    """
    name, title = "search", "Search: loss against cost"
    logs = [log for log in (search, control) if log]
    # A candidate whose training diverged has no loss.
    rows = [c for log in logs for c in log["candidates"] if c["loss"] is not None]
    if search is None or not rows:
        return missing(name, title, "no search log came with the architecture")
    front = [c for c in rows if c["id"] in search["front"]]
    winners = [c for c in rows if c["id"] == search["winner"]]

    def draw(axes: Axes, cost: str, label: str) -> None:
        on_front = sorted((c[cost], c["loss"]) for c in front)
        x, y = zip(*on_front, strict=True) if on_front else ((), ())
        axes.line(x, y, BLUE, width=1.0)
        for origin, colour in _ORIGINS.items():
            for feasible, shape in ((True, "o"), (False, "x")):
                points = [
                    (c[cost], c["loss"])
                    for c in rows
                    if (c["origin"] == "random") == (origin == "random")
                    and bool(c["feasible"]) is feasible
                ]
                x, y = zip(*points, strict=True) if points else ((), ())
                filled, name = origin != "random", origin if feasible else ""
                axes.dots(x, y, colour, shape=shape, filled=filled, label=name)
        for c in winners:
            place = [c[cost]], [c["loss"]]
            axes.dots(*place, RED, size=15.0, shape="star", label="winner")
        axes.x = Scale(label, log=True, words=compact)
        axes.y.label = "validation loss"

    spent = [
        f"{len(log['candidates'])} candidates by {log['strategy']} search in "
        f"{log['budget']['spent']:,} {log['budget']['unit']}"
        for log in logs
        if log["candidates"]
    ]
    told = ", and as a control ".join(spent) + (", no control" * (len(spent) == 1))
    caption = f"{told}. {_CANDIDATES}"
    if sum(len(log["candidates"]) for log in logs) == 1:
        cost = f"{search['budget']['spent']:,} {search['budget']['unit']}"
        caption = f"One candidate, measured in {cost}; nothing was searched."
    costs = {"flops": "FLOPs per row", "parameters": "parameters"}
    panels = [
        Panel("", partial(draw, cost=c, label=n), 220.0) for c, n in costs.items()
    ]
    return Picture(name, title, caption, panels)


def power_curves(power: Json | None) -> Picture:
    """Draws P(pass) of each principle, and of all together, against the true gap."""
    name, title = "power", "What the sealed rows can certify"
    if not power:
        return missing(name, title, "no power check came with the architecture")
    entries = [(p["principle"], p) for p in power["principles"]]
    required = power["required"]

    def draw(axes: Axes) -> None:
        axes.across(required, MUTED, dashed=True)
        axes.upright(1.0, MUTED, "the line")
        for colour, (label, (x, y)) in _coloured({n: _odds(e) for n, e in entries}):
            axes.line(x, y, colour, label=label)
            axes.dots(x, y, colour, size=5.0, label=label)
        scales, passes = _odds(power)
        axes.line(scales, passes, INK, width=2.2, label="all together")
        axes.dots(scales, passes, INK, shape="square", label="all together")
        axes.x = Scale("true gap, as a multiple of what is allowed", ticks=scales)
        axes.y = Scale("probability to pass", -0.03, 1.03, most=7)

    spread = power["spread"]["passes"]
    # A power check of before the sampling model was stated names no sample size.
    drawn = ""
    if "sealed" in power:
        drawn = f" for {units_in_words(power['unit'], power['sealed'])}"
    caption = (
        "How often the gate would pass a model with a given true gap, found before "
        f"training from row counts alone{drawn}. Dashed: {required:.0%}, below which a "
        "promise counts as uncertifiable. A model as training should leave it: "
        f"{spread:.0%}. At and beyond the line, passing is the error that the gate "
        "bounds."
    )
    return Picture(
        name, title, caption, [Panel("", draw, 190.0 + LEGEND_LINE * len(entries))]
    )


def _odds(entry: Json) -> Curve:
    # The row without a scale is the model as training should leave it: no point of the
    # curve, but a number in the caption.
    table = [odds for odds in entry["table"] if odds["scale"] is not None]
    return [odds["scale"] for odds in table], [odds["passes"] for odds in table]
