"""Prints the table of claims: every stored goal, met or missed, from its file.

    python -m benchmarks claims [--write]    --write puts it into docs/measurements.md

A result whose code has changed since it was measured is marked, goal by goal, and a
line below the table says which rooms are others now.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.pages import DOCS, replaced
from benchmarks.provenance import ROOT, changes, measured_code

RESULTS = ROOT / "benchmarks" / "results"
PAGE = DOCS / "measurements.md"
_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def line(name: str, goal: dict[str, Any], *, stale: bool) -> str:
    """Returns one goal as a table row."""
    met = _COMPARE[goal["op"]](goal["value"], goal["goal"])
    spread = " to ".join(f"{value:.4g}" for value in goal.get("spread", ()))
    # A bare | would end the cell: in Markdown's tables it does so within code as well.
    what = goal["what"].replace("|", "\\|")
    return (
        f"| `{name}` | {what} | {goal['op']} {goal['goal']:g} "
        f"| {goal['value']:.4g} ({spread or 'one run'}) "
        f"| {'met' if met else '**missed**'}{', on older code' if stale else ''} |"
    )


def staleness(stored: dict[str, Any], now: Mapping[str, str]) -> str:
    """Says what has changed since a result was measured; "" = nothing that counts.

    Args:
        stored: a result.
        now: room -> digest of the code that it would measure today.
    """
    name, revision = stored["name"], stored["commit"][:7]
    again = f"Run it again: `{stored['command']}`."
    if "code" not in stored:
        return (
            f"`{name}` does not say which code it measured, and commit {revision} does "
            f"not hold it. {again}"
        )
    rooms = ", ".join(changes(stored["code"], now))
    if not rooms:
        return ""
    return f"`{name}` was measured at {revision}; changed since: {rooms}. {again}"


def table() -> str:
    """Returns the claims of all stored results as a Markdown table, and what is old."""
    rows = [
        "| benchmark | what | goal | measured (spread) | |",
        "|---|---|---|---|---|",
    ]
    notes = []
    for file in sorted(RESULTS.glob("*.json")):
        stored = json.loads(file.read_text())
        note = staleness(stored, measured_code(stored["name"]))
        notes += [f"- {note}"] * bool(note)
        rows += [line(stored["name"], g, stale=bool(note)) for g in stored["goals"]]
    if notes:
        rows += ["", "Measured on older code, which figures may not survive:", ""]
    return "\n".join([*rows, *notes]) + "\n"


def main() -> None:
    """Prints the table, or puts it between its marks in the page."""
    if "--write" not in sys.argv[1:]:
        print(table(), end="")
        return
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(text, "claims", table()), encoding="utf-8")


if __name__ == "__main__":
    main()
