"""What the sealed rows have and the development rows lack, and the other way round."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.composition import Composition
from safescale_ammt.data.counts import LEAST_SHOWN, Withheld
from safescale_ammt.data.relations import SEALED, SEALED_CODE
from safescale_ammt.data.typing_columns import PlacedColumns
from safescale_ammt.data.unseen import (
    Unseen,
    expected_unseen,
    refuse_mostly_unseen,
    unseen_among,
)

# A group of which so many sealed rows would be expected is absent by no chance.
_SURELY = 20


def sealed_notes(
    config: DataConfig,
    columns: PlacedColumns,
    composition: Composition,
    counts: NDArray[np.int64],
    levels: Collection[str],
) -> dict[str, object]:
    """Compares the sealed rows with the development rows.

    Args:
        config: the sensitive columns and missing spellings.
        columns: of all rows.
        composition: with every group; crosses are left out, as most of their
            combinations are rare on either side.
        counts: rows of each combination by split.
        levels: names of the categorical inputs.

    Returns:
        `sealed_rows_with_unseen_values` by column and `groups_on_one_side` by group,
        each only if there are any.

    Raises:
        DataError: an official test file of which most values of a column are unseen.
    """
    joined = columns.joined
    names = dict.fromkeys([*levels, *config.sensitive])
    found = [u for name in names if (u := unseen_of(config, columns, name))]
    # Rows that were cut from one table are spelled by one hand: what is new among them
    # is rare, or belongs to one entity.
    if joined.sealed_origin:
        known = f"the rows of {joined.table.origin}"
        refuse_mostly_unseen(found, joined.sealed_origin, known, sealed=True)
    notes: dict[str, object] = {}
    unseen = {
        entry.column: entry.shown
        for entry in found
        # A count of a sensitive value would undo what the counts hide.
        if entry.column not in config.sensitive
    }
    if unseen:
        notes["sealed_rows_with_unseen_values"] = unseen
    # In the order of the config: columns, then merges.
    sides = {
        name: one_sided
        for name in (*config.sensitive, *config.merges)
        if (one_sided := on_one_side(*composition.groups[name], counts))
    }
    if sides:
        notes["groups_on_one_side"] = sides
    return notes


def unseen_of(config: DataConfig, columns: PlacedColumns, name: str) -> Unseen | None:
    """Counts the sealed rows whose value of a column no development row has."""
    known, sealed = columns.development[name], columns.among(name, SEALED)
    present = sealed.take(~sealed.among(config.missing))
    rows = dict(zip(present.values.to_pylist(), present.counts.tolist(), strict=True))
    expected = expected_unseen(known, config.missing)
    return unseen_among(name, rows, known.values.to_pylist(), expected)


def on_one_side(
    values: Sequence[str], codes: NDArray[np.int64], counts: NDArray[np.int64]
) -> dict[str, list[str]]:
    """Names the values of a group that one side has, in sorted order.

    Args:
        values: of the group.
        codes: value (k,) of each combination.
        counts: rows (k, splits) of each combination.
    """
    sizes = np.zeros((len(values), counts.shape[1]), np.int64)
    np.add.at(sizes, codes, counts)
    development, sealed = sizes[:, :SEALED_CODE].sum(axis=1), sizes[:, SEALED_CODE]
    expected = development / development.sum() * sealed.sum()
    # Not "no sealed row": an exact zero could give away a hidden count beside it. That
    # a count is under 10 is what the published counts say already.
    rare = (sealed < LEAST_SHOWN) & (expected >= _SURELY)
    sides = {
        "sealed_only": (sealed > 0) & (development == 0),
        f"development_but_{Withheld.SMALL.value}_sealed": rare,
    }
    return {
        side: [values[i] for i in np.flatnonzero(mask).tolist()]
        for side, mask in sides.items()
        if mask.any()
    }
