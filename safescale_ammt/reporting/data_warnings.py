"""Warnings about the data, as the report's section and as the card's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from safescale_ammt.data.audit_warnings import MOST_TOLD, AuditWarning, sentences
from safescale_ammt.data.bias_findings import KINDS, Told
from safescale_ammt.reporting.cards import card

TITLE = "Warnings about the data"
EXAMINED = "What the data were examined for"


def warnings_section(warnings: Sequence[AuditWarning]) -> str:
    """Writes a card with the worst ones, the others folded; nothing without any.

    Args:
        warnings: the worst first.
    """
    if not warnings:
        return ""
    points = [f"<li>{escape(sentence)}</li>" for sentence in sentences(warnings)]
    body = f"<ul>{''.join(points[:MOST_TOLD])}</ul>"
    if more := points[MOST_TOLD:]:
        # Folds without a script; a sheet of paper shows what is unfolded.
        body += (
            f"<details><summary>and {len(more)} more</summary><ul>{''.join(more)}</ul>"
            "</details>"
        )
    return f'<section class="card warnings"><h2>{TITLE}</h2>{body}</section>\n'


def examined_section(told: Sequence[Told]) -> str:
    """Writes a card with what was found of each kind of bias; nothing without any."""
    if not told:
        return ""
    points = [
        f"<li><strong>{KINDS[entry.kind]}: {entry.status}.</strong> "
        f"{escape(entry.sentence)}</li>"
        for entry in told
    ]
    return card(
        EXAMINED,
        f"<ul>{''.join(points)}</ul>"
        "<p>Development rows only. A kind that is not there is called found with a "
        "chance of at most 1 % each.</p>",
    )
