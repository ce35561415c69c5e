"""Row hashes, made of the texts of one batch of rows in Spark's workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from safescale_ammt.data.splitting import row_hashes, words
from safescale_ammt.reading.cells import Cells
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.number_forms import NumberForm
from safescale_ammt.reading.readings import Form, read_columns
from safescale_ammt.reading.spelling import Kinds, spelled_table
from safescale_ammt.spark.files import Batches
from safescale_ammt.spark.keys import signed

HASHED = "at bigint, high bigint, low bigint"


@dataclass(frozen=True)
class RowHashing:
    """How rows are hashed; all of it was decided from entries.

    Attributes:
        names: of the columns, in order.
        kinds: of values, by column.
        forms, missing: by which cells are read, see `entry_cells.written_forms`.
        commas: columns of a sealed file whose unclear commas are decimal signs, as the
            source has them.
        unset: spellings of a missing value that such commas leave alone.
    """

    names: tuple[str, ...]
    kinds: Kinds
    forms: Mapping[str, Form]
    missing: tuple[str, ...]
    commas: frozenset[str] = frozenset()
    unset: tuple[str, ...] = ()

    def hashed(self, batches: Batches) -> Batches:
        """Hashes rows, batches with `at` and the texts `c0`, `c1` and so on."""
        settled = dict.fromkeys(self.commas, NumberForm(","))
        for batch in batches:
            columns = {
                name: Column.of(pa.chunked_array([batch[f"c{i}"]]))
                for i, name in enumerate(self.names)
            }
            table = spelled_table(RawTable(columns, batch.num_rows, "", {}), self.kinds)
            if settled:
                table = read_columns(table, settled, self.unset)
            table = read_columns(table, self.forms, self.missing)
            cells = {name: Cells.of(column) for name, column in table.columns.items()}
            high, low = (pa.array(signed(word)) for word in words(row_hashes(cells)))
            hashed = {"at": batch["at"], "high": high, "low": low}
            yield pa.RecordBatch.from_pydict(hashed)
