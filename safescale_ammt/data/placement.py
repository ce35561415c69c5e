"""Which split each row goes to, and what must hold of the splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.composition import Composition
from safescale_ammt.data.entry_cells import Written
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.relations import ALL_SPLITS, Rule
from safescale_ammt.data.splitting import entity_hashes
from safescale_ammt.data.table import Entity, PlaceCounts
from safescale_ammt.errors import DataError


def place(
    config: DataConfig, joined: Joined, composition: Composition, written: Written
) -> tuple[PlaceCounts, Entity | None]:
    """Assigns rows to splits; a development row that is also sealed is removed.

    Of equal rows one stays with `data.drop_duplicates`. Of a sealed entity one row is
    kept, so that what is judged are independent draws; the others go nowhere.

    Args:
        config: splits, seed, roles of columns.
        joined: all rows.
        composition: classes and groups; the first sensitive column makes strata.
        written: cells of the rows.

    Returns:
        Where rows went, and who they are about.

    Raises:
        DataError: rows without an entity, an entity on both sides, or a split without
            rows.
    """
    rule = Rule(
        tuple(config.splits.get(name, 0.0) for name in ALL_SPLITS),
        config.seed,
        config.drop_duplicates,
    )
    entity = None
    if config.entity:
        # Rows without an entity would be one: all of them in one split.
        joined.check_complete("entity", config.entity, config.missing)
        column = joined.table.columns[config.entity]
        entity = config.entity, column.codes.astype(np.int64)
        rule = replace(rule, entities=entity_hashes(column))
    strata, stays = composition.strata(config), composition.label >= 0
    placement = joined.rows.place(written, strata, stays, entity, rule)
    if placement.shared:
        raise DataError(
            f"{placement.shared} entities of {config.entity!r} are in "
            f"{joined.table.origin} and in {joined.sealed_origin}; an entity "
            "belongs to one split."
        )
    check_splits(placement, composition, joined)
    return placement, entity


def check_splits(
    placement: PlaceCounts, composition: Composition, joined: Joined
) -> None:
    """Refuses splits that have no row, or train rows that lack a class.

    Raises:
        DataError: such a split.
    """
    for name, size in zip(ALL_SPLITS, placement.sizes, strict=True):
        if not size:
            advice = "give it a larger fraction or more rows"
            if placement.copies:
                advice += (
                    f"; {placement.copies} equal a sealed row and are left out, but "
                    "for a column that tells people apart, such as an id in data.drop"
                )
            raise DataError(
                f"Split {name!r} gets no row of the {joined.size} in "
                f"{joined.table.origin}; {advice}."
            )
    counts = placement.counts
    train = [
        counts[composition.label == c, 0].sum() for c in range(len(composition.classes))
    ]
    if not all(train):
        raise DataError(
            f"Split 'train' of {joined.table.origin} lacks a class altogether; the "
            "source has too few rows of it."
        )
