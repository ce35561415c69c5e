"""Words of robust accuracy, which are read without counting anything."""

from __future__ import annotations

from safescale_ammt.constitution.image_threats import ImageThreat
from safescale_ammt.judging.findings import Finding

SEARCH = "search 1"
"""What tries more than two changes, and its version."""
EVERY = "Clopper-Pearson, every permitted change"
SEARCHED = f"Clopper-Pearson, {SEARCH}"
"""Method of a bound by whether each permitted change was tried."""

BATTERY, PROVEN = "Clopper-Pearson, battery ", "Clopper-Pearson, interval bounds"
"""Method of a bound on images, a battery's before its tier."""
COUNTED = "checks counted"
"""Method behind a number of raised checks."""
EMPIRICAL = (
    "Survives the battery: an upper bound, and no proof. What its attacks do not find "
    "may be there all the same"
)
"""What nobody may take survivors of a battery for more than."""


def image_method(threat: ImageThreat) -> str:
    """Names the method behind a bound on images under a threat."""
    return BATTERY + threat.tier if threat.tier else PROVEN


def told(finding: Finding, rows: int) -> str:
    """Returns what a reader of a finding on an attack has to know besides, or "".

    Args:
        finding: on any principle.
        rows: that were judged.
    """
    if finding.attack is None or not finding.by_group:
        return ""
    tried = sum(rate.trials for rate in finding.by_group)
    sentences = ""
    if tried < rows:
        why = "all of them have more changes than are tried"
        if finding.method.startswith(BATTERY):
            why = "a battery attacks no more"
        sentences += (
            f" It speaks of {tried:,} of {rows:,} rows, drawn by the holdout's digest: "
            f"{why}."
        )
    if finding.method.startswith(BATTERY):
        sentences += f" {EMPIRICAL}."
    if finding.method == SEARCHED:
        sentences += (
            f" It survives {SEARCH}: what that does not find may be there all the "
            "same, so the figure is an upper bound."
        )
    return sentences
