"""Principles, evidence and counts in one line each, for the tests of judging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import GROUP_METRICS, Principle
from safescale_ammt.data.counts import Counts, LabelCounts, SplitCounts
from safescale_ammt.judging.evidence import Evidence

TWIN = {"reference": "unconstrained_twin", "delta": -0.01}
ADULT = {"F": (10_771, 1_179), "M": (21_790, 6_662)}
ADULT_TEST = {"F": (5_421, 590), "M": (10_860, 3_256)}


def constitution(*constraints: Mapping[str, Any], **gate: Any) -> Constitution:
    """Principles p0, p1, … of these constraints; `groups` may be given too."""
    groups = gate.pop("groups", {})
    principles = [
        {"id": f"p{i}", "constraint": dict(c), "train": {"enforce": False}}
        for i, c in enumerate(constraints)
    ]
    return Constitution.from_dict(
        {"schema": 1, "principles": principles, "gate": gate, "groups": groups}
    )


def promise(metric: str, threshold: float | None = None, **rest: Any) -> Principle:
    """One principle; `group` is `g` for the metrics that need one."""
    if metric in GROUP_METRICS:
        rest.setdefault("group", "g")
    if metric == "calibration_error":
        rest.setdefault("tier", "soft")
    line = {} if threshold is None else {"threshold": threshold}
    return constitution({"metric": metric, **line, **rest}).principles[0]


def evidence_of(cells: Sequence[tuple[int, int, int, int]]) -> Evidence:
    """Binary evidence; one (true pos., false neg., false pos., true neg.) a group."""
    label, prediction, codes = [], [], []
    for code, counts in enumerate(cells):
        for n, (y, said) in zip(counts, ((1, 1), (1, 0), (0, 1), (0, 0)), strict=True):
            label += [y] * n
            prediction += [said] * n
            codes += [code] * n
    values = tuple("abcdefgh"[: len(cells)])
    return Evidence(
        np.array(label),
        np.array(prediction),
        np.array(prediction, dtype=float),
        {"g": (values, np.array(codes))},
    )


def counted(sizes: Mapping[str, tuple[int, int]], share: float = 1.0) -> SplitCounts:
    """A split with (rows, positives) per value of the group `sex`."""
    cells = {}
    for value, (n, positives) in sizes.items():
        rows, right = round(n * share), round(positives * share)
        cells[value] = LabelCounts(rows, (rows - right, right))
    return SplitCounts(sum(c.rows or 0 for c in cells.values()), {"sex": cells})


def adult_counts() -> Counts:
    """Counts of the canonical Adult split, 60 % train and 10 % constraint."""
    splits = {
        "train": counted(ADULT, 0.6),
        "constraint": counted(ADULT, 0.1),
        "sealed": counted(ADULT_TEST),
    }
    return Counts(("<=50K", ">50K"), ">50K", splits)
