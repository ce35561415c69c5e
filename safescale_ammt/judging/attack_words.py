"""Words of robust accuracy, which are read without counting anything."""

from __future__ import annotations

from safescale_ammt.judging.findings import Finding

SEARCH = "search 1"
"""What tries more than two changes, and its version."""
EVERY = "Clopper-Pearson, every permitted change"
SEARCHED = f"Clopper-Pearson, {SEARCH}"
"""Method of a bound by whether each permitted change was tried."""


def told(finding: Finding, rows: int) -> str:
    """Returns what a reader of a finding on an attack has to know besides, or "".

    Args:
        finding: on any principle.
        rows: that were judged.
    """
    if finding.attack is None:
        return ""
    tried = sum(rate.trials for rate in finding.by_group)
    sentences = ""
    if tried < rows:
        sentences += (
            f" It speaks of {tried:,} of {rows:,} rows, drawn by the holdout's digest: "
            "all of them have more changes than are tried."
        )
    if finding.method == SEARCHED:
        sentences += (
            f" It survives {SEARCH}: what that does not find may be there all the "
            "same, so the figure is an upper bound."
        )
    return sentences
