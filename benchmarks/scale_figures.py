"""What the figures of `scale` come to: goals, a table, rows added to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.scale_stages import STAGES
from benchmarks.scale_tables import NARROW

OWN = "now"
MOST_MIB = 2048
GROWTH = 1.1
"""CPU seconds a row of the largest table, to those of the one before, at most."""
COMPARED = 5_000_000
"""Rows at which the memory of training is held against an earlier revision's."""
SHARE = 0.1
TRAINED = 50_000_000
"""Rows beyond which nothing is searched, trained or registered."""
LIMITS = {"peak_mib": 2048, "cpu_s": 3600, "disk_peak_mib": 16384}
"""Of a small stage's pod as it is compiled: memory, an hour on one CPU, and what its
two containers may have on disk together (`manifests/base/limits.yaml`)."""

Row = dict[str, Any]


def goal(what: str, most: float, values: Sequence[float]) -> dict[str, Any]:
    """Holds the last of some values against the most that is asked for."""
    spread = [min(values), max(values)]
    figures = {"goal": most, "value": values[-1], "spread": spread}
    return {"what": what, "op": "<=", **figures}


def goals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Says what was promised, and what came of it."""
    own = [r for r in rows if r["by"] == OWN]
    found = []
    for stage in STAGES:
        here = [r for r in own if r["stage"] == stage]
        if here:
            peaks = sorted(r["peak_mib"] for r in here)
            what = f"peak resident memory of {stage}, MiB, greatest"
            found += [goal(what, MOST_MIB, peaks), *growth(stage, here)]
    compared = {"rows": COMPARED, "columns": NARROW, "stage": "train_agents"}.items()
    trained = {r["by"]: r["peak_mib"] for r in rows if compared <= r.items()}
    if {OWN, "before"} <= trained.keys():
        what = f"memory of train_agents at {COMPARED:,} rows, now / before"
        found.append(goal(what, SHARE, [trained[OWN] / trained["before"]]))
    for row in (r for r in own if r["rows"] > TRAINED):
        for figure, most in LIMITS.items():
            what = f"{figure} of {row['stage']} at {row['rows']:,} rows / its limit"
            found.append(goal(what, 1.0, [row[figure] / most]))
    return found


def growth(stage: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Says whether a stage's CPU seconds grow with the rows and no faster."""
    narrow = sorted(
        (r["rows"], (r["cpu_s"] - r["start_cpu_s"]) / r["rows"])
        for r in rows
        if r["columns"] == NARROW
    )
    if len(narrow) < 2:
        return []
    (before, base), (most, _) = narrow[-2:]
    what = f"CPU s a row of {stage}, of {most:,} rows / of {before:,}"
    return [goal(what, GROWTH, [cpu / base for _, cpu in narrow])]


def table(rows: Sequence[Row]) -> str:
    """Writes the rows as Markdown: a line for each size and who worked on it."""
    lines = [f"| rows | by | {' | '.join(STAGES)} |", "|---" * (2 + len(STAGES)) + "|"]
    for size in dict.fromkeys((r["rows"], r["columns"], r["by"]) for r in rows):
        took = {
            r["stage"]: f"{r['cpu_s']:.1f} s, {r['peak_mib']:.0f} MiB"
            for r in rows
            if (r["rows"], r["columns"], r["by"]) == size
        }
        cells = " | ".join(took.get(stage, "-") for stage in STAGES)
        lines.append(f"| {size[0]:,} x {size[1]} | {size[2]} | {cells} |")
    return "\n".join(lines)


def added(rows: Sequence[Row], more: Sequence[Row]) -> list[Row]:
    """Returns rows with more of them, by size, each in the place of its like."""

    def key(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("rows", "columns", "stage", "by"))

    each = {key(row): row for row in [*rows, *more]}
    return sorted(each.values(), key=lambda r: (r["columns"], r["rows"]))
