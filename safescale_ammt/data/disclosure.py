"""Which counts of the sealed split may be shown.

A cell under 10 is not shown. Alone that hides nothing where it equals a total minus
its neighbours, so as few cells beside it as can be are hidden too, until the attacker
of `attack` is left with a range of at least `LEAST_RANGE`. They lie in the small
cell's own column wherever that can do: a promise about one column does not lose its
counts to a small group of another.

The choice is exact. A cell that the attacker narrows down proves that one of certain
shown cells must be hidden; the cheapest choice that satisfies all these proofs is
tried until it leaves nothing to prove (complementary cell suppression by cutting
planes: Fischetti & Salazar 2001).
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from safescale_ammt.data.attack import Attack, Groups, Key
from safescale_ammt.data.counts import (
    LEAST_SHOWN,
    LabelCounts,
    SplitCounts,
    Withheld,
    tally,
)


def shown_counts(
    label: NDArray[np.int64],
    groups: Groups,
    classes: int,
    sealed: NDArray[np.bool_],
    weights: NDArray[np.int64] | None = None,
) -> SplitCounts:
    """Counts the sealed rows and withholds what must not be published.

    Args:
        label: class codes (n,) of all rows, development and sealed.
        groups: group name -> (its values, codes (n,)).
        classes: number of classes.
        sealed: mask (n,) of the sealed rows.
        weights: rows (n,) that each entry stands for; None = one.
    """
    full = tally(
        label[sealed],
        {name: (values, codes[sealed]) for name, (values, codes) in groups.items()},
        classes,
        weights=None if weights is None else weights[sealed],
    )
    if not groups:
        return full
    attack = Attack(full, groups, classes)
    hidden = _complementary(attack)
    told: dict[Key, int | Withheld] = {
        key: Withheld.SMALL if n < LEAST_SHOWN else n
        for key, n in attack.counts.items()
    }
    # Without a choice that protects, not even which cells are small is told.
    told |= dict.fromkeys(told if hidden is None else hidden, Withheld.HIDDEN)
    return SplitCounts(
        full.rows,
        {
            name: {
                value: LabelCounts(
                    told[name, value, -1],
                    tuple(told[name, value, code] for code in range(classes)),
                )
                for value in values
            }
            for name, values in full.groups.items()
        },
    )


def with_class_groups(shown: SplitCounts, of_label: SplitCounts) -> SplitCounts:
    """Adds the counts of groups that are merges of the label.

    They are the rows of each class, which no other count tells: all of them are told,
    or, where a class is small or a count beside them is withheld, none.

    Args:
        shown: counts of all other groups, as they are told.
        of_label: full counts of these.
    """
    cells = (
        n
        for values in of_label.groups.values()
        for counts in values.values()
        # Classes that are no part of a group have no rows in it, by what it is.
        for n in (counts.rows, *(n for n in counts.labels if n))
    )
    small = any(isinstance(n, Withheld) or n < LEAST_SHOWN for n in cells)
    added = of_label.groups
    if small or any(map(shown.withheld, Withheld)):
        none = {
            name: dict.fromkeys(
                values,
                LabelCounts(
                    Withheld.HIDDEN,
                    (Withheld.HIDDEN,) * len(next(iter(values.values())).labels),
                ),
            )
            for name, values in of_label.groups.items()
            if values
        }
        added = none
    # In the order of names, as all groups are.
    return SplitCounts(shown.rows, dict(sorted({**shown.groups, **added}.items())))


def _complementary(attack: Attack) -> set[Key] | None:
    """Cells to hide beside the small ones; None if hiding all would not do."""
    large = {key for key, n in attack.counts.items() if n >= LEAST_SHOWN}
    if any(attack.binding(key, large) is not None for key in attack.small):
        return None
    hidden: set[Key] = set()
    columns = [
        {key for key in large if key[0] == name}
        for name in sorted({key[0] for key in attack.small})
    ]
    # Each column by itself, twice: a sum that another one shows may be hidden by then.
    # Then together; and one that has no small cell only if nothing else would do.
    for candidates in (*columns, *columns, set().union(*columns), large):
        able = [
            key
            for key in attack.small
            if key[0] in {other[0] for other in candidates}
            and attack.binding(key, hidden | candidates) is None
        ]
        # The fewest of them that protect, with what is hidden already.
        cuts: list[Set[Key]] = []
        chosen: set[Key] = set()
        while True:
            found = [attack.binding(key, chosen | hidden) for key in able]
            # A proof without a candidate is rounding: all of them together protect.
            new = [
                c & candidates or candidates - chosen for c in found if c is not None
            ]
            if not new or chosen >= candidates:
                break
            cuts.extend(new)
            chosen = _cheapest(cuts, attack)
        hidden |= chosen
    # What one column hides may make another's needless.
    for key in sorted(hidden, key=lambda k: (-attack.counts[k], k)):
        rest = hidden - {key}
        if all(attack.binding(small, rest) is None for small in attack.small):
            hidden = rest
    return hidden


def _cheapest(cuts: list[Set[Key]], attack: Attack) -> set[Key]:
    """Cells with one of every cut: fewest groups, then cells, then rows.

    Groups that have a small cell anyway do not count. One choice in every run: ties
    go to the cells that come first.
    """
    cells = sorted(set().union(*cuts))
    spoilt = {key[:2] for key in attack.small}
    values = sorted({key[:2] for key in cells} - spoilt)
    size = len(cells) + len(values)
    one_of_each = [
        [key in cut for key in cells] + [False] * len(values) for cut in cuts
    ]
    constraints = [LinearConstraint(np.array(one_of_each, float), lb=1.0)]
    for i, key in enumerate(cells):
        if key[:2] not in spoilt:
            # A group counts as soon as one of its cells is hidden: group >= cell.
            row = np.zeros(size)
            row[i], row[len(cells) + values.index(key[:2])] = -1.0, 1.0
            constraints.append(LinearConstraint(row, lb=0.0))
    is_cell = (np.arange(size) < len(cells)).astype(float)
    rows = [attack.counts[key] * size + i for i, key in enumerate(cells)]
    best: set[Key] = set()
    for cost in (1 - is_cell, is_cell, np.array(rows + [0] * len(values), float)):
        found = milp(
            cost,
            integrality=np.ones(size, dtype=np.int64),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
        chosen = found.x if found.x is not None else np.ones(size)
        best = {key for key, x in zip(cells, chosen, strict=False) if x > 0.5}
        # What comes next must not make this worse.
        constraints.append(
            LinearConstraint(cost, ub=float(cost @ chosen.round()) + 0.5)
        )
    return best
