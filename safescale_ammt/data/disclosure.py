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
    """Counts the sealed rows and hides what must not be told.

    Args:
        label: class codes (n,) of all rows, development and sealed.
        groups: group name -> (its values, codes (n,)).
        classes: number of classes.
        sealed: mask (n,) of the sealed rows.
    """
    told = tally(
        label[sealed],
        {name: (values, codes[sealed]) for name, (values, codes) in groups.items()},
        classes,
    )
    if not groups:
        return told
    attack = _Attack(told, groups, classes)
    small = sorted(key for key, n in attack.counts.items() if n < LEAST_SHOWN)
    hidden = set(small)
    told_away = small
    # Hiding more only widens what an attacker is left with: a safe cell stays safe.
    while told_away:
        tellers = {key: attack.teller(key, small, hidden) for key in told_away}
        told_away = [key for key, teller in tellers.items() if teller is not None]
        hidden |= {teller for teller in tellers.values() if teller is not None}
    return SplitCounts(told.rows, _without(told, hidden))


def _without(told: SplitCounts, hidden: set[Key]) -> dict[str, dict[str, LabelCounts]]:
    return {
        name: {
            value: LabelCounts(
                None if (name, value, -1) in hidden else cell.rows,
                tuple(
                    None if (name, value, code) in hidden else n
                    for code, n in enumerate(cell.labels)
                ),
            )
            for value, cell in cells.items()
        }
        for name, cells in told.groups.items()
    }


class _Attack:
    """Every cell as a sum of the finest ones: combinations of groups x class."""

    def __init__(self, told: SplitCounts, groups: Groups, classes: int) -> None:
        _, combos = joint([codes for _, codes in groups.values()])
        of_class = np.tile(np.arange(classes), len(combos[0]))
        self.rows = told.rows
        self.counts: dict[Key, int] = {}
        self.members: dict[Key, NDArray[np.bool_]] = {}
        for i, name in enumerate(groups):
            for code, (value, cell) in enumerate(told.groups[name].items()):
                inside = np.repeat(combos[i] == code, classes)
                for c, n in [(-1, cell.rows), *enumerate(cell.labels)]:
                    key = (name, value, c)
                    self.counts[key] = int(n or 0)
                    self.members[key] = inside & ((of_class == c) | (c < 0))

    def teller(self, key: Key, small: Sequence[Key], hidden: set[Key]) -> Key | None:
        """Names the least shown cell that gives `key` away, None if it is safe."""
        shown = [other for other in self.counts if other not in hidden]
        equal = [self.members[other] for other in shown]
        a_eq = np.array([*equal, np.ones_like(self.members[key])], dtype=float)
        b_eq = np.array([*(self.counts[k] for k in shown), self.rows], dtype=float)
        a_ub = np.array([self.members[k] for k in small], dtype=float)
        b_ub = np.full(len(small), LEAST_SHOWN - 1.0)
        target = self.members[key].astype(float)
        low = linprog(target, a_ub, b_ub, a_eq, b_eq)
        high = linprog(-target, a_ub, b_ub, a_eq, b_eq)
        if -float(high.fun or 0.0) - float(low.fun or 0.0) >= LEAST_RANGE:
            return None
        weight = np.abs(low.eqlin.marginals) + np.abs(high.eqlin.marginals)
        telling = [k for k, w in zip(shown, weight[:-1], strict=True) if w > _ZERO]
        return min(telling, key=lambda k: (self.counts[k], k), default=None)
