"""Wording: the sentences that report, card and summary share.

What a decision means and what its guarantee does not say is written here alone,
so that no page can promise more than another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import (
    CORRUPTED,
    MAJORITY,
    ROBUST,
    TWIN,
    Constraint,
)
from safescale_ammt.constitution.promise_warnings import NOTHING, promises_something
from safescale_ammt.data.counts import LEAST_SHOWN
from safescale_ammt.data.schema import ENTITIES, RECORDS, ROWS
from safescale_ammt.judging.attack_words import BATTERY, told
from safescale_ammt.judging.findings import HOLDS, Finding, figure
from safescale_ammt.judging.sampling_model import units_in_words
from safescale_ammt.judging.verdict import REHEARSAL, Verdict

HEADLINES = {
    "pass": "Every hard promise is shown to be kept.",
    "some": (
        "Every hard promise that a model could break is shown to be kept; others "
        "promise nothing."
    ),
    "empirical": (
        "Every hard promise is shown to be kept, that of robust accuracy on images as "
        "far as its battery goes."
    ),
    "nothing": (
        "No hard promise is made that a model could break, so that nothing was tested: "
        "the model stays pending and is not served."
    ),
    "needs_human": (
        "No hard promise is shown to be broken, but not every one is shown to be kept: "
        "the model stays pending and is not served."
    ),
    "kept": (
        "The figures keep every hard promise, but that alone is no pass here: the "
        "model stays pending and is not served."
    ),
    "fail": "The gate refuses this model: it will not be registered.",
}
"""Decision -> one sentence. `some`: a pass where some hard promises promise nothing;
`empirical`: a pass where one is of what survives a battery;
`kept`: no pass, but not for want of a promise; `nothing`: for want of any promise."""
SHORT = {"pass": "Pass", "needs_human": "Needs a person", "fail": "Fail"}
"""Decision -> the same in a word or three."""
METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "dp_gap": "selection-rate gap",
    "dp_ratio": "selection-rate ratio",
    "tpr_gap": "true-positive-rate gap",
    "fpr_gap": "false-positive-rate gap",
    "eo_difference": "equalized-odds difference",
    "worst_group_error": "error of the worst group",
    "calibration_error": "calibration error",
    "robust_accuracy": "robust accuracy",
    "certified_accuracy": "certified accuracy",
    "corruption_accuracy": "accuracy under corruptions",
    "attack_sanity_flags": "raised checks of an attack",
}
"""Metric -> plain name."""
DRAWS = {
    ROWS: "the sealed rows are independent draws from",
    RECORDS: "the distinct sealed records are independent draws from those of",
    ENTITIES: "the sealed entities, one random row of each, are independent draws from",
}
"""Sampling unit -> what is assumed of the sealed rows."""
HEADLINE_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "predicted_positive": "answered positive",
    "log_loss": "log loss",
}
"""Figure of use -> plain name, in the order of the headline."""
MEANS = (
    # That would need a prior over models: alpha is P(pass | violated).
    "It is not the probability that a model that passed violates a promise.",
    (
        "It speaks of the groups that the constitution names and of the population the "
        "sealed rows come from; not of later drift, wrong labels or other groups."
    ),
)
"""What a guarantee does not say."""
OF_BATTERIES = (
    "Of robust accuracy on images that is the share which survives the battery named, "
    "not the share which survives every attack."
)
"""What a guarantee means for a promise that a battery tests."""
_OF_EVERY_TASK = ("accuracy", "balanced_accuracy")
REFERENCES = {TWIN: "the twin's", MAJORITY: "the best constant's"}
"""Reference -> whose accuracy the line is drawn from."""
SIGNS = {"<=": "≤", ">=": "≥"}
"""Side of a line that is allowed -> how pages write it."""
RATES = {
    "selection": "Selected",
    "tpr": "True positives found",
    "fpr": "False alarms",
    "precision": "Precision",
    "error": "Errors",
}
"""Rate of a group -> heading, in the order of charts and tables."""


def decided(verdict: Verdict) -> tuple[str, str]:
    """Says what was decided, in short and in one sentence."""
    key = verdict.decision
    # A model that answers as a constant does may keep every promise, and so may one
    # that is judged on rows whose figures were read.
    hard = [f for f in verdict.findings if f.tier != "soft"]
    empty = [f for f in hard if f.promises_nothing]
    if key == "pass" and any(f.method.startswith(BATTERY) for f in hard):
        key = "empirical"
    elif key == "pass" and empty:
        key = "some"
    elif key == "needs_human" and len(empty) == len(hard):
        key = "nothing"
    elif key == "needs_human" and all(f.outcome == HOLDS for f in hard):
        key = "kept"
    sentence = HEADLINES[key]
    if verdict.mode == REHEARSAL and verdict.decision != "pass":
        # Nothing of a rehearsal is ever registered, whatever is decided.
        sentence = sentence.split(":")[0] + "."
    return SHORT[verdict.decision], sentence


def reasons_told(verdict: Verdict) -> list[str]:
    """Returns the reasons that stand below `decided`, without what it says itself."""
    # The first reason of a pass says what the headline says.
    first = 1 if verdict.decision == "pass" else 0
    return [reason for reason in verdict.reasons[first:] if reason != NOTHING]


def told_figures(verdict: Verdict, figures: Mapping[str, Any]) -> list[str]:
    """Returns which figures of use a page tells, those that are not defined too.

    Args:
        verdict: the verdict.
        figures: the model's; an older verdict has fewer.
    """
    # Of several classes without a positive one most have no meaning at all.
    one_class = bool(verdict.positive) or len(verdict.classes) == 2
    told = HEADLINE_FIGURES if one_class else _OF_EVERY_TASK
    return [key for key in told if key in figures]


def measured(finding: Finding | Constraint) -> str:
    """Says what is measured, such as `true-positive-rate gap by sex`."""
    group = f" by {finding.group}" if finding.group else ""
    given = f" given {finding.given}" if finding.given else ""
    under = f" under {finding.attack}" if finding.attack else ""
    return METRICS[finding.metric] + group + given + under


def line(finding: Finding | Constraint) -> str:
    """Says where the line is, such as `≤ 0.08`."""
    sign = SIGNS[finding.op]
    # Beside a reference the difference that is allowed, negative for a loss.
    at = finding.line if isinstance(finding, Constraint) else finding.threshold
    if finding.reference is None:
        return f"{sign} {at:g}"
    less = f" − {-at:g}" if at < 0 else ""
    less = f" + {at:g}" if at > 0 else less
    floor = f" and {sign} {finding.floor:g}" if finding.floor is not None else ""
    return f"{sign} {REFERENCES[finding.reference]}{less}{floor}"


def rows_judged(verdict: Verdict) -> str:
    """Says where the judged rows come from."""
    unit = verdict.sampling.unit if verdict.sampling else ROWS
    one_each = "one of each entity, " if unit == ENTITIES else ""
    if verdict.mode == REHEARSAL:
        return f"{one_each}of the select split"
    return f"{one_each}sealed, kept out of training"


def guarantee(verdict: Verdict, constitution: Constitution) -> str:
    """Says what the verdict guarantees, and no more.

    The statement is that of section 6 of docs/mathematical_foundations.md.
    """
    if not promises_something(constitution):
        return "None: no hard promise is made that a model could break."
    if verdict.use.guarantee == "none":
        return "None: a rehearsal measures, it does not certify."
    if verdict.use.guarantee == "spent":
        return (
            f"None: this is use {verdict.use.number} of rows whose figures were "
            "readable before, so a model could have been chosen to look well on "
            "them. Such a verdict is at best one that needs a person."
        )
    unit = verdict.sampling.unit if verdict.sampling else ROWS
    return false_pass(unit, constitution)


def false_pass(unit: str, constitution: Constitution) -> str:
    """Says how likely a false pass is at most, over all planned submissions."""
    empirical = any(p.constraint.empirical for p in constitution.hard)
    # The gate's whole alpha, not this submission's share: the shares of all planned
    # submissions add up to it. The condition is on the model, not on its passing.
    return (
        f"If {DRAWS[unit]} the population of interest and "
        "their labels can be trusted, then a model that violates any rate or utility "
        "promise marked hard passes this gate automatically with probability at most "
        f"{constitution.gate.alpha:g}."
    ) + f" {OF_BATTERIES}" * empirical


def in_one_sentence(verdict: Verdict, constitution: Constitution) -> str:
    """Says guarantee and limits in one sentence, for who reads no further."""
    whole = guarantee(verdict, constitution)
    if whole.startswith("None"):
        return f"None{whole.removeprefix('None').split('. ')[0].rstrip('.')}."
    unit = verdict.sampling.unit if verdict.sampling else ROWS
    empirical = any(p.constraint.empirical for p in constitution.hard)
    attacks = "attacks that its battery does not have, " if empirical else ""
    return (
        f"If {DRAWS[unit]} the population of interest and their labels can be trusted, "
        "a model that violates a hard rate or utility promise passes by itself with "
        f"probability at most {constitution.gate.alpha:g}; this is no probability "
        f"about the model at hand, and says nothing of {attacks}drift, wrong labels or "
        "groups that the constitution does not name."
    )


def sampled(verdict: Verdict) -> list[str]:
    """Says what the judged rows are draws of, and how many draws there are.

    Nothing of a verdict that does not state it.
    """
    if not (model := verdict.sampling):
        return []
    drawn = units_in_words(model.unit, model.units)
    if model.unit == ENTITIES:
        law = (
            f" (of {model.rows:,}), drawn by a hash that nobody chooses: a rate is "
            "that of a random row of a random entity, however many rows it has"
        )
    elif model.unit == RECORDS:
        law = (
            ": equal rows are taken for copies of one record; people who are equal "
            "would be counted once"
        )
    else:
        law = (
            f", {model.distinct:,} of them distinct: equal rows are taken for "
            "independent people, not for copies"
        )
    return [f"Sampling model: the effective sample size is {drawn}{law}."]


def limits(verdict: Verdict, constitution: Constitution) -> list[str]:
    """Says what nobody should read into the guarantee, if there is one."""
    soft = "Soft promises and calibration are reported, never certified."
    attacked = [f for f in verdict.findings if f.attack is not None]
    sentences = [*sampled(verdict), soft]
    if not guarantee(verdict, constitution).startswith("None"):
        sentences = [*sampled(verdict), *MEANS, soft]
    metrics = {f.metric for f in attacked}
    if metrics - {CORRUPTED}:
        name = "Robust accuracy" if metrics == {ROBUST} else "Accuracy under attack"
        sentences.append(
            f"{name} speaks of the changes that its threat permits, and of no other."
        )
    if CORRUPTED in metrics:
        sentences.append(
            "Accuracy under corruptions speaks of the kinds and severities that are "
            "drawn from, and of no others."
        )
    notes = ((f, told(f, verdict.rows).strip()) for f in attacked)
    sentences += [f"{f.principle}: {note}" for f, note in notes if note]
    if verdict.decision == "needs_human":
        sentences.append(
            "A model that is used although it is pending carries no certificate."
        )
    return sentences


def ends(lower: float | None, upper: float | None) -> str:
    """Writes the two bounds of a number, or that nothing bounds it."""
    if lower is None and upper is None:
        return "no bounds"
    return f"{figure(lower)} to {figure(upper)}".replace("not defined", "no bound")


def percent(value: float | None) -> str:
    """Writes a share, or that there is none."""
    return figure(value) if value is None else f"{value * 100:.2f} %"


def interval(rate: Mapping[str, Any]) -> str:
    """Writes a rate's two ends, or that it is a share of no rows.

    Args:
        rate: `value`, `lower` and `upper`, as `judging.profile` writes them.
    """
    if rate["value"] is None:
        return "no rows"
    return f"{rate['lower'] * 100:.2f} to {rate['upper'] * 100:.2f} %"


def without_few(rates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out the values of shares of so few rows that they tell of persons.

    Args:
        rates: a group's value, and the rates by kind, each of n rows.
    """
    return [
        {
            kind: {**rate, "value": None}
            if isinstance(rate, dict) and rate["n"] < LEAST_SHOWN
            else rate
            for kind, rate in group.items()
        }
        for group in rates
    ]


def rows_told(rows: int) -> str:
    """Spells a number of rows, few of them without the number."""
    return f"under {LEAST_SHOWN}" if rows < LEAST_SHOWN else f"{rows:,}"
