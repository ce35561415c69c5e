"""Profiles: what model and twin do on the judged rows, described, not judged.

A *profile* describes one of the two: accuracy, each group's rates, gaps,
calibration, confusion. Its intervals are two-sided 95 % Clopper-Pearson
intervals for one rate at a time; only findings (`judge.judge`) carry bounds
that the gate may lean on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.constitution.principles import GAPS
from safescale_ammt.data.counts import LEAST_SHOWN
from safescale_ammt.judging.calibration import bin_edges, calibration_error
from safescale_ammt.judging.evidence import Evidence, code_type, parts_of
from safescale_ammt.judging.group_rates import point_value

# Error level of either end of a descriptive interval: 95 % between them.
LEVEL = 0.025
ROC_POINTS = 50
"""Most points of a ROC curve: a page draws no more, and metadata hold each of them."""


def profile(evidence: Evidence, bins: int, *, parity: bool = True) -> dict[str, Any]:
    """Describes the predictions in `evidence` (pass the twin's as its own).

    Args:
        evidence: n rows; `prediction` and `score` are described.
        bins: equal-mass bins of the reliability curve.
        parity: whether each group has its precision, by which predictive parity is
            seen; a verdict of before there were slices has none.

    Returns:
        JSON-ready figures: `accuracy` {value, lower, upper, n}; `groups` name ->
        {rates: [...], gaps: {metric: value}}; `calibration` (None unless there
        is one positive class and all scores are probabilities); `confusion` counts by
        [label][prediction].
    """
    groups: dict[str, Any] = {}
    positive = positive_code(evidence)
    for name, (values, codes) in evidence.groups.items():
        gaps: dict[str, float | None] = {}
        for metric in (*GAPS, "worst_group_error"):
            gaps[metric] = point_value(metric, evidence, name)
        rates = []
        for code, value in enumerate(values):
            inside = codes == code
            label, prediction = evidence.label[inside], evidence.prediction[inside]
            entry: dict[str, Any] = {"value": value, "n": int(inside.sum())}
            if positive is not None:
                true, chosen = label == positive, prediction == positive
                entry["n_pos"] = int(true.sum())
                entry["selection"] = rate(chosen)
                entry["tpr"] = rate(chosen[true])
                entry["fpr"] = rate(chosen[~true])
                if parity:
                    entry["precision"] = rate(true[chosen])
            entry["error"] = rate(prediction != label)
            rates.append(entry)
        groups[name] = {"rates": rates, "gaps": gaps}
    return {
        "accuracy": rate(evidence.prediction == evidence.label),
        "groups": groups,
        "calibration": _reliability(evidence, bins),
        "confusion": confusion(evidence),
    }


def rate(hits: np.ndarray) -> dict[str, Any]:
    """Describes the share of true values, with its interval (None of no rows)."""
    n, x = len(hits), int(hits.sum())
    if not n:
        return {"value": None, "lower": None, "upper": None, "n": 0}
    lower, upper = clopper_pearson(x, n, LEVEL)
    return {"value": x / n, "lower": lower, "upper": upper, "n": n}


def positive_code(evidence: Evidence) -> int | None:
    """Returns the code of the one class that rates are taken of, if there is one."""
    codes = evidence.judged_classes
    return codes[0] if len(codes) == 1 else None


def _reliability(evidence: Evidence, bins: int) -> dict[str, Any] | None:
    """Reliability curve on bins of equal mass, as `calibration_error` cuts them.

    `spread` counts scores in as many bins of equal width, for a histogram.
    """
    score, positive = evidence.score, positive_code(evidence)
    # `assembly.problems` reports a score out of bounds; here it has no bin.
    if positive is None or not ((score >= 0) & (score <= 1)).all():
        return None
    edges, bin_of = bin_edges(score, bins), np.empty(len(score), code_type(bins))
    for place, part in zip(parts_of(bin_of), parts_of(score), strict=True):
        place[:] = np.searchsorted(edges, part, side="right")
    curve = []
    for b in range(len(edges) + 1):
        if (inside := bin_of == b).any():
            entry = rate(evidence.label[inside] == positive)
            curve.append({**entry, "score": float(score[inside].mean())})
    spread = np.histogram(score, bins=bins, range=(0, 1))[0]
    return {
        "error": calibration_error(evidence, bins=bins),
        "bins": curve,
        "spread": [int(n) for n in spread],
    }


def confusion(evidence: Evidence) -> list[list[int]]:
    """Counts rows by [label][prediction]."""
    classes = evidence.classes
    cells = np.zeros(classes * classes, np.int64)
    columns = (evidence.label, evidence.prediction)
    for label, prediction in zip(*map(parts_of, columns), strict=True):
        # `assembly.problems` reports predictions of other classes; they have no cell.
        listed = (prediction >= 0) & (prediction < classes)
        # A cell's number may be beyond the type of a code.
        cell = label[listed].astype(np.int64) * classes + prediction[listed]
        cells += np.bincount(cell, minlength=len(cells))
    return [[int(n) for n in row] for row in cells.reshape(classes, classes)]


def roc(
    evidence: Evidence, most: int = ROC_POINTS, least: int = LEAST_SHOWN
) -> dict[str, list[float]] | None:
    """Points of the ROC curve of the positive class, finite and at most `most`.

    Starts at (0, 0). None where all rows or none are of that class: one of the two
    rates is not defined. A page shows them, so they tell of no row by itself: between
    two points lie at least `least` rows, and no threshold is the score of one.
    """
    is_positive = evidence.label == positive_code(evidence)
    if is_positive.all() or not is_positive.any():
        return None
    # The smallest last; a score's rows are one run, whose order changes no point.
    below = -np.asarray(evidence.score, np.float64)
    own = below[is_positive]
    below.sort()
    own.sort()
    rows, last, before = len(below), [], 0
    step = max(least, math.ceil(rows / (most - 2)))
    while before < rows:
        # At the last row of a score alone: those of one score are accepted together.
        near = min(before + step, rows)
        end = int(np.searchsorted(below, below[near - 1], "right"))
        if rows - end < least:
            end = rows
        last.append(end - 1)
        before = end
    hits, inner = np.searchsorted(own, below[last], "right"), np.array(last[:-1], int)
    alarms = np.array(last) + 1 - hits
    # The middle to the next score accepts the same rows; scikit-learn's infinity for
    # the first is no number that an artifact's metadata can hold.
    middle = -(below[inner] + below[inner + 1]) / 2
    ends = (1.0 + math.ceil(-below[0]), float(math.floor(-below[-1])))
    positives = len(own)
    return {
        "fpr": [0.0, *(alarms / (rows - positives)).tolist()],
        "tpr": [0.0, *(hits / positives).tolist()],
        "threshold": [ends[0], *middle.tolist(), ends[1]],
    }


def describe(
    evidence: Evidence, bins: int, *, parity: bool = True
) -> Mapping[str, Any]:
    """Profiles model and twin side by side; the arguments are those of `profile`."""
    prediction, score = evidence.twin_prediction, evidence.twin_score
    # A verdict's evidence always has a twin: its columns are required in the table.
    assert prediction is not None
    assert score is not None
    twin = replace(evidence, prediction=prediction, score=score)
    sides = {"model": evidence, "twin": twin}
    return {who: profile(own, bins, parity=parity) for who, own in sides.items()}
