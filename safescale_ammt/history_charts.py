"""Charts of how the model came to be: training, search, power check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from safescale_ammt.figures import (
    BLUE,
    GRID,
    INK,
    SERIES,
    Picture,
    missing,
    picture,
)

Json = Mapping[str, Any]


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def training_curves(events: Sequence[Json]) -> Picture:
    """Loss of the agents, hard violations and multipliers over the steps."""
    name, title = "training", "Training: loss, violations, multipliers"
    rounds = [e for e in events if e.get("event") == "round"]
    if len(rounds) < 2:
        return missing(name, title, "the training log holds no rounds")
    steps = [e["step"] for e in rounds]
    violations = _series(rounds, "violation")
    multipliers = _series(rounds, "multiplier")

    def draw(figure: Figure) -> None:
        loss, violated, dual = figure.subplots(1, 3, sharex=True)
        each = np.array([np.atleast_1d(e["loss"]) for e in rounds], dtype=float)
        for agent in each.T:
            loss.plot(steps, agent, color=GRID, linewidth=0.9)
        loss.plot(steps, each.mean(1), color=BLUE, label="mean of the agents")
        loss.set_title("Loss")
        violated.axhline(0, color=INK, linewidth=1)
        for axes, series in ((violated, violations), (dual, multipliers)):
            for colour, (label, values) in zip(
                SERIES, sorted(series.items()), strict=False
            ):
                x = [s for s, v in zip(steps, values, strict=True) if v is not None]
                y = [v for v in values if v is not None]
                axes.plot(x, y, color=colour, label=_short(label, 30))
            if series:
                axes.legend(loc="upper right", fontsize=7.5)
        violated.set_title("Violation (hard, held-out rows)")
        dual.set_title("Multipliers")
        for axes in (loss, violated, dual):
            axes.set_xlabel("step")

    caption = (
        f"{each_agent(rounds)} Violations above 0 break the promise on rows held out "
        "from the weights; they push the multipliers up, which push the gap down."
    )
    return picture(name, title, caption, draw, (9.4, 3.0))


def each_agent(rounds: Sequence[Json]) -> str:
    """Says how many agents the thin lines stand for."""
    k = np.atleast_1d(rounds[-1]["loss"]).size
    return f"Thin lines: {k} agents." if k > 1 else "One agent."


def _series(rounds: Sequence[Json], key: str) -> dict[str, list[float | None]]:
    """Collects nested numbers of one key as flat series over the rounds."""
    flat = [_flatten(e.get(key) or {}) for e in rounds]
    return {n: [f.get(n) for f in flat] for n in sorted({n for f in flat for n in f})}


def _flatten(tree: Json, prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flatten(value, f"{prefix}{key}: ")
        elif value is not None:
            found[prefix + key] = float(value)
    return found


def search_front(search: Json | None) -> Picture:
    """Loss of every candidate against its cost, the front and who won."""
    name, title = "search", "Search: loss against cost"
    if not search or not search.get("candidates"):
        return missing(name, title, "no search log came with the architecture")
    return missing(name, title, "x")


def power_curves(power: Json | None) -> Picture:
    """P(pass) of each principle against the true gap."""
    name, title = "power", "What the sealed rows can certify"
    if not power:
        return missing(name, title, "no power check came with the architecture")
    return missing(name, title, "x")
