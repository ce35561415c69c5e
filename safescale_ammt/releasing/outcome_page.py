"""The page of how a run ended: the reason first, then promises, then where to look.

KFP shows it at the root of a run's graph, after a failed run too, where a refusal and
a crash are the same red mark; `safescale run` writes it into the run's folder.
"""

from __future__ import annotations

from safescale_ammt.judging.answer import Told
from safescale_ammt.judging.findings import FAILS, figure
from safescale_ammt.printable import printable_lines
from safescale_ammt.releasing.notice import CANCELLED, UNFINISHED
from safescale_ammt.releasing.run_outcome import (
    CHAMPION,
    CRASHED,
    NOT_REGISTERED,
    PENDING,
    REFUSED,
    PromiseShown,
    RunOutcome,
)
from safescale_ammt.reporting.markdown import plain, table
from safescale_ammt.reporting.measure_bar import Measure, measures_of
from safescale_ammt.reporting.wording import SIGNS, line, measured

PAGE = "outcome.md"
_HEADS = {
    CHAMPION: "Champion: the model is served from now on",
    PENDING: "Pending: a person decides",
    REFUSED: "Refused: the gate said no, nothing broke",
    NOT_REGISTERED: "Rehearsal: nothing was registered",
    CRASHED: "Broke off before the gate",
    CANCELLED: "Stopped before the gate",
    UNFINISHED: "Did not reach its gate",
}
"""Status -> what it means, for the first line; another one is its own word."""


def promises_shown(verdict: Told) -> tuple[PromiseShown, ...]:
    """Returns the hard promises of a verdict, in its order; none of an answer."""
    rows = []
    for f in verdict.findings:
        if f.tier == "soft":
            continue
        own, *floors = measures_of(f)
        promised = f"{measured(f)} {line(f)}"
        rows.append(PromiseShown(f.principle, promised, shown_beside(own), f.outcome))
        # It may fail by its floor alone, which then has to stand there.
        for floor in floors:
            limit = f"{floor.label} {SIGNS[floor.op]} {floor.line:g}"
            name = f"{f.principle}: floor"
            rows.append(PromiseShown(name, limit, shown_beside(floor), floor.outcome))
    return tuple(rows)


def shown_beside(measure: Measure) -> str:
    """Writes what was measured and the bound that decides, as `0.0210 (≤ 0.0530)`."""
    # Of a broken promise the other bound: how good the model can be at best.
    least = (measure.op == ">=") != (measure.outcome == FAILS)
    bound, sign = (measure.lower, "≥") if least else (measure.upper, "≤")
    return figure(measure.value) + ("" if bound is None else f" ({sign} {bound:.4f})")


def outcome_page(outcome: RunOutcome, where: str) -> str:
    """Writes the page.

    Args:
        outcome: how the run ended.
        where: where to look further, one sentence of our own in Markdown.
    """
    head = _HEADS.get(outcome.status, outcome.status.replace("_", " ").capitalize())
    parts = [f"# {head}", plain(outcome.sentence)]
    if outcome.promises:
        cells = [
            (p.principle, p.promised, p.measured, p.outcome) for p in outcome.promises
        ]
        heads = ("promise", "promised", "measured (bound)", "shown")
        rows = [(plain(a), plain(b), plain(c), f"**{d}**") for a, b, c, d in cells]
        parts.append(table(heads, rows).rstrip())
    return printable_lines("\n\n".join([*parts, where]) + "\n")
