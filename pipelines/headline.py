"""The few figures by which one run or version is told from another in a list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safescale_ammt.judging.findings import figure

ABSENT = "–"
"""What stands where there is no figure."""
COLUMNS = ("decision", "accuracy", "gap")


def headline(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns decision, accuracy, the twin's accuracy and the gap of a `verdict.json`.

    Of an answer, which has no figures, it is the decision and the submissions left.

    The gap is the promise about groups that is nearest to its line or furthest beyond
    it, hard and inviolable promises first, and among them one whose value is not
    defined; None if no promise is about groups.
    """

    def room(finding: Mapping[str, Any]) -> tuple[bool, float]:
        if finding["value"] is None:
            return finding["tier"] == "soft", -math.inf
        left = finding["threshold"] - finding["value"]
        return finding["tier"] == "soft", left if finding["op"] == "<=" else -left

    if "findings" not in verdict:
        return {name: verdict[name] for name in ("decision", "submissions_left")}
    by_group = [f for f in verdict["findings"] if f["group"] is not None]
    gap = None
    if by_group:
        least = min(by_group, key=room)
        given = f" given {least['given']}" if "given" in least else ""
        gap = {"what": f"{least['metric']} by {least['group']}{given}"}
        gap |= {key: least[key] for key in ("value", "op", "threshold")}
    names = ("decision", "accuracy", "twin_accuracy")
    return {**{name: verdict[name] for name in names}, "gap": gap}


def told(figures: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Spells the figures of a headline in the order of `COLUMNS`."""
    if not figures:
        return ABSENT, ABSENT, ABSENT
    # A record of an earlier version has no gap.
    gap = figures.get("gap")
    return (
        figures["decision"],
        # Of an answer the auditor has it.
        f"{figures['accuracy']:.4f}" if "accuracy" in figures else ABSENT,
        f"{gap['what']} {figure(gap['value'])} ({gap['op']} {gap['threshold']:g})"
        if gap
        else ABSENT,
    )
