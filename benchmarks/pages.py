"""Pages of the documents whose tables a command writes, between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def cell(text: object) -> str:
    """Returns a text as it stands in a cell of a Markdown table."""
    # A bare | would end the cell: in Markdown's tables it does so within code as well.
    return " ".join(str(text).split()).replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table; heads may be empty."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines)


def replaced(text: str, name: str, part: str) -> str:
    """Returns a page with other text between its marks of that name.

    Raises:
        ValueError: both marks do not stand there exactly once.
    """
    start, end = f"<!-- {name}: start -->\n", f"<!-- {name}: end -->\n"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"the page needs {start.strip()} and {end.strip()}, once each")
    head, rest = text.split(start)
    _, tail = rest.split(end)
    return f"{head}{start}\n{part}\n{end}{tail}"
