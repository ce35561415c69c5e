"""Markdown for Kubeflow's pages: tables and points of foreign text, read as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def plain(text: Any) -> str:
    """Returns foreign text in a form that is read neither as Markdown nor as HTML."""
    # A line break would end a table row, and a column of an owner's file may hold one.
    one_line = " ".join(str(text).split())
    # Tables are split at their pipes before anything else of Markdown is read.
    one_line = escape(one_line, quote=False).replace("|", "&#124;")
    # An address becomes a link by itself in some readers.
    one_line = re.sub(r"(?<=\w):(?=//)", "&#58;", one_line)
    one_line = re.sub(r"(?i)\b(www)\.", r"\1&#46;", one_line)
    one_line = re.sub(r"[\\`*\[\]!]", r"\\\g<0>", one_line)
    # At the start of a point or a line: a heading, a list or a rule; a numbered list.
    one_line = re.sub(r"^([-#+]+(?= |$)|[-_=~]{3,})", r"\\\g<0>", one_line)
    return re.sub(r"^(\d+)([.)])(?= )", r"\1\\\2", one_line)


def bullets(lines: Sequence[str]) -> str:
    """Writes a point per line of foreign text; "" without any."""
    return "\n".join(f"- {plain(line)}" for line in lines) + "\n" if lines else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table of cells that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
