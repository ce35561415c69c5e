"""What the sealed rows have and the development rows lack, and the other way round."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.counts import LEAST_SHOWN, Withheld
from safescale_ammt.data.joining import SEALED, Cut, Joined
from safescale_ammt.data.raw_rows import as_levels
from safescale_ammt.data.unseen import (
    Unseen,
    count_unseen,
    expected_unseen,
    refuse_mostly_unseen,
)
from safescale_ammt.reading.columns import Column

# A group of which so many sealed rows would be expected is absent by no chance.
_SURELY = 20


def sealed_notes(
    config: DataConfig,
    joined: Joined,
    cuts: Cut,
    levels: Collection[str],
    groups: Mapping[str, Column],
) -> dict[str, object]:
    """Compares the sealed rows with the development rows.

    Args:
        config: the sensitive columns and missing spellings.
        joined: all rows.
        cuts: where every row goes.
        levels: names of the categorical inputs.
        groups: every group by name; crosses are left out, as most of their
            combinations are rare on either side.

    Returns:
        `sealed_rows_with_unseen_values` by column and `groups_on_one_side` by group,
        each only if there are any.

    Raises:
        DataError: an official test file of which most values of a column are unseen.
    """
    found = _unseen(config, joined, cuts, [*levels, *config.sensitive])
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
    sides = {
        name: one_sided
        for name, column in groups.items()
        if name not in config.crosses and (one_sided := _one_sided(column, cuts))
    }
    if sides:
        notes["groups_on_one_side"] = sides
    return notes


def _unseen(
    config: DataConfig, joined: Joined, cuts: Cut, names: Collection[str]
) -> list[Unseen]:
    sealed, development = cuts.among(SEALED), cuts.among(*SPLITS)
    found = []
    for name in dict.fromkeys(names):
        column = joined.table.columns[name]
        known = column.take(development)
        unseen = count_unseen(
            name,
            as_levels(column.take(sealed), config.missing),
            known.values.to_pylist(),
            expected_unseen(known, config.missing),
        )
        found += [unseen] if unseen else []
    return found


def _one_sided(column: Column, cuts: Cut) -> dict[str, list[str]]:
    """Names the values of a group that one side has, in sorted order."""
    values, codes = column.ranked()
    sealed = np.bincount(codes[cuts.among(SEALED)], minlength=len(values))
    development = np.bincount(codes[cuts.among(*SPLITS)], minlength=len(values))
    expected = development / development.sum() * sealed.sum()
    # Not "no sealed row": an exact zero could give away a hidden count beside it. That
    # a count is under 10 is what the published counts say already.
    rare = (sealed < LEAST_SHOWN) & (expected >= _SURELY)
    sides = {
        "sealed_only": (sealed > 0) & (development == 0),
        f"development_but_{Withheld.SMALL.value}_sealed": rare,
    }
    return {
        side: [values[i] for i in np.flatnonzero(mask)]
        for side, mask in sides.items()
        if mask.any()
    }
