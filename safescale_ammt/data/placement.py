"""Which split each row goes to, and what must hold of the splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.composition import Composition, strata_of
from safescale_ammt.data.entry_cells import Hashes
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.relations import (
    ALL_SPLITS,
    Placed,
    Relations,
    RowFacts,
    Rule,
)
from safescale_ammt.data.splitting import entity_hashes
from safescale_ammt.errors import DataError


def place(
    config: DataConfig,
    joined: Joined,
    composition: Composition,
    hashes: Hashes,
    relations: Relations,
) -> Placed:
    """Assigns rows to splits; a development row that is also sealed is removed.

    Of equal rows one stays with `data.drop_duplicates`. Of a sealed entity one row is
    kept, so that what is judged are independent draws; the others go nowhere.

    Args:
        config: splits, seed, roles of columns.
        joined: all rows.
        composition: classes and groups; the first sensitive column makes strata.
        hashes: equal for equal rows, however a file spells their label.
        relations: of rows.

    Raises:
        DataError: rows without an entity, an entity on both sides, or a split without
            rows.
    """
    label, groups = composition.label, composition.groups
    strata = strata_of(config, label, len(composition.classes), groups)
    rule = Rule(
        tuple(config.splits.get(name, 0.0) for name in ALL_SPLITS),
        config.seed,
        config.drop_duplicates,
    )
    entity: NDArray[np.int64] | None = None
    if config.entity:
        # Rows without an entity would be one: all of them in one split.
        joined.check_complete("entity", config.entity, config.missing)
        column = joined.table.columns[config.entity]
        entity = column.codes.astype(np.int64)
        rule = replace(rule, entities=entity_hashes(column))

    def facts() -> Iterator[RowFacts]:
        for batch in joined.coded.batches:
            rows, stays = hashes(batch), joined.stays(batch)
            yield RowFacts(
                rows,
                np.full(len(rows), joined.coded.sealed(batch)),
                strata[composition.of_rows(batch)].astype(np.uint16),
                None
                if entity is None
                else entity[joined.coded.codes(config.entity, batch)],
                None if stays.all() else ~stays,
            )

    placement = relations.place(facts, rule)
    if placement.shared:
        raise DataError(
            f"{placement.shared} entities of {config.entity!r} are in "
            f"{joined.table.origin} and in {joined.sealed_origin}; an entity "
            "belongs to one split."
        )
    check_splits(placement, composition, joined)
    return placement


def check_splits(placement: Placed, composition: Composition, joined: Joined) -> None:
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
    counts = composition.split_counts(placement)
    train = [
        counts[composition.label == c, 0].sum() for c in range(len(composition.classes))
    ]
    if not all(train):
        raise DataError(
            f"Split 'train' of {joined.table.origin} lacks a class altogether; the "
            "source has too few rows of it."
        )
