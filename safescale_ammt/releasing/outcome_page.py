"""The page of how a run ended: the reason first, then promises, then where to look.

KFP shows it at the root of a run's graph, after a failed run too, where a refusal and
a crash are the same red mark; `safescale run` writes it into the run's folder.
"""

from __future__ import annotations

from safescale_ammt.judging.findings import FAILS, Finding, figure
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.printable import printable_lines
from safescale_ammt.reporting.markdown import plain
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
from safescale_ammt.reporting.wording import line, measured

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


def promises_shown(verdict: Verdict) -> tuple[PromiseShown, ...]:
    """Returns the hard promises of a verdict, in its order."""
    return tuple(
        PromiseShown(
            f.principle, f"{measured(f)} {line(f)}", value_and_bound(f), f.outcome
        )
        for f in verdict.findings
        if f.tier != "soft"
    )


def value_and_bound(finding: Finding) -> str:
    """Writes what was measured and the bound that decides, as `0.02 (≤ 0.05)`.

    With a floor, the model's own value and its bound follow: the promise may fail by
    it alone.
    """
    # Of a broken promise the other bound: how good the model can be at best.
    least = (finding.op == ">=") != (finding.outcome == FAILS)
    bound, sign = (finding.lower, "≥") if least else (finding.upper, "≤")
    text = figure(finding.value)
    text += "" if bound is None else f" ({sign} {figure(bound)})"
    if finding.floor is not None and finding.by_group:
        model = finding.by_group[0]
        bound = model.lower if least else model.upper
        text += f"; itself {figure(model.rate)}"
        text += "" if bound is None else f" ({sign} {figure(bound)})"
    return text


def outcome_page(outcome: RunOutcome, where: str) -> str:
    """Writes the page.

    Args:
        outcome: how the run ended.
        where: where to look further, one sentence of our own in Markdown.
    """
    head = _HEADS.get(outcome.status, outcome.status.replace("_", " ").capitalize())
    parts = [f"# {head}", plain(outcome.sentence)]
    if outcome.promises:
        rows = [
            "| promise | promised | measured (bound) | shown |",
            "|---|---|---|---|",
        ]
        rows += [
            f"| {plain(p.principle)} | {plain(p.promised)} | {plain(p.measured)} "
            f"| **{plain(p.outcome)}** |"
            for p in outcome.promises
        ]
        parts.append("\n".join(rows))
    return printable_lines("\n\n".join([*parts, where]) + "\n")
