"""Usefulness: does a model answer better than the same answer for everybody?

A *constant* gives one class whatever the row says; it keeps every gap at 0. Three
doubts are tested at the level of the submission, and each makes a decision at best
`needs_human` (unless the constitution says `gate.allow_constant: true`):

    no skill    it is not shown that a class is answered more often where it is true
                (TPR > FPR, the test of two rates; one class against the rest)
    one class   it is shown that of the rows that are not what the model answers most,
                fewer than `NEARLY` get another answer (Clopper-Pearson)
    worse       it is shown that the best constant is more often right (the test of two
                models); asked only where no hard promise names another measure of use

Why these three: docs/mathematical_foundations.md, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from safescale_ammt.binomial.intervals import rate_p_below
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import (
    GAPS,
    MAJORITY,
    SKILL_METRICS,
    Constraint,
)
from safescale_ammt.judging.certify import utility_p
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.group_rates import point_value
from safescale_ammt.judging.judge import paired_hits
from safescale_ammt.judging.profile import positive_code, rate
from safescale_ammt.judging.skill import TwoClassHits, area, balance

NEARLY = 0.1
"""Share of the other rows below which a model answers nearly one class."""
# As scikit-learn clips: a probability of 0 for what happened would cost infinity.
_LEAST_CHANCE = float(np.finfo(np.float64).eps)
_BEST_CONSTANT = Constraint("accuracy", ">=", reference=MAJORITY, delta=0.0)


def headline(evidence: Evidence) -> dict[str, Any]:
    """Describes how useful answers and scores are.

    Returns:
        `accuracy` and `predicted_positive` as rates with 95 % intervals;
        `balanced_accuracy`, `auc` and `log_loss` as numbers. None where there is no
        one positive class, or only one class has rows.
    """
    positive, score = positive_code(evidence), evidence.score
    figures: dict[str, Any] = {
        "accuracy": rate(evidence.prediction == evidence.label),
        "balanced_accuracy": None,
        "auc": None,
        "predicted_positive": None,
        "log_loss": None,
    }
    if (skill := balance(evidence)).has_value:
        figures["balanced_accuracy"] = float(skill.value)
    # `assembly.problems` reports scores that are no probabilities.
    if positive is None or not ((score >= 0) & (score <= 1)).all():
        return figures
    is_positive = evidence.label == positive
    figures["predicted_positive"] = rate(evidence.prediction == positive)
    if is_positive.any() and not is_positive.all():
        figures["auc"] = float(area(evidence).value)
    # In place, since each step would take the room of another column.
    chance = np.where(is_positive, score, 1 - score)
    np.log(np.maximum(chance, _LEAST_CHANCE, out=chance), out=chance)
    figures["log_loss"] = float(-chance.mean())
    return figures


def constant_answer(evidence: Evidence, base_rates: Sequence[float]) -> Evidence:
    """Returns the same rows, answered by the largest class of the training rows.

    Its score is that class's share there: the best that one number can do.
    """
    positive = positive_code(evidence)
    answer = int(np.argmax(base_rates))
    score = base_rates[answer if positive is None else positive]
    rows = len(evidence.label)
    return replace(
        evidence,
        # One number for all rows, which takes the room of one.
        prediction=np.broadcast_to(np.asarray(answer, evidence.label.dtype), rows),
        score=np.broadcast_to(np.asarray(score, np.float64), rows),
    )


def headlines(evidence: Evidence, base_rates: Sequence[float]) -> Mapping[str, Any]:
    """Describes model, twin and constant answer side by side, and names the constant.

    Args:
        evidence: the judged rows.
        base_rates: share of each class in the training rows.
    """
    assert evidence.twin_prediction is not None
    assert evidence.twin_score is not None
    twin = replace(
        evidence, prediction=evidence.twin_prediction, score=evidence.twin_score
    )
    return {
        "model": headline(evidence),
        "twin": headline(twin),
        "constant": headline(constant_answer(evidence, base_rates)),
        "answer": int(np.argmax(base_rates)),
    }


def doubts(
    evidence: Evidence, constitution: Constitution, classes: Sequence[str]
) -> tuple[str, ...]:
    """Says why a model is not, or no better than, a constant; () if nothing does.

    Args:
        evidence: the judged rows.
        constitution: names the level, and perhaps another measure of use.
        classes: names of the classes by code.
    """
    alpha = constitution.gate.alpha_k
    sentences = list(no_skill(evidence, alpha, classes))
    sentences += nearly_one_class(evidence, alpha, classes)
    hard = (p.constraint for p in constitution.hard)
    others = {c.metric for c in hard if not c.promises_nothing}
    if not others & set(SKILL_METRICS):
        sentences += worse_than_constant(evidence, alpha)
    if not sentences:
        return ()
    pair = paired_hits(evidence, _BEST_CONSTANT)
    constant = int(pair.correct - pair.only_model + pair.only_reference) / pair.rows
    sentences.append(
        f"The best constant answer is right for {constant:.4f} of the rows, the model "
        f"for {int(pair.correct) / pair.rows:.4f}."
    )
    if evidence.twin_prediction is not None:
        sentences += collapses(evidence, constitution)
    return tuple(sentences)


def other_answers(prediction: np.ndarray) -> tuple[int, float]:
    """Returns the class that is answered most, and the share of all other answers."""
    counts = np.bincount(np.maximum(prediction, 0))
    most = int(counts.argmax())
    return most, 1 - float(counts[most]) / len(prediction)


def no_skill(evidence: Evidence, alpha: float, classes: Sequence[str]) -> Iterator[str]:
    """Says that no class is shown to be answered more often where it is true."""
    most, others = other_answers(evidence.prediction)
    codes, tables = evidence.judged_classes, []
    for code in codes:
        is_class, says_class = evidence.label == code, evidence.prediction == code
        found, alarms = (says_class & is_class).sum(), (says_class & ~is_class).sum()
        n1, n0 = int(is_class.sum()), int((~is_class).sum())
        hits = TwoClassHits(np.asarray(found), np.asarray(alarms), n1, n0)
        # Several classes, one of which must show: each at its share of the level.
        if hits.shows_above(0.5, alpha / len(codes)):
            return
        tables.append(hits)
    if not others:
        yield f"The model answers {classes[most]!r} to every row, as a constant does."
        return
    one, name = tables[0], classes[codes[0]]
    skill = balance(evidence)
    if not any(hits.has_value for hits in tables):
        why = f"all or none of the rows are {name!r}"
    elif len(codes) > 1 and not skill.has_value:
        why = "a class has no rows, so that its balanced accuracy is not defined"
    elif evidence.classes == 2 or len(codes) > 1:
        value, constant = float(skill.value), 1 / evidence.classes
        why = (
            f"its balanced accuracy is {value:.4f}, that of any constant {constant:.4f}"
        )
    else:
        why = (
            f"{name!r} is its answer to {int(one.found) / one.positives:.1%} of the "
            f"rows of that class, and to {int(one.alarms) / one.negatives:.1%} of the "
            "others"
        )
    yield f"The model is not shown to answer better than a constant: {why}."


def nearly_one_class(
    evidence: Evidence, alpha: float, classes: Sequence[str]
) -> Iterator[str]:
    """Says that nearly all rows get one answer, whatever their class."""
    most, others = other_answers(evidence.prediction)
    rest = evidence.label != most
    different = int((evidence.prediction[rest] != most).sum())
    # Rows of one class alone cannot show it, and one answer alone is told as no skill.
    if (
        not rest.any()
        or not others
        or rate_p_below(different, int(rest.sum()), NEARLY) > alpha
    ):
        return
    yield (
        f"The model answers nearly one class: {classes[most]!r} to {1 - others:.1%} of "
        f"the rows; of those that are not, {different / rest.sum():.1%} get another "
        "answer."
    )


def worse_than_constant(evidence: Evidence, alpha: float) -> Iterator[str]:
    """Says that the best constant is more often right than the model."""
    p = utility_p(_BEST_CONSTANT, paired_hits(evidence, _BEST_CONSTANT), alpha)
    if p <= alpha:
        yield f"One answer for everybody is shown to be right more often (p = {p:.2g})."


def collapses(evidence: Evidence, constitution: Constitution) -> Iterator[str]:
    """Says which enforced gaps are closed by giving nearly everybody one answer."""
    assert evidence.twin_prediction is not None
    twin = replace(evidence, prediction=evidence.twin_prediction)
    # Less than half as many other answers as without the promises.
    varied = other_answers(evidence.prediction)[1], other_answers(twin.prediction)[1]
    if varied[0] * 2 >= varied[1]:
        return
    for principle in constitution.enforced:
        c = principle.constraint
        if c.metric not in GAPS:
            continue
        over = c.group, c.given
        gap, before = (point_value(c.metric, e, *over) for e in (evidence, twin))
        # A gap that is not defined is not closed.
        if gap is not None and before is not None and gap < before:
            yield (
                f"The gap of {principle.id} is closed by giving nearly everybody the "
                f"same answer: {c.metric}{c.over} is {gap:.4f}, the unconstrained "
                f"twin's {before:.4f}, but other answers fell from {varied[1]:.1%} to "
                f"{varied[0]:.1%} of the rows."
            )
