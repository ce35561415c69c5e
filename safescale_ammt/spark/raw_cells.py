"""Raw rows in Spark's workers: their cells spelled, read and hashed, batch by batch.

All that decides how a cell is read was decided from entries and is handed in, so that a
batch gives what the whole table would. A worker finds these by their names, in the same
version of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.entry_cells import EntryCells, Written
from safescale_ammt.data.splitting import row_hashes, words
from safescale_ammt.reading.cells import Cells
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.number_forms import NumberForm
from safescale_ammt.reading.readings import Form, read_columns
from safescale_ammt.reading.spelling import Kinds, spelled_table
from safescale_ammt.spark.faults import Batches
from safescale_ammt.spark.keys import signed, unsigned

Array = TypeVar("Array", bound=NDArray[Any])


@dataclass(frozen=True)
class RawCells:
    """How the cells of raw rows are read.

    Attributes:
        names: of the columns `c0`, `c1` and so on.
        kinds: of values, by column.
        forms, missing: by which cells are read before they are hashed, see
            `entry_cells.Written`.
        commas: columns of a sealed file whose unclear commas are decimal signs, as the
            source has them; None = there is no such file.
        unset: spellings of a missing value that such commas leave alone.
    """

    names: tuple[str, ...]
    kinds: Kinds
    forms: Mapping[str, Form]
    missing: tuple[str, ...]
    commas: frozenset[str] | None = None
    unset: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, tables: Sequence[RawTable], written: Written, unset: Sequence[str]
    ) -> RawCells:
        """Reads cells of rows as those of entries were read.

        Args:
            tables: entries of the source, and of a sealed file.
            written: their cells.
            unset: spellings of a missing value.
        """
        source, *sealed = tables
        return cls(
            tuple(source.columns),
            written.kinds,
            written.forms,
            written.missing,
            sealed[0].unclear & source.commas if sealed else None,
            tuple(unset),
        )

    def sides(self, batches: Batches) -> Iterator[tuple[pa.RecordBatch, bool]]:
        """Yields rows of one side each, and whether they are of a sealed file."""
        for batch in batches:
            if self.commas is None:
                yield batch, False
                continue
            sealed = batch["sealed"]
            for side in (False, True):
                some = batch.filter(pc.equal(sealed, side))
                if some.num_rows:
                    yield some, side

    def spelled(
        self, batch: pa.RecordBatch, names: Iterable[str], *, sealed: bool
    ) -> RawTable:
        """Spells some columns of rows of one side, as `preparation.spelled_sides`."""
        columns = {
            name: Column.of(pa.chunked_array([batch[f"c{self.names.index(name)}"]]))
            for name in names
        }
        table = spelled_table(RawTable(columns, batch.num_rows, "", {}), self.kinds)
        if not sealed:
            return table
        settled = dict.fromkeys(self.commas or (), NumberForm(","))
        return read_columns(table, settled, self.unset)

    def cells(self, batch: pa.RecordBatch, *, sealed: bool) -> dict[str, Cells]:
        """Returns the cells of rows of one side as the files spell them."""
        table = self.spelled(batch, self.names, sealed=sealed)
        read = read_columns(table, self.forms, self.missing)
        return {name: Cells.of(column) for name, column in read.columns.items()}

    def hashed(self, batches: Batches) -> Batches:
        """Hashes rows; `changed_high` and `changed_low` are added to their hash.

        Returns:
            The rows without these, with `high` and `low`, halves of their hash as the
            files spell them, and `same_high` and `same_low`, of one that is equal for
            copies.
        """
        for batch, sealed in self.sides(batches):
            hashes = row_hashes(self.cells(batch, sealed=sealed))
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            for half, word in zip(("high", "low"), words(hashes), strict=True):
                change = unsigned(columns.pop(f"changed_{half}").to_numpy())
                columns[half] = pa.array(signed(word))
                columns[f"same_{half}"] = pa.array(signed(word + change))
            yield pa.RecordBatch.from_pydict(columns)

    def entry_cells(
        self, batch: pa.RecordBatch, *, sealed: bool
    ) -> tuple[dict[str, EntryCells], dict[str, NDArray[np.int32]]]:
        """Returns the cells of distinct values and the value of each row, by column."""
        found = self.cells(batch, sealed=sealed)
        # As if they were entries: nothing is known of all rows here.
        cells = {
            name: EntryCells(
                partial(as_it_is, c.words),
                partial(c.named, name),
                partial(as_it_is, c.numbers),
                partial(as_it_is, c.texts),
                None,
                counter=False,
            )
            for name, c in found.items()
        }
        return cells, {name: c.codes for name, c in found.items()}


def as_it_is(array: Array) -> Array:
    """Returns an array that is at hand already."""
    return array
