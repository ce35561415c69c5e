"""Whether two sets of sealed rows share parts of rows far more often than by chance.

A re-export in which one or two columns changed has no row in common with the first
one, but parts of them. Parts of independent people meet too, so their share has to
pass a line above what the data themselves say of chance.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from safescale_ammt.data.row_keys import Part, Parts

LEAST_SHARE = 0.05
"""Share of the smaller set that has to be in the larger one, beyond chance."""
TIMES_CHANCE = 3
"""How often chance goes into the line: the law of fresh rows may have moved."""
LEAST_KEYS = 6
"""Fewer common keys show nothing."""
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def shares_parts(one: Parts, other: Parts) -> bool:
    """Says whether some part of one set's rows is a part of the other's.

    Any part of the one is held against any of the other: a column that was added there
    is one that is left out here.
    """
    if not (one.parts and other.parts):
        return False
    sizes = [len(part.keys) for part in other.parts]
    keys = np.concatenate([part.keys for part in other.parts])
    order = np.argsort(keys, kind="stable")
    keys, owner = keys[order], np.repeat(np.arange(len(sizes)), sizes)[order]
    larger = max(one.rows, other.rows)
    for part in one.parts:
        low, high = (np.searchsorted(keys, part.keys, side) for side in _SIDES)
        places = [np.arange(i, j) for i, j in zip(low, high, strict=True) if i < j]
        if len(places) < LEAST_KEYS:
            continue
        common = np.bincount(owner[np.concatenate(places)], minlength=len(sizes))
        for theirs in np.flatnonzero(common >= LEAST_KEYS):
            same = other.parts[theirs]
            # Among more rows more meet. The smaller figure: whoever fills one table
            # with near copies does not raise the line for the other.
            chance = min(
                part.chance * max(1.0, larger / max(1, one.others)),
                same.chance * max(1.0, larger / max(1, other.others)),
            )
            line = LEAST_SHARE + TIMES_CHANCE * chance
            if common[theirs] >= line * kept_by_both(part, same):
                return True
    return False


def kept_by_both(one: Part, other: Part) -> int:
    """Counts the keys of the smaller set below which both parts hold all they have."""
    last = min(one.keys[-1], other.keys[-1])
    return int(min(np.searchsorted(p.keys, last, "right") for p in (one, other)))
