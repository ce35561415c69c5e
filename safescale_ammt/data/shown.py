"""Which values of a column a sentence may show: what many rows share."""

from __future__ import annotations

from collections.abc import Mapping

from safescale_ammt.errors import nearest

MOST = 10
"""A column with more distinct values than this may hold names: none is shown."""
FEWEST = 10
"""A value of fewer rows than this may be one person's, and is not shown."""


def values_to_show(counts: Mapping[str, int]) -> list[str]:
    """Returns the values that many rows share, sorted; none of a column of many."""
    if len(counts) > MOST:
        return []
    return sorted(value for value, rows in counts.items() if rows >= FEWEST)


def shown_values(counts: Mapping[str, int], found: str = "") -> str:
    """Returns the part of a sentence that tells a column's values.

    Args:
        counts: rows by value.
        found: what a config has instead; the nearest value is named, if it is shown.

    Returns:
        `, expected one of no, yes` or, where values may tell of a person, how many
        there are.
    """
    shown = values_to_show(counts)
    if not shown:
        return f", found {len(counts)} other values"
    rarer = len(counts) - len(shown)
    near = nearest(found, shown)
    return (
        f", expected one of {', '.join(shown)}"
        + (f" or {rarer} of fewer than {FEWEST} rows" if rarer else "")
        + (f"; the nearest is {near!r}" if near else "")
    )
