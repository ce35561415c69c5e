"""Cards: the sections that a page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def card(title: str, body: str) -> str:
    """Writes a section with a heading; both are HTML."""
    return f'<section class="card"><h2>{title}</h2>{body}</section>\n'


def about_card(digests: Mapping[str, str]) -> str:
    """Writes the digests of what a page speaks of, by what it is."""
    cells = "".join(
        f'<dt>{name}</dt><dd class="digest">{escape(digest)}</dd>'
        for name, digest in digests.items()
    )
    return card("What this is about", f'<dl class="digests">{cells}</dl>')
