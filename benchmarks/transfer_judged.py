"""Judges answers of `constraint-transfer` by the gate's own code; keeps raw counts.

The sealed rows of a re-split are judged as a benchmark's ledger would have it: as if
for the first time, and nothing can be registered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.transfer_tasks import Case
from safescale_ammt.judging.assembly import judge_all
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.gate import decide
from safescale_ammt.judging.usefulness import doubts

Scores = NDArray[Any]
CLASSES = ("<=50K", ">50K")


def judged(
    case: Case, prediction: Scores, score: Scores, twin: Scores, base: Scores
) -> dict[str, Any]:
    """Returns the decision, and the counts that every figure is derived from.

    Args:
        case: the re-split and its promise.
        prediction: answers (n,) 0 or 1.
        score: probabilities of the positive class (n,).
        twin: scores of the unconstrained twin (n,), which the gate compares with.
        base: scores of what the method wraps (n,): ours wraps its twin.
    """
    sealed = case.sealed
    evidence = Evidence(
        label=sealed.y,
        prediction=np.asarray(prediction, dtype=np.int64),
        score=np.asarray(score, dtype=np.float64),
        groups={case.task.group: (case.values, sealed.group)},
        twin_prediction=(twin >= 0.5).astype(np.int64),
        twin_score=np.asarray(twin, dtype=np.float64),
    )
    rules = case.constitution
    findings = judge_all(rules, evidence, bins=15)
    unlike = doubts(evidence, rules, CLASSES)
    decision = decide(rules, findings, guarantee="holds", doubts=unlike)
    gap, useful = findings
    right = evidence.prediction == sealed.y
    references = {"twin": twin, "base": base}
    return {
        "decision": decision.decision,
        "useful": useful.outcome,
        "rows": len(sealed),
        "right": int(right.sum()),
        "cells": cells(gap),
        "upper": gap.upper,
        "lower": gap.lower,
        **{k: paired(right, (s >= 0.5) == sealed.y) for k, s in references.items()},
    }


def cells(gap: Finding) -> dict[str, list[int]]:
    """Returns hits and rows behind each rate, by rate and group."""
    return {f"{r.of} {r.value}": [r.hits, r.trials] for r in gap.by_group}


def paired(right: NDArray[np.bool_], other: NDArray[np.bool_]) -> list[int]:
    """Counts rows that only the first gets right, and that only the other does."""
    return [int((right & ~other).sum()), int((other & ~right).sum())]


def gap_of(counts: Mapping[str, Sequence[int]]) -> tuple[float, float]:
    """Returns the widest difference of two groups' rates, signed, and its error.

    The difference is that of the last group minus the first; of several rates, as with
    equalized odds, the one that is furthest from 0.

    Args:
        counts: hits and rows by rate and group; two groups.
    """
    by_rate: dict[str, list[tuple[float, float]]] = {}
    for name, (hits, trials) in counts.items():
        rate = hits / trials
        error = rate * (1 - rate) / (trials - 1)
        by_rate.setdefault(name.partition(" ")[0], []).append((rate, error))
    differences = [(b[0] - a[0], math.sqrt(a[1] + b[1])) for a, b in by_rate.values()]
    return max(differences, key=lambda found: abs(found[0]))
