"""Prints the table of claims: every stored goal, met or missed, from its file.

python -m benchmarks claims [--write]    --write puts it into the README
"""

from __future__ import annotations

import json
import operator
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
START, END = "<!-- claims: start -->\n", "<!-- claims: end -->\n"
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
    """Prints the table, or puts it between its marks in the README."""
    if "--write" not in sys.argv[1:]:
        print(table(), end="")
        return
    text = README.read_text()
    # Both marks have to stand there exactly once: else nothing is written.
    head, rest = text.split(START)
    _, tail = rest.split(END)
    README.write_text(head + START + "\n" + table() + "\n" + END + tail)


if __name__ == "__main__":
    main()
