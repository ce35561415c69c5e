"""What an attacker can compute of counts that are not shown.

All he has are the shown counts, the rows of the split, and the marks: a small count
is under 10, one that is hidden for its sake is not. A linear program gives the least
and the greatest value that fits (Fischetti & Salazar 2001).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from safescale_ammt.data.associations import joint
from safescale_ammt.data.counts import LEAST_SHOWN, SplitCounts, Withheld

LEAST_RANGE = 2
"""Least width of what an attacker can narrow a small count down to."""
# Dual values and fractions of the linear program that are only rounding.
_ZERO = 1e-9
_ROUNDING = 1e-6
# Nodes, not seconds: what is hidden must not depend on the machine.
_NODES = 2_000
Floats = NDArray[np.float64]
Groups = Mapping[str, tuple[Sequence[str], NDArray[np.int64]]]
Key = tuple[str, str, int]
"""Group name, group value, class code (-1: rows of all classes)."""
Sums = tuple[csr_array, Floats]
"""Masks of finest cells, and what their sums are or must not exceed."""


class Attack:
    """Every cell as a sum of the finest ones: combinations of groups x class.

    Attributes:
        counts: true count of every cell.
        small: cells under 10, which are never shown.
    """

    def __init__(self, full: SplitCounts, groups: Groups, classes: int) -> None:
        # An attacker is taken to know which combinations occur at all: the
        # development rows show most of them.
        _, combinations = joint([codes for _, codes in groups.values()])
        of_class = np.tile(np.arange(classes), len(combinations[0]))
        self.counts: dict[Key, int] = {}
        members = []
        for i, name in enumerate(groups):
            for code, (value, cell) in enumerate(full.groups[name].items()):
                inside = np.repeat(combinations[i] == code, classes)
                for c, n in [(-1, cell.rows), *enumerate(cell.labels)]:
                    if isinstance(n, Withheld):
                        raise ValueError(f"the count of {name} {value} is withheld")
                    self.counts[name, value, c] = n
                    members.append(inside & ((of_class == c) | (c < 0)))
        # The rows of the split are known too: the last sum is that of everything.
        self._sums = csr_array(np.array([*members, np.ones_like(of_class)], float))
        self._rows = full.rows
        self._index = {key: i for i, key in enumerate(self.counts)}
        # Of a value that no row has, nothing can be learnt: it is no target.
        self.small = [
            key
            for key, sums in zip(self.counts, members, strict=True)
            if self.counts[key] < LEAST_SHOWN and sums.any()
        ]
        # Tables found to fit, as the cells they change and all their counts. The true
        # one always fits.
        truth = np.array(list(self.counts.values()), float)
        self._tables: list[tuple[set[Key], Floats]] = [(set(), truth)]
        self._none = [key for key, n in self.counts.items() if n < LEAST_SHOWN]

    def binding(self, key: Key, beside: Set[Key]) -> set[Key] | None:
        """Names shown cells of which one must be hidden to protect a small one.

        Args:
            key: the small cell.
            beside: cells that are hidden for the sake of small ones.

        Returns:
            Cells without which the range could be wider; None if `key` is safe.
        """
        if self._wide(key, beside):
            return None
        shown = [k for k in self.counts if k not in beside and k not in self._none]
        target = self._sums[[self._index[key]]].toarray()[0]
        # What the finest counts must fit: sums that are known, and bounds of sums.
        rows = [*(self._index[k] for k in shown), len(self.counts)]
        known = np.array([*(self.counts[k] for k in shown), self._rows], float)
        equal: Sums = self._sums[rows], known
        under = [self._index[k] for k in self._none]
        above = [self._index[k] for k in self.counts if k in beside]
        # under <= 9 and -above <= -10; no count is negative, which is the default.
        signs = np.repeat([1.0, -1.0], [len(under), len(above)])
        most = np.repeat([LEAST_SHOWN - 1.0, -LEAST_SHOWN], [len(under), len(above)])
        sums = csr_array(self._sums[[*under, *above]].multiply(signs[:, None]))
        bounded: Sums = sums, most
        low, high = (
            # Whose stubs know no sparse matrices.
            linprog(sign * target, *bounded, *equal)  # type: ignore[call-overload]
            for sign in (1.0, -1.0)
        )
        if low.status or high.status:
            return set(shown)
        if -high.fun - low.fun < LEAST_RANGE - _ROUNDING:
            # With the same dual values the range stays as narrow until one of these
            # is hidden: an equality without a dual value does not hold it together.
            weight = np.abs(low.eqlin.marginals) + np.abs(high.eqlin.marginals)
            return {k for k, w in zip(shown, weight[:-1], strict=True) if w > _ZERO}
        self._keep(low.x, beside)
        self._keep(high.x, beside)
        if not self._wide(key, beside):
            # Counts are whole: between fractions there may be fewer of them.
            self._keep_whole_ends(target, beside, equal, bounded)
        return None if self._wide(key, beside) else set(shown)

    def _keep_whole_ends(
        self, target: Floats, beside: Set[Key], equal: Sums, bounded: Sums
    ) -> None:
        """Keeps tables of whole counts with the least and the most of the target."""
        (a_eq, b_eq), (a_ub, b_ub) = equal, bounded
        fits = LinearConstraint(a_eq, b_eq, b_eq), LinearConstraint(a_ub, ub=b_ub)
        for sign in (1.0, -1.0):
            end = milp(
                sign * target,
                integrality=np.ones(len(target), dtype=np.int64),
                constraints=fits,
                options={"node_limit": _NODES},
            )
            # Out of nodes without a table: the cell then counts as exposed.
            if end.x is not None:
                self._keep(end.x, beside)

    def _wide(self, key: Key, beside: Set[Key]) -> bool:
        """Tells whether tables that are known to fit leave a range."""
        i = self._index[key]
        fitting = [counts[i] for moved, counts in self._tables if moved <= beside]
        return bool(max(fitting) - min(fitting) >= LEAST_RANGE)

    def _keep(self, finest: Floats, beside: Set[Key]) -> None:
        """Keeps a table that fits while `beside` is hidden, if its counts are whole."""
        if np.abs(finest - finest.round()).max() < _ROUNDING:
            sums = (self._sums @ finest.round())[:-1]
            moved = {k for k in beside if sums[self._index[k]] != self.counts[k]}
            self._tables.append((moved, sums))
