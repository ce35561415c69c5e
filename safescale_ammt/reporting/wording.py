"""Wording: the sentences that report, card and summary share.

What a decision means and what its guarantee does not say is written once, here,
so that no page can promise more than another.
"""

from __future__ import annotations

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.verdict import REHEARSAL, Verdict

HEADLINES = {
    "pass": ("Pass", "Every hard promise is shown to be kept."),
    "needs_human": (
        "Needs a person",
        (
            "No hard promise is shown to be broken, but the gate may not pass the "
            "model by itself: a person has to decide."
        ),
    ),
    "fail": ("Fail", "The gate refuses this model: it will not be registered."),
}
"""Decision -> short form and one sentence."""
METRICS = {
    "accuracy": "accuracy",
    "dp_gap": "selection-rate gap",
    "dp_ratio": "selection-rate ratio",
    "tpr_gap": "true-positive-rate gap",
    "fpr_gap": "false-positive-rate gap",
    "eo_difference": "equalized-odds difference",
    "worst_group_error": "error of the worst group",
    "calibration_error": "calibration error",
}
"""Metric -> plain name."""


def measured(finding: Finding) -> str:
    """Says what was measured, such as `true-positive-rate gap by sex`."""
    over = f" by {finding.group}" if finding.group else ""
    return METRICS[finding.metric] + over


def line(finding: Finding) -> str:
    """Says where the line is, such as `≤ 0.08`."""
    sign = "≤" if finding.op == "<=" else "≥"
    if finding.reference is None:
        return f"{sign} {finding.threshold:g}"
    less = f" − {-finding.threshold:g}" if finding.threshold else ""
    against = f"{sign} the twin's{less}"
    floor = f" and {sign} {finding.floor:g}" if finding.floor is not None else ""
    return against + floor


def rows_judged(verdict: Verdict) -> str:
    """Says whose rows they were."""
    if verdict.mode == REHEARSAL:
        return "of the select split"
    return "sealed, kept out of training"


def guarantee(verdict: Verdict, constitution: Constitution) -> str:
    """Says what the verdict guarantees, and no more."""
    if verdict.use.guarantee == "none":
        return "None: a rehearsal measures, it does not certify."
    if verdict.use.guarantee == "spent":
        return (
            f"None: this is use {verdict.use.number} of rows whose figures were "
            "readable before, so a model could have been chosen to look well on "
            "them. Such a verdict is at best one that needs a person."
        )
    return (
        "If the sealed rows are independent draws from the population of interest and "
        "their labels can be trusted, then a model that violates any rate or utility "
        "promise marked hard passes this gate automatically with probability at most "
        f"{constitution.gate.alpha:g}."
    )


def limits(verdict: Verdict) -> list[str]:
    """Says what nobody should read into it."""
    found = [
        "It is not the probability that a model that passed violates a promise.",
        (
            "It speaks of the groups that the constitution names and of the "
            "population the sealed rows come from; not of later drift, wrong labels or "
            "other groups."
        ),
        "Soft promises and calibration are reported, never certified.",
    ]
    if verdict.decision == "needs_human":
        found.append(
            "A model that a person approves although a promise is undecided carries "
            "no certificate."
        )
    return found
