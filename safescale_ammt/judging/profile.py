"""Measures: what model and twin do on the judged rows, described, not judged.

A *profile* describes one of the two: accuracy, each group's rates, gaps,
calibration, confusion. Its intervals are two-sided 95 % Clopper-Pearson
intervals for one rate at a time; only findings (`fairness.judge`) carry bounds
that the gate may lean on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.constitution.principles import GAPS
from safescale_ammt.judging.calibration import calibration_error
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.group_rates import point_value

LEVEL = 0.025
"""Error level of either end of a descriptive interval: 95 % between them."""


def profile(evidence: Evidence, bins: int) -> dict[str, Any]:
    """Describes the predictions in `evidence` (pass the twin's as its own).

    Args:
        evidence: n rows; `prediction` and `score` are described.
        bins: equal-width bins of the reliability curve.

    Returns:
        JSON-ready figures: `accuracy` {value, lower, upper, n}; `groups` name ->
        {rates: [...], gaps: {metric: value}}; `calibration` (None unless there
        is one positive class and all scores are probabilities); `confusion` counts by
        [label][prediction].
    """
    right = evidence.prediction == evidence.label
    positive = positive_code(evidence)
    return {
        "accuracy": rate(right),
        "groups": {
            name: {
                "rates": _rates(evidence, name, positive),
                "gaps": _gaps(evidence, name),
            }
            for name in evidence.groups
        },
        "calibration": _calibration(evidence, positive, bins),
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


def _rates(evidence: Evidence, name: str, positive: int | None) -> list[dict[str, Any]]:
    values, codes = evidence.groups[name]
    found = []
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
        found.append(entry)
    return found


def _gaps(evidence: Evidence, name: str) -> dict[str, float | None]:
    """Point values of every gap; None where a group's rate is undefined."""
    found: dict[str, float | None] = {}
    for metric in (*GAPS, "worst_group_error"):
        value = point_value(metric, evidence, name)
        found[metric] = float(value) if np.isfinite(value) else None
    return found


def _calibration(
    evidence: Evidence, positive: int | None, bins: int
) -> dict[str, Any] | None:
    """Reliability curve on bins of equal mass, as `calibration_error` cuts them.

    `spread` counts scores in as many bins of equal width, for a histogram.
    """
    score = evidence.score
    if positive is None or not ((score >= 0) & (score <= 1)).all():
        return None  # a score out of bounds is reported by `safety.problems`
    quantiles = np.quantile(score, np.arange(1, bins) / bins, method="lower")
    place = np.searchsorted(np.unique(quantiles), score, side="right")
    curve = []
    for b in np.unique(place):
        entry = rate(evidence.label[place == b] == positive)
        curve.append({**entry, "score": float(score[place == b].mean())})
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
    known = (prediction >= 0) & (prediction < classes)  # else `safety.problems`
    cells = np.bincount(
        (label * classes + prediction)[known], minlength=classes * classes
    )
    return [[int(n) for n in row] for row in cells.reshape(classes, classes)]


def roc(evidence: Evidence, most: int = 200) -> dict[str, list[float]]:
    """Points of the ROC curve of the positive class, finite and at most `most`.

    Starts at (0, 0), whose threshold is put just above the highest score
    (scikit-learn writes infinity there, which no artifact metadata can hold).
    """
    order = np.argsort(-evidence.score, kind="stable")
    score, positive = (
        evidence.score[order],
        evidence.label[order] == positive_code(evidence),
    )
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    if len(last) > most - 1:
        last = last[np.unique(np.linspace(0, len(last) - 1, most - 1).astype(int))]
    hits, alarms = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return {
        "fpr": [0.0, *(alarms / max(int((~positive).sum()), 1)).tolist()],
        "tpr": [0.0, *(hits / max(int(positive.sum()), 1)).tolist()],
        "threshold": [float(score[0]) + 1.0, *score[last].tolist()],
    }


def swapped(evidence: Evidence) -> Evidence:
    """Returns the evidence with model and twin changed about."""
    prediction, score = evidence.twin_prediction, evidence.twin_score
    assert prediction is not None  # a verdict's evidence always has a twin
    assert score is not None
    return replace(
        evidence,
        prediction=prediction,
        score=score,
        twin_prediction=evidence.prediction,
        twin_score=evidence.score,
    )


def describe(evidence: Evidence, bins: int) -> Mapping[str, Any]:
    """Profiles model and twin side by side."""
    return {
        "model": profile(evidence, bins),
        "twin": profile(swapped(evidence), bins),
    }
