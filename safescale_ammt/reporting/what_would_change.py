"""What would change a decision: how far each promise is from another outcome.

Estimates for a reader, from the verdict alone: a bound is taken to keep its distance
from the value, and to come closer to it as one over the root of the rows. What decides
is the test, and the power check is the exact answer about rows.
"""

from __future__ import annotations

import math

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.findings import HOLDS, Finding
from safescale_ammt.judging.verdict import REHEARSAL, Verdict
from safescale_ammt.reporting.shortfalls import help_for, margins


def promise_would_change(
    finding: Finding, verdict: Verdict, constitution: Constitution
) -> str:
    """Says what would give one promise another outcome, "" where nothing could."""
    if finding.promises_nothing:
        return ""
    if finding.outcome != HOLDS:
        return help_for(finding, verdict, constitution)
    limits = [limit for limit in margins(finding) if limit[0] > limit[2]]
    if not limits:
        return ""
    value, bound, line = min(limits, key=room)
    # Back from "more is better" to the scale of the page.
    sign = -1.0 if finding.op == "<=" else 1.0
    beyond = "above" if finding.op == "<=" else "below"
    last = sign * (line + value - bound)
    rows = math.ceil(verdict.rows * ((value - bound) / (value - line)) ** 2)
    return (
        f"It would be undecided at a measured value {beyond} about {last:.4f} on as "
        f"many rows, or at this value ({sign * value:.4f}) on fewer than about "
        f"{max(rows, 1):,} of the {verdict.rows:,} rows."
    )


def room(limit: tuple[float, float, float]) -> float:
    """Returns how often the distance from value to bound fits between bound and line.

    Args:
        limit: value, bound and line, turned so that more is better.
    """
    value, bound, line = limit
    return (bound - line) / max(value - bound, 1e-12)


def decision_would_change(verdict: Verdict, constitution: Constitution) -> str:
    """Says in a sentence or two what would change the decision."""
    hard = [f for f in verdict.findings if f.tier != "soft" and not f.promises_nothing]
    if verdict.decision == "pass":
        kept = [(min(map(room, m)), f) for f in hard if (m := [*margins(f)])]
        if not kept:
            return ""
        _, nearest = min(kept, key=lambda pair: pair[0])
        told = promise_would_change(nearest, verdict, constitution)
        return f"The promise with the least room is {nearest.principle}. {told}"
    broken = [f.principle for f in hard if f.is_broken]
    unshown = [f.principle for f in hard if f.outcome != HOLDS and not f.is_broken]
    sentences = []
    if broken:
        sentences.append(
            f"Another model, one that keeps {', '.join(broken)}: more rows would show "
            "the same."
        )
    elif unshown:
        one = "it" if len(unshown) == 1 else "one of them"
        sentences.append(
            f"It would be a pass if {', '.join(unshown)} were shown to be kept, and a "
            f"fail if {one} were shown to be broken."
        )
    if verdict.use.guarantee == "spent":
        sentences.append(
            "Sealed rows that no run has judged would renew the guarantee."
        )
    if verdict.decision == "needs_human" and verdict.mode != REHEARSAL:
        sentences.append("What people may decide, and would answer for, stands below.")
    if verdict.decision == "fail":
        sentences.append("No person can approve a model that fails.")
    return " ".join(sentences)
