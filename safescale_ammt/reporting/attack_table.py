"""What attacks on rows came to: who survives, and what breaks the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from safescale_ammt.constitution.corruptions import SEVERITIES
from safescale_ammt.judging.attack_words import EMPIRICAL, SEARCH
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting.tables import table
from safescale_ammt.reporting.wording import percent

NOT_AIMED_AT = (
    "Training sees no changed rows unless training.changed_copies says so, and no form "
    "of the model is chosen by them: what is below was found out by the judge alone."
)
PARTS = ("Part", "Value", "Rows", "Stand")
CHECKS = ("Check", "Outcome", "Rows", "Share that speaks for it")
HEADS = ("What becomes of a row", "Rows", "Share")


def attack_section(verdict: Verdict) -> str:
    """Writes a table for each attack, "" of a verdict without any."""
    cards = []
    attacks = verdict.figures.get("attacks", {}).values()
    for attack in attacks:
        if "corruptions" in attack:
            cards.append(corruption_card(attack, verdict.classes))
            continue
        if "by" in attack:
            cards.append(image_card(attack, verdict.classes))
            continue
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
    if any("every_change" in attack for attack in attacks):
        heading += f"<p>{NOT_AIMED_AT}</p>\n"
    return heading + "".join(cards) if cards else ""


def image_card(attack: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Writes what became of images: in all, by class and group, and the checks."""
    tried, battery = int(attack["rows"]), attack.get("battery")
    stands = "proven to stay so by interval bounds"
    if battery:
        stands = f"survives the battery, version {battery['version']}"
    counts = {
        f"Right, and {stands}": attack["survived"],
        "Wrong as it is": attack["wrong"],
        "Right, and without proof": attack["open"],
    }
    by = sorted(attack["broken_by"].items(), key=lambda one: (-one[1], one[0]))
    counts |= {f"Broken by {name}": n for name, n in by}
    if few := tried - sum(counts.values()):
        counts["Broken by others, few rows each"] = few
    rows = [
        [escape(what), f"{n:,}", percent(n / tried if tried else None)]
        for what, n in counts.items()
        if n or what != "Right, and without proof"
    ]
    caption = f"{tried:,} rows under {attack['threat']}"
    body = table(HEADS, rows, numbers=(1, 2), caption=caption)
    body += parts_table(attack["by"], classes)
    if battery:
        body += checks_table(battery)
    return f'<section class="card">{body}</section>\n'


def parts_table(by: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Writes which share of each class and group stands."""
    parts = [
        [
            escape(one["group"] or "class"),
            escape(one["value"] if one["group"] else classes[int(one["value"])]),
            f"{one['rows']:,}",
            percent(one["survived"] / one["rows"]),
        ]
        for one in by
    ]
    return table(PARTS, parts, numbers=(2, 3), caption="Which stand, by part")


def corruption_card(attack: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Writes what is answered right under each corruption, and of each part."""
    found: dict[str, dict[int, str]] = {}
    for one in attack["corruptions"]:
        right = f"{percent(one['right'] / one['rows'])} of {one['rows']:,}"
        found.setdefault(one["kind"], {})[one["severity"]] = right
    rows = [
        [escape(kind), *(each.get(severity, "") for severity in SEVERITIES)]
        for kind, each in found.items()
    ]
    heads = ("Corruption", *(f"Severity {severity}" for severity in SEVERITIES))
    caption = f"{attack['rows']:,} rows under {attack['threat']}: answered right"
    body = table(heads, rows, numbers=(1, 2, 3), caption=caption)
    body += parts_table(attack["by"], classes)
    return f'<section class="card">{body}</section>\n'


def checks_table(battery: Mapping[str, Any]) -> str:
    """Writes what a battery says of its own attacks."""
    rows = [
        [
            escape(one["name"]),
            "raised" if one["raised"] else "not raised",
            f"{one['rows']:,}",
            percent(one["value"]),
        ]
        for one in battery["checks"]
    ]
    more = " after the attacks on hidden slopes" * bool(battery["escalated"])
    caption = f"Checks of the attacks{more}"
    note = f"<p>{escape(EMPIRICAL)}.</p>"
    return note + table(CHECKS, rows, numbers=(2, 3), caption=caption)
