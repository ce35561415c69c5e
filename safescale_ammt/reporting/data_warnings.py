"""Warnings about the data, as the report's section and as the card's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from safescale_ammt.data.audit_warnings import MOST_TOLD, AuditWarning, sentences

TITLE = "Warnings about the data"


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
