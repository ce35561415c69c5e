"""What every column of the joined rows holds, and what its encoding is.

The development rows decide what a column holds, the train rows how it is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import IMAGE, SPLITS, DataConfig
from safescale_ammt.data.encoding import learn_categorical, learn_date, learn_numeric
from safescale_ammt.data.image_entries import as_images, image_feature
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.raw_rows import as_form, as_levels, as_numbers
from safescale_ammt.data.relations import ALL_SPLITS
from safescale_ammt.data.schema import Feature
from safescale_ammt.data.shelf import KeptColumns, Shelf
from safescale_ammt.data.typed_entries import TypedEntries
from safescale_ammt.data.unseen import refuse_near_unique
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.date_forms import DateForm
from safescale_ammt.reading.readings import Readings


class PlacedColumns:
    """The columns of all rows, with the rows of each entry by their places.

    Attributes:
        joined: the columns.
        development: the entries that development rows have, by name.
    """

    def __init__(self, joined: Joined, shelf: Shelf) -> None:
        self.joined, self._scratch = joined, shelf
        self._counts: dict[str, Callable[[], NDArray[np.int64]]] = {}
        names = joined.table.columns
        self.development = KeptColumns(names, lambda name: self.among(name, *SPLITS))

    def rows(self, name: str, *splits: str) -> NDArray[np.int64]:
        """Returns how many rows of some splits have each entry, int64 (entries,)."""
        if name not in self._counts:
            self._counts[name] = self._scratch.keep(self.joined.rows.placed(name))
        counts = self._counts[name]()
        places = [ALL_SPLITS.index(split) for split in splits]
        return np.asarray(counts[:, places].sum(axis=1))

    def among(self, name: str, *splits: str) -> Column:
        """Returns the entries that rows of some splits have, with their rows."""
        return self.joined.table.columns[name].weighed(self.rows(name, *splits))


def feature_columns(config: DataConfig, columns: Mapping[str, Column]) -> list[str]:
    """Names the columns that may be model inputs, in source order."""
    # An entity's name says nothing of the next entity; a net would learn it by heart.
    excluded = {config.label, config.entity, *config.drop, *config.ids}
    excluded |= {*config.references}
    if not config.sensitive_in_model:
        excluded |= set(config.sensitive)
    return [name for name in columns if name not in excluded]


def typed_columns(
    config: DataConfig, columns: PlacedColumns, readings: Readings, shelf: Shelf
) -> tuple[dict[str, TypedEntries], list[str]]:
    """Types the input columns; returns them and the names of constant ones.

    What a column holds is decided on the development rows alone.

    Raises:
        DataError: a text among numbers or dates, near-unique texts, or no column left.
    """
    joined, typed, constant = columns.joined, {}, []
    for name in feature_columns(config, joined.table.columns):
        known = columns.development[name]
        # Missing spellings are one value: a column of "?" and "NA" is constant.
        few = len(known.values) <= len(config.missing) + 1
        if few and len(known.renamed(dict.fromkeys(config.missing, "")).values) == 1:
            constant.append(name)
        else:
            entries = typed_entries(config, joined, readings, name, known)
            typed[name] = TypedEntries.of(entries, shelf)
    if not typed:
        raise DataError(
            f"{joined.table.origin} has no column left that could be a model input."
        )
    return typed, constant


def typed_entries(
    config: DataConfig, joined: Joined, readings: Readings, name: str, known: Column
) -> pa.Array:
    """Types the entries of one column; those that no row has are null.

    Args:
        config: declares what columns hold.
        joined: all rows.
        readings: forms of columns of text.
        name: of the column.
        known: the entries of the development rows.
    """
    whole, missing = joined.table.columns[name], config.missing
    used = whole.stands_for > 0
    column, border = (
        whole.weighed(whole.stands_for),
        int(used[: joined.rows.entries(name)].sum()),
    )

    def first_row(mask: NDArray[np.bool_]) -> str:
        entries = np.zeros(len(used), np.bool_)
        entries[used] = mask
        return joined.row_name(name, entries)

    if config.has_images and name == IMAGE:
        contents = joined.table.contents
        found = as_images(column, contents, image_feature(name, known), first_row)
    elif form := readings.forms.get(name):
        found = as_form(column, name, form, missing, first_row, border=border)
    elif name in config.numeric or (
        name not in config.categorical and known.numbers(missing) is not None
    ):
        # A sealed text in a column of numbers is an error here, not a new type.
        found = as_numbers(column, name, missing, first_row)
    else:
        if name not in config.text_columns:
            refuse_near_unique(name, known, missing, readings.unclear.get(name, ""))
        found = as_levels(column, missing)
    if used.all():
        return found
    # A place beyond the end is none: such an entry has no value.
    place = np.where(used, np.cumsum(used) - 1, 0)
    return found.take(pa.array(place, mask=~used))


def learnt_features(
    config: DataConfig,
    columns: PlacedColumns,
    typed: Mapping[str, TypedEntries],
    readings: Readings,
) -> tuple[Feature, ...]:
    """Learns the encoding of every input column from the train rows alone."""
    features: list[Feature] = []
    bins, most = config.numeric_bins, config.max_levels
    for name, entries in typed.items():
        rows = columns.rows(name, "train")
        used = np.flatnonzero(rows)
        if config.has_images:
            features.append(image_feature(name, columns.development[name]))
        elif pa.types.is_floating(entries.kind):
            features.append(learn_numeric(name, entries.load()[used], bins, rows[used]))
        elif pa.types.is_timestamp(entries.kind):
            form, times = readings.forms[name], entries.array(used)
            zoned = isinstance(form, DateForm) and form.zoned
            features.append(
                learn_date(name, times, zoned, bins, most, weights=rows[used])
            )
        else:
            train = columns.among(name, "train")
            features.append(learn_categorical(name, train, config.missing, most))
    return tuple(features)
