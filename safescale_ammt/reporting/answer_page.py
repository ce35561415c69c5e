"""The page of an answer: the one bit, what it guarantees, and who has the figures."""

from __future__ import annotations

from html import escape

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.answer import Answer
from safescale_ammt.judging.verdict import OFFICIAL
from safescale_ammt.reporting.cards import about_card, card
from safescale_ammt.reporting.report import framed
from safescale_ammt.reporting.wording import false_pass

SHORT = {True: "Passed", False: "Not passed"}
FIGURES = (
    "The constitution says gate.feedback: bit, so that all figures, findings and "
    "evidence lie where the auditor's key alone reads them. `safescale report` and "
    "`safescale verify` show them to who has it; `safescale open` tells them to "
    "everybody, and then the next, different model on these rows needs a person."
)
"""Where the figures of an answer are."""


def left(answer: Answer) -> str:
    """Says which use of the rows an answer is, and how many are left."""
    count, use = answer.submissions_left, answer.use
    told = f"This is use {use.number} of {use.planned} planned uses of these rows"
    if answer.passed:
        return (
            f"{told}. A pass ends their use: the next, different model needs rows that "
            "nobody was told of."
        )
    if use.guarantee != "holds":
        return f"{told}, which are spent."
    return f"{told}; {count} {'is' if count == 1 else 'are'} left."


def guaranteed(answer: Answer, constitution: Constitution) -> str:
    """Says what an answer guarantees."""
    if answer.use.guarantee != "holds":
        return (
            "None: these rows were used as often as was planned, had passed a model or "
            "were opened before, so that no model passes on them."
        )
    return (
        f"{false_pass(answer.unit, constitution)} That holds for all "
        "planned uses of the rows together, up to the first pass: each is judged at "
        f"level {answer.alpha:g}, and one bit of each is told."
    )


def answer_page(answer: Answer, constitution: Constitution) -> str:
    """Writes the page; the same arguments give the same bytes.

    Args:
        answer: what is told.
        constitution: the constitution that the model was judged by.
    """
    word = "pass" if answer.passed else "needs_human"
    title = f"Safety answer: {constitution.id} {constitution.version}"
    promises = "".join(
        f"<li>{escape(p.id)}: {escape(p.sentence())}</li>"
        for p in constitution.principles
    )
    digests = {
        "Model": answer.model,
        "Constitution": answer.constitution,
        "Dataset": answer.dataset,
        "Holdout": answer.holdout,
    }
    judged = f"<p>Judged on {answer.rows:,} sealed rows.</p>"
    cards = {
        "Uses of the sealed rows": f"<p>{escape(left(answer))}</p>",
        "What this guarantees": f"<p>{escape(guaranteed(answer, constitution))}</p>",
        "What was promised": f"<ul>{promises}</ul>{judged}",
        "Where the figures are": f"<p>{escape(FIGURES)}</p>",
    }
    banner = ""
    if answer.ledger != OFFICIAL:
        banner = (
            f'<div class="rehearsal"><p>Of the {escape(answer.ledger)} ledger: it can '
            "never be registered; the use counts all the same.</p></div>\n"
        )
    body = (
        f'<header><p class="kind">Safety answer</p><h1>{escape(constitution.id)} '
        f"<small>constitution {escape(constitution.version)}, owned by "
        f"{escape(constitution.owner)}</small></h1></header>\n{banner}"
        f'<section class="decision {word}" aria-label="Decision"><strong>'
        f"{SHORT[answer.passed]}</strong>{escape(answer.reasons[0])}</section>\n"
    )
    body += "".join(card(head, told) for head, told in cards.items())
    body += about_card(digests)
    return framed(title, body, "from the answer beside this page.")
