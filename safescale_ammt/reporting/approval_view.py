"""The approval view: what a person is asked to take upon themselves, before they sign.

It stands on the page of every verdict that people may decide about, where the decision
has not been made. What was decided stands on later pages (`people`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from safescale_ammt.constitution.constitution import Constitution, HumanRule
from safescale_ammt.judging.verdict import OFFICIAL, SEALED, Verdict
from safescale_ammt.reporting.cards import card
from safescale_ammt.reporting.people import BIAS_NOTE
from safescale_ammt.reporting.shortfalls import help_for, shown
from safescale_ammt.reporting.tables import table

TITLE = "Before you approve"
QUESTIONS = (
    "Which value would I have called too bad, before I saw what was measured?",
    "Who is harmed if the true value lies at the bad end of its interval?",
    "Would I sign the same figures of a model that I do not know or do not need?",
)
"""What an approver should have an answer to; nothing on the page answers it."""
_OTHER = {
    "guarantee": (
        "The sealed rows were readable before this model was judged on them.",
        "Sealed rows that no run has judged.",
    ),
    "decision": (
        "The figures keep every promise; the gate's reasons say why that is no pass.",
        "What those reasons ask for.",
    ),
}
"""Open points that are no promises -> what is known, and what would settle them."""


def approval_view(
    verdict: Verdict, constitution: Constitution, points: Sequence[Mapping[str, Any]]
) -> str:
    """Writes the card of what is open, who may decide it, and what to ask oneself.

    Args:
        verdict: the verdict.
        constitution: the constitution that it was judged by.
        points: what and kind of everything that the verdict does not show.

    Returns:
        HTML; "" where nobody can be asked: another decision, or no registry takes it.
    """
    people_decide = (verdict.decision, verdict.mode, verdict.ledger)
    if people_decide != ("needs_human", SEALED, OFFICIAL) or not points:
        return ""
    human = constitution.human
    findings = {f.principle: f for f in verdict.findings}
    rows = []
    for point in points:
        what, kind = point["what"], point["kind"]
        text = ""
        if what in findings:
            known = shown(findings[what])
            settles = help_for(findings[what], verdict, constitution)
            text = constitution.principle(what).text
        else:
            known, settles = _OTHER[what]
        open_to = "yes" if for_people(kind, human) else "no"
        name = f"{escape(what)}<span>{escape(text)}</span>"
        rows.append([name, *map(escape, (kind, known, settles, open_to))])
    heads = ("Not shown", "Kind", "What is known", "What would settle it", "For people")
    shut = [p["what"] for p in points if not for_people(p["kind"], human)]
    questions = "".join(f"<li>{escape(q)}</li>" for q in QUESTIONS)
    return card(
        TITLE,
        "<p>Whoever approves answers for the following in their own name; no "
        "certificate of the gate covers it.</p>"
        f"{table(heads, rows)}{who_decides(human, shut)}"
        f"<p>{BIAS_NOTE}</p><ul>{questions}</ul>",
    )


def for_people(kind: str, human: HumanRule) -> bool:
    """Says whether a constitution leaves a kind of open point to people."""
    return kind in human.may_override and kind not in human.never


def who_decides(human: HumanRule, shut: Sequence[str]) -> str:
    """Says who may sign, how many have to, and how; or that nobody can.

    Args:
        human: the constitution's section about people.
        shut: open points that no person may decide.
    """
    if shut:
        return (
            "<p><strong>Nobody can approve this model</strong>: its constitution keeps "
            f"{escape(', '.join(shut))} from people (human.may_override, human.never)."
            "</p>"
        )
    if len(human.approvers) < human.quorum:
        return (
            "<p><strong>Nobody can approve this model</strong>: its constitution asks "
            f"for {human.quorum} and names {len(human.approvers)} "
            "(human.approvers).</p>"
        )
    names = escape(", ".join(human.approvers))
    return (
        f"<p>{human.quorum} of these have to sign: {names}. Whoever owns the run "
        f"(registry.run_owner) may not; an approval counts for {human.expires_days} "
        'days. <code>safescale approve VERSION --key FILE --reason "..."</code> signs, '
        "<code>safescale reject</code> closes the version for ever.</p>"
    )
