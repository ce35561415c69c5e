"""Tables that a telephone shows as cards, one per row.

The style sheet takes rows apart where the page is narrow; each cell then bears the
heading of its column itself. Roles are written out, since a browser that no longer
draws a table may no longer announce one either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[int] = (),
    caption: str = "",
) -> str:
    """Writes a table whose first cell in each row names the row.

    Args:
        heads: headings of the columns, plain text.
        rows: cells as HTML, one for each heading.
        numbers: columns that hold numbers, which stand at the right.
        caption: what the table shows, plain text.
    """
    titles = f"<caption>{escape(caption)}</caption>" if caption else ""
    names = [escape(name) for name in heads]
    sides = [' class="n"' if i in numbers else "" for i in range(len(heads))]
    head = "".join(
        f'<th scope="col" role="columnheader"{side}>{name}</th>'
        for name, side in zip(names, sides, strict=True)
    )
    body = ""
    for first, *rest in rows:
        body += f'<tr role="row"><th scope="row" role="rowheader">{first}</th>'
        for cell, name, side in zip(rest, names[1:], sides[1:], strict=True):
            body += f'<td role="cell" data-label="{name}"{side}><div>{cell}</div></td>'
        body += "</tr>"
    return (
        f'<table role="table">{titles}'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )
