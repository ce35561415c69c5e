"""What attacks on a table's rows came to: who survives, and what breaks the others."""

from __future__ import annotations

from html import escape

from safescale_ammt.judging.attack_words import SEARCH
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting.tables import table
from safescale_ammt.reporting.wording import percent

NOT_AIMED_AT = (
    "Training sees no changed rows unless training.changed_copies says so, and no form "
    "of the model is chosen by them: what is below was found out by the judge alone."
)
HEADS = ("What becomes of a row", "Rows", "Share")


def attack_section(verdict: Verdict) -> str:
    """Writes a table for each attack, "" of a verdict without any."""
    cards = []
    for attack in verdict.figures.get("attacks", {}).values():
        tried = int(attack["rows"])
        stands = "right after every permitted change"
        if not attack["every_change"]:
            stands = f"survives {SEARCH}"
        counts = {
            f"Right, and {stands}": attack["survived"],
            "Wrong as it is": attack["wrong"],
        }
        by = sorted(attack["broken_by"].items(), key=lambda one: (-one[1], one[0]))
        counts |= {f"Broken by a change of {names}": n for names, n in by}
        if few := tried - sum(counts.values()):
            counts["Broken by a change of others, few rows each"] = few
        rows = [
            [escape(what), f"{n:,}", percent(n / tried if tried else None)]
            for what, n in counts.items()
        ]
        caption = f"{tried:,} rows under {attack['threat']}"
        body = table(HEADS, rows, numbers=(1, 2), caption=caption)
        cards.append(f'<section class="card">{body}</section>\n')
    heading = "<h2>Rows that a change breaks</h2>\n"
    heading += f"<p>{NOT_AIMED_AT}</p>\n"
    return heading + "".join(cards) if cards else ""
