"""Shortfalls: which promises a verdict does not show to be kept, and what would help.

For the terminal, where nobody has the report open: name, bound and line of each hard
promise that fell short, then whatever else the gate held against the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.promise_warnings import promises_something
from safescale_ammt.constitution.table_threats import ENUMERATED
from safescale_ammt.files.canonical import read_json
from safescale_ammt.judging.attack_words import BATTERY, SEARCHED
from safescale_ammt.judging.findings import (
    FAILS,
    HOLDS,
    REFERENCE_NAMES,
    Finding,
    figure,
    lacks,
)
from safescale_ammt.judging.verdict import REHEARSAL, Verdict
from safescale_ammt.reporting.wording import line, measured

MANY = 100
"""Times as many rows as there are that nobody is advised to fetch."""


def shortfalls(verdict: Verdict, constitution: Constitution) -> list[str]:
    """Says why a verdict is no pass, one sentence each; nothing of one that is.

    Args:
        verdict: the verdict.
        constitution: the constitution that it was judged by.
    """
    if verdict.decision == "pass":
        return []
    hard = [f for f in verdict.findings if f.tier != "soft" and f.outcome != HOLDS]
    sentences = [
        f"{f.principle}: {shown(f)} {help_for(f, verdict, constitution)}" for f in hard
    ]
    # Each of these has just been told, or decides nothing.
    told = tuple(
        f"{f.principle} {word}"
        for f in verdict.findings
        for word in ("is undecided: ", "is violated", "is inviolable", "(soft, ")
    )
    sentences += [r for r in verdict.reasons if not r.startswith(told)]
    if not promises_something(constitution):
        sentences.append("What would help: a hard promise that a model could break.")
    if verdict.use.guarantee == "spent":
        sentences.append(
            "What would help: sealed rows that no run has judged yet, such as another "
            "data.sealed_source."
        )
    return sentences


def shortfalls_in(folder: Path) -> list[str]:
    """Says the same of a verdict artifact.

    Raises:
        InputError: it holds no verdict, or no constitution.
    """
    constitution = Constitution.from_dict(read_json(folder / "constitution.json"))
    return shortfalls(Verdict.load(folder), constitution)


def shown(finding: Finding) -> str:
    """Says what is shown of a promise beside its line, such as `0.04 <= 0.1`."""
    what = measured(finding)
    if finding.value is None:
        others = f"; among all others it is {figure(finding.known_value)}"
        told = others if finding.known_value is not None else ""
        verb = "breaks" if finding.is_broken else "does not show"
        return (
            f"{what} is not defined, as {lacks(finding)}{told}, which {verb} the "
            f"promised {line(finding)}."
        )
    if finding.too_small and not finding.is_broken:
        few = f"{finding.group} {', '.join(finding.too_small)}"
        return f"{what} is not shown {line(finding)}: too few rows of {few}."
    confidence = f"{100 * (1 - finding.alpha):g} % confidence"
    # Of a broken promise the other bound: how good the model can be at best.
    least = (finding.op == ">=") != (finding.outcome == FAILS)
    bound = finding.lower if least else finding.upper
    side = "at least" if least else "at most"
    if finding.reference is not None:
        what += f" minus that of the {REFERENCE_NAMES[finding.reference]}"
    value = f"{what} is {finding.value:.4f}, {side} {figure(bound)} with {confidence}"
    if finding.floor is not None and finding.outcome != FAILS:
        model = finding.by_group[0]
        value += f"; the model's own is at least {figure(model.lower)}"
    verb = "breaks" if finding.is_broken else "does not show"
    return f"{value}, which {verb} the promised {line(finding)}."


def help_for(finding: Finding, verdict: Verdict, constitution: Constitution) -> str:
    """Says what would help a promise that is not shown to be kept."""
    rows = "rows of *select*" if verdict.mode == REHEARSAL else "sealed rows"
    rule = constitution.groups
    if finding.too_small and not finding.is_broken:
        return (
            f"What would help: more {rows} of these groups, at least {rule.min_n} of "
            f"each with {rule.min_pos} positives (or negatives), or data.merges."
        )
    if finding.value is None and not finding.is_broken:
        if finding.metric in ("precision", "dp_ratio"):
            return "What would help: a rule for training.threshold, or another model."
        return f"What would help: {rows} of the classes that are absent."
    if finding.method == SEARCHED and not finding.is_broken:
        return (
            f"No search shows that a promise is kept. What would help: a threat of at "
            f"most {ENUMERATED} changes, of which every one is tried, or a person."
        )
    if finding.method.startswith(BATTERY) and finding.lower == 0:
        return (
            "Nothing is shown by a battery of tier smoke, or whose checks are raised. "
            "What would help: tier full or release, a model that hides no slopes, or a "
            "person."
        )
    times = rows_factor(finding)
    if times is not None:
        more = f"about {times:.2g} times as many {rows}"
        if times > MANY:
            more = "a model further inside the line, rather than more rows"
        return f"The measured value keeps the promise. What would help: {more}."
    principle = constitution.principle(finding.principle)
    if not principle.enforce and not principle.constraint.untrainable:
        return "What would help: `train: {enforce: true}` on it, or a wider threshold."
    return (
        "The model itself misses the line, and more rows would show just that. What "
        "would help: more training.steps or search.candidates, other inputs, or a "
        "wider threshold."
    )


def rows_factor(finding: Finding) -> float | None:
    """Estimates how many times as many rows would show that a promise is kept.

    A bound comes closer to the value as one over the root of the rows. It is an
    estimate, the power check's is the exact one.

    Returns:
        The factor, above 1; None if the measured value itself breaks the promise.
    """
    factors = [1.0]
    if finding.value is None:
        return None
    for value, bound, threshold in margins(finding):
        if value <= threshold or finding.outcome == FAILS:
            return None
        factors.append(((value - bound) / (value - threshold)) ** 2)
    return max(factors)


def margins(finding: Finding) -> Iterator[tuple[float, float, float]]:
    """Yields value, bound and line of each limit, turned so that more is better."""
    sign, bound = 1.0, finding.lower
    if finding.op == "<=":
        sign, bound = -1.0, finding.upper
    if finding.value is not None and bound is not None:
        yield sign * finding.value, sign * bound, sign * finding.threshold
    if finding.floor is not None and finding.by_group:
        model = finding.by_group[0]
        if model.rate is not None and model.lower is not None:
            yield model.rate, model.lower, finding.floor
