"""Which counts of the sealed split may be shown.

A cell under 10 is hidden. Hiding it alone hides nothing where it equals a total
minus its neighbours, so cells beside it are hidden too until no small cell can be
computed: the attacker of a linear program (all shown counts, no count negative,
a small cell under 10) must be left with a range of at least `LEAST_RANGE`.
Complementary cell suppression: Fischetti & Salazar (2001), here greedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from safescale_ammt.data.associations import joint
from safescale_ammt.data.counts import LEAST_SHOWN, LabelCounts, SplitCounts, tally

LEAST_RANGE = 2.0
"""Least width of what an attacker can narrow a hidden small count down to."""
# Dual values of the linear program that are only rounding.
_ZERO = 1e-9
Groups = Mapping[str, tuple[Sequence[str], NDArray[np.int64]]]
Key = tuple[str, str, int]
"""Group name, group value, class code (-1: rows of all classes)."""


def shown_counts(
    label: NDArray[np.int64],
    groups: Groups,
    classes: int,
    sealed: NDArray[np.bool_],
) -> SplitCounts:
    """Counts the sealed rows and hides what must not be published.

    Args:
        label: class codes (n,) of all rows, development and sealed.
        groups: group name -> (its values, codes (n,)).
        classes: number of classes.
        sealed: mask (n,) of the sealed rows.
    """
    full = tally(
        label[sealed],
        {name: (values, codes[sealed]) for name, (values, codes) in groups.items()},
        classes,
    )
    if not groups:
        return full
    attack = _Attack(full, groups, classes)
    small = sorted(key for key, n in attack.counts.items() if n < LEAST_SHOWN)
    hidden = set(small)
    exposed = small
    # Hiding more only widens what an attacker is left with: a safe cell stays safe,
    # so only the exposed ones are looked at again.
    while exposed:
        sources = {key: attack.source(key, small, hidden) for key in exposed}
        exposed = [key for key, source in sources.items() if source is not None]
        hidden |= {source for source in sources.values() if source is not None}
    shown = {key: None if key in hidden else n for key, n in attack.counts.items()}
    return SplitCounts(
        full.rows,
        {
            name: {
                value: LabelCounts(
                    shown[name, value, -1],
                    tuple(shown[name, value, code] for code in range(classes)),
                )
                for value in values
            }
            for name, values in full.groups.items()
        },
    )


class _Attack:
    """Every cell as a sum of the finest ones: combinations of groups x class.

    Attributes:
        rows: of the split, which an attacker knows.
        counts: true count of every cell.
        members: mask of the finest cells (combinations x classes,) in every cell.
    """

    def __init__(self, full: SplitCounts, groups: Groups, classes: int) -> None:
        # An attacker is taken to know which combinations occur at all: the
        # development rows show most of them.
        _, combinations = joint([codes for _, codes in groups.values()])
        of_class = np.tile(np.arange(classes), len(combinations[0]))
        self.rows = full.rows
        self.counts: dict[Key, int] = {}
        self.members: dict[Key, NDArray[np.bool_]] = {}
        for i, name in enumerate(groups):
            for code, (value, cell) in enumerate(full.groups[name].items()):
                inside = np.repeat(combinations[i] == code, classes)
                for c, n in [(-1, cell.rows), *enumerate(cell.labels)]:
                    key = (name, value, c)
                    self.counts[key] = int(n or 0)
                    self.members[key] = inside & ((of_class == c) | (c < 0))

    def source(self, key: Key, small: Sequence[Key], hidden: set[Key]) -> Key | None:
        """Names the least shown cell that `key` is computed from; None if it is safe.

        With x >= 0 the finest counts: min and max of the cell's sum over all x that
        agree with the shown counts (equalities) and with "under 10" of the small ones
        (inequalities).
        """
        shown = [other for other in self.counts if other not in hidden]
        equal = [self.members[other] for other in shown]
        a_eq = np.array([*equal, np.ones_like(self.members[key])], dtype=float)
        b_eq = np.array([*(self.counts[k] for k in shown), self.rows], dtype=float)
        a_ub = np.array([self.members[k] for k in small], dtype=float)
        b_ub = np.full(len(small), LEAST_SHOWN - 1.0)
        target = self.members[key].astype(float)
        # linprog's default bounds are 0 and infinity: no count is negative.
        low = linprog(target, a_ub, b_ub, a_eq, b_eq)
        high = linprog(-target, a_ub, b_ub, a_eq, b_eq)
        if -float(high.fun or 0.0) - float(low.fun or 0.0) >= LEAST_RANGE:
            return None
        # A shown count with a dual value holds the range together: without it the
        # optimum moves. The total is the last equality and cannot be hidden.
        weight = np.abs(low.eqlin.marginals) + np.abs(high.eqlin.marginals)
        binding = [k for k, w in zip(shown, weight[:-1], strict=True) if w > _ZERO]
        # The least one costs the reader least; the key breaks ties the same each time.
        return min(binding, key=lambda k: (self.counts[k], k), default=None)
