"""What people decided about a version, as the report's section.

A page that a registry keeps is written before anybody decides: this section stands on
the pages that are written again of a version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from safescale_ammt.reporting.cards import card
from safescale_ammt.reporting.tables import table

TITLE = "What people decided"
SINGLE_PARTY = "single-party, not independent"
"""What is said of a decision where nobody shows that its signer owns no run."""
BIAS_NOTE = (
    "A signature shows who decided, not that the decision was right. People tend to "
    "agree with what a system proposes (automation bias): read the interval and the "
    "limits above before the decision, and write down what would have changed it."
)


def people_section(acts: Sequence[Mapping[str, Any]], status: str) -> str:
    """Writes a card with each act; nothing without any.

    Args:
        acts: act, by, issued, expires, reason, waived (what and kind of each point)
            and independent, in order; their signatures hold.
        status: what has become of the version.
    """
    if not acts:
        return ""
    heads = ("act", "by", "signed", "counts until", "waived", "why", "independent")
    rows = [
        (
            escape(act["act"]),
            escape(act["by"]),
            escape(act["issued"]),
            escape(act["expires"] or "–"),
            escape(
                ", ".join(f"{p['what']} ({p['kind']})" for p in act["waived"]) or "–"
            ),
            escape(act["reason"]),
            "yes" if act["independent"] else SINGLE_PARTY,
        )
        for act in acts
    ]
    waived = sorted({point["what"] for act in acts for point in act["waived"]})
    certificate = ""
    if waived:
        names = escape(", ".join(waived))
        certificate = (
            f"<p><strong>No certificate of the gate covers {names}</strong>: whoever "
            "approved answers for it.</p>"
        )
    now = escape(status.replace("_", " "))
    told = f"<p>The version is <strong>{now}</strong>.</p>{table(heads, rows)}"
    return card(TITLE, f"{told}{certificate}<p>{BIAS_NOTE}</p>")
