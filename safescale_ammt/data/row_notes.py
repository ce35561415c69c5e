"""What an auditor wants to know of the rows that became the splits, counted."""

from __future__ import annotations

import numpy as np

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.composition import Composition
from safescale_ammt.data.counts import told_part
from safescale_ammt.data.data_facts import sharing
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.relations import SEALED_CODE
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.table import PlaceCounts, PlacedTable


def development_notes(
    joined: Joined,
    placement: PlaceCounts,
    composition: Composition,
    schema: Schema,
    constant: list[str],
) -> dict[str, object]:
    """Counts the rows that were left out or are repeated, and the empty groups."""
    size = joined.rows.rows - sum(joined.unlabelled)

    def told(key: str, count: int, whole: int | None = None) -> dict[str, object]:
        # A plain table, as before a key existed, says nothing of it.
        return {key: told_part(count, whole) if whole else count} if count else {}

    source, sealed = joined.unlabelled
    first, later = placement.dropped
    strangers = list(joined.strangers)
    thinned, judged = placement.thinned, placement.sizes[SEALED_CODE]
    return {
        **told("unlabelled_rows_dropped", source),
        **told("unlabelled_sealed_rows_dropped", sealed, size),
        **({"label_map_names_without_rows": strangers} if strangers else {}),
        **told("repeated_rows_dropped", first),
        **told("repeated_sealed_rows_dropped", later, size),
        # Told of every table with entities: that there are none is a count too.
        **(
            {
                "sealed_rows_beside_one_of_their_entity": told_part(
                    thinned, thinned + judged
                )
            }
            if schema.entity
            else {}
        ),
        "constant_columns_dropped": constant,
        "development_rows_also_sealed_removed": placement.copies,
        "development_rows_repeated": placement.repeated,
        "empty_groups": empty_groups(composition, placement),
    }


def empty_groups(
    composition: Composition, placement: PlaceCounts
) -> dict[str, dict[str, list[str]]]:
    """Names the group values without a row, by split and group."""
    counts = placement.counts
    empty: dict[str, dict[str, list[str]]] = {}
    for i, split in enumerate(SPLITS):
        for name, (values, codes) in composition.groups.items():
            sizes = np.bincount(codes, counts[:, i], minlength=len(values))
            unused = [v for v, n in zip(values, sizes, strict=True) if n == 0]
            if unused:
                empty.setdefault(split, {})[name] = unused
    return empty


def sharing_features(rows: PlacedTable, schema: Schema) -> int:
    """Counts distinct development records whose features another one has too.

    No model tells them apart, so their labels bound what any model can reach.
    """
    # Repeated raw rows are counted by themselves: here one of each is enough.
    return sum(sharing(times)[0] for times, _ in rows.text_times(schema.names))


def shared_images(rows: PlacedTable, judged: int) -> dict[str, int | str]:
    """Counts the sealed images that a development row has too, under another label.

    Those with the same label were taken from development.

    Args:
        rows: with the inputs of all splits.
        judged: sealed rows.
    """
    across = sum(int((times - own)[own > 0].sum()) for times, own in rows.times())
    return {"sealed_images_also_in_development": told_part(across, judged)}
