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
from safescale_ammt.judging.calibration import calibration_error
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.group_rates import point_value

# Error level of either end of a descriptive interval: 95 % between them.
LEVEL = 0.025
ROC_POINTS = 50
"""Most points of a ROC curve: a page draws no more, and metadata hold each of them."""


def profile(evidence: Evidence, bins: int) -> dict[str, Any]:
    """Describes the predictions in `evidence` (pass the twin's as its own).

    Args:
        evidence: n rows; `prediction` and `score` are described.
        bins: equal-mass bins of the reliability curve.

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
    quantiles = np.quantile(score, np.arange(1, bins) / bins, method="lower")
    bin_of = np.searchsorted(np.unique(quantiles), score, side="right")
    curve = []
    for b in np.unique(bin_of):
        entry = rate(evidence.label[bin_of == b] == positive)
        curve.append({**entry, "score": float(score[bin_of == b].mean())})
    spread = np.histogram(score, bins=bins, range=(0, 1))[0]
    return {
        "error": calibration_error(evidence, bins=bins),
        "bins": curve,
        "spread": [int(n) for n in spread],
    }


def confusion(evidence: Evidence) -> list[list[int]]:
    """Counts rows by [label][prediction]."""
    label, prediction = evidence.label, evidence.prediction
    classes = evidence.classes
    # `assembly.problems` reports predictions of other classes; they have no cell.
    listed = (prediction >= 0) & (prediction < classes)
    cells = np.bincount(
        (label * classes + prediction)[listed], minlength=classes * classes
    )
    return [[int(n) for n in row] for row in cells.reshape(classes, classes)]


def roc(
    evidence: Evidence, most: int = ROC_POINTS, least: int = LEAST_SHOWN
) -> dict[str, list[float]] | None:
    """Points of the ROC curve of the positive class, finite and at most `most`.

    Starts at (0, 0). None where all rows or none are of that class: one of the two
    rates is not defined. A page shows them, so they tell of no row by itself: between
    two points lie at least `least` rows, and no threshold is the score of one.
    """
    # Sorted stably, so that equal scores keep the rows' order on every machine.
    order = np.argsort(-evidence.score, kind="stable")
    score, positive = (
        evidence.score[order].astype(np.float64),
        evidence.label[order] == positive_code(evidence),
    )
    if positive.all() or not positive.any():
        return None
    rows, last, before = len(score), [], 0
    step = max(least, math.ceil(rows / (most - 2)))
    # At the last row of a score alone: those of one score are accepted together.
    for end in (*(np.flatnonzero(np.diff(score)) + 1).tolist(), rows):
        if end == rows or (end - before >= step and rows - end >= least):
            last.append(end - 1)
            before = end
    # The middle to the next score accepts the same rows; scikit-learn's infinity for
    # the first is no number that an artifact's metadata can hold.
    middle = (score[last[:-1]] + score[np.array(last[:-1], int) + 1]) / 2
    ends = (1.0 + math.ceil(score[0]), float(math.floor(score[-1])))
    hits, alarms = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return {
        "fpr": [0.0, *(alarms / (~positive).sum()).tolist()],
        "tpr": [0.0, *(hits / positive.sum()).tolist()],
        "threshold": [ends[0], *middle.tolist(), ends[1]],
    }


def describe(evidence: Evidence, bins: int) -> Mapping[str, Any]:
    """Profiles model and twin side by side."""
    prediction, score = evidence.twin_prediction, evidence.twin_score
    # A verdict's evidence always has a twin: its columns are required in the table.
    assert prediction is not None
    assert score is not None
    twin = replace(evidence, prediction=prediction, score=score)
    return {"model": profile(evidence, bins), "twin": profile(twin, bins)}
