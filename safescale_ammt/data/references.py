"""References: what the data are held against where they alone cannot show a bias.

Recorded labels alone do not say which of them are flipped, rows do not say who is
missing, and a wide column does not say whether people or the measurement vary. A
trusted label on some rows, the population's shares and a second measurement do.
Columns of references are no inputs, and travel as far as the audit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.data.typed_entries import TypedEntries
from safescale_ammt.data.typing_columns import PlacedColumns, typed_entries
from safescale_ammt.errors import DataError
from safescale_ammt.reading.readings import Readings


@dataclass(frozen=True)
class References:
    """What a config declares to hold the data against.

    Attributes:
        trusted_label: column of trusted labels; "" = none.
        population: by group the share of each of its values.
        repeats: by input the column of its second measurement.
        label_map: spellings of classes.
        label_other: class of every label that `label_map` does not name; "" = its own.
    """

    trusted_label: str = ""
    population: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    repeats: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, str] = field(default_factory=dict)
    label_other: str = ""

    @classmethod
    def of(cls, config: DataConfig) -> References:
        """Takes them from the config."""
        return cls(
            config.trusted_label,
            config.population,
            config.repeats,
            config.label_map,
            config.label_other,
        )

    def trusted(self, schema: Schema, column: pa.ChunkedArray) -> NDArray[np.int64]:
        """Returns the class (n,) that each row is trusted to have; -1 of rows without.

        Raises:
            DataError: a trusted label that is no class.
        """
        coded = column.combine_chunks().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        named = {
            text: self.label_map.get(text, self.label_other or text) for text in texts
        }
        classes = {name: code for code, name in enumerate(schema.classes)}
        of_text = np.array([classes.get(named[text], -2) for text in texts] or [-2])
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        found = np.where(codes < 0, -1, of_text[np.maximum(codes, 0)])
        # A class that no model knows would count as a flip of each of its rows.
        if strangers := int((found == -2).sum()):
            raise DataError(
                f"{strangers} development rows have a trusted label "
                f"({self.trusted_label!r}) that is no class of {schema.label!r}; "
                "data.label_map merges spellings, data.missing names what stands for "
                "none."
            )
        return found


NO_REFERENCES = References()


def reference_readings(config: DataConfig, readings: Readings) -> Readings:
    """Returns the forms of columns, where a repeat has that of its input."""
    forms = {
        n: form for n, form in readings.forms.items() if n not in config.references
    }
    same = {
        repeat: readings.forms[name]
        for name, repeat in config.repeats.items()
        if name in readings.forms
    }
    return replace(readings, forms=forms | same)


def reference_entries(
    config: DataConfig,
    columns: PlacedColumns,
    readings: Readings,
    typed: Mapping[str, TypedEntries],
    shelf: Shelf,
) -> dict[str, TypedEntries]:
    """Types the columns of references; a repeat is read as its input is.

    Args:
        config: names them.
        columns: of all rows.
        readings: as `reference_readings` gives them.
        typed: the inputs.
        shelf: for entries.

    Raises:
        DataError: a repeat of what is no input, or a cell of another type.
    """
    if strangers := sorted(set(config.repeats) - set(typed)):
        raise DataError(
            f"data.repeats names {strangers[0]!r}, which is no input, or the same in "
            "all development rows; name inputs, each with the column of its repeat."
        )
    kinds = {name: typed[name].kind for name in config.repeats}
    asked = replace(
        config,
        numeric=(
            *config.numeric,
            *(
                config.repeats[n]
                for n, kind in kinds.items()
                if pa.types.is_floating(kind)
            ),
        ),
        # A text is a level, however many there are: it is only compared. So is a class.
        categorical=(
            *config.categorical,
            *((config.trusted_label,) if config.trusted_label else ()),
            *(
                config.repeats[n]
                for n, kind in kinds.items()
                if pa.types.is_string(kind)
            ),
        ),
    )
    return {
        name: TypedEntries.of(
            typed_entries(
                asked, columns.joined, readings, name, columns.development[name]
            ),
            shelf,
        )
        for name in config.references
    }
