"""Prints the table of claims: every stored goal, met or missed, from its file.

python -m benchmarks claims [--write]    --write puts it into docs/measurements.md
"""

from __future__ import annotations

import json
import operator
import sys
from pathlib import Path
from typing import Any

from benchmarks.pages import DOCS, replaced

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = DOCS / "measurements.md"
_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def line(name: str, goal: dict[str, Any]) -> str:
    """Returns one goal as a table row."""
    met = _COMPARE[goal["op"]](goal["value"], goal["goal"])
    spread = " to ".join(f"{value:.4g}" for value in goal["spread"])
    # A bare | would end the cell: in Markdown's tables it does so within code as well.
    what = goal["what"].replace("|", "\\|")
    return (
        f"| `{name}` | {what} | {goal['op']} {goal['goal']:g} "
        f"| {goal['value']:.4g} ({spread}) | {'met' if met else '**missed**'} |"
    )


def table() -> str:
    """Returns the claims of all stored results as a Markdown table."""
    rows = [
        "| benchmark | what | goal | measured (spread) | |",
        "|---|---|---|---|---|",
    ]
    for file in sorted(RESULTS.glob("*.json")):
        stored = json.loads(file.read_text())
        rows += [line(stored["name"], goal) for goal in stored["goals"]]
    return "\n".join(rows) + "\n"


def main() -> None:
    """Prints the table, or puts it between its marks in the page."""
    if "--write" not in sys.argv[1:]:
        print(table(), end="")
        return
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(text, "claims", table()), encoding="utf-8")


if __name__ == "__main__":
    main()
