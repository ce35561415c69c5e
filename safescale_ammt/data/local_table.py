"""The rows of a table on one machine: codes of entries, in memory or in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.config.window import Window
from safescale_ammt.data.associations import joint
from safescale_ammt.data.buckets import BUCKET_ROWS, Buckets
from safescale_ammt.data.coded_rows import CodedRows, add_counts, smallest
from safescale_ammt.data.entry_cells import Written
from safescale_ammt.data.placed_rows import PlacedRows
from safescale_ammt.data.preparation import Prepared, prepare
from safescale_ammt.data.relations import REMOVED, RowFacts, Rule
from safescale_ammt.data.rows_here import RowsHere
from safescale_ammt.data.shelf import MEMORY, Shelf
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.data.table import Entity, Filling, PlaceCounts
from safescale_ammt.files.parquet import ROW_GROUP
from safescale_ammt.files.shards import SHARD_ROWS
from safescale_ammt.reading.blocks import BATCH_ROWS
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import spool_table
from safescale_ammt.reading.spool import Spool


@dataclass(frozen=True)
class Held:
    """How much is held at once.

    Attributes:
        batch_rows: rows of a batch, at most.
        bucket_rows: rows among which equal ones are looked for, about.
        memory: bytes of arrays that stay in memory.
        audited_rows: development rows that are audited; of more, about so many.
        shard_rows: rows of a file of a development split: the dataset depends on it.

    Raises:
        ValueError: a shard has no whole number of row groups.
    """

    batch_rows: int = BATCH_ROWS
    bucket_rows: int = BUCKET_ROWS
    memory: int = MEMORY
    audited_rows: int = 2_000_000
    shard_rows: int = SHARD_ROWS

    def __post_init__(self) -> None:
        if self.shard_rows > ROW_GROUP and self.shard_rows % ROW_GROUP:
            raise ValueError(f"{self.shard_rows} is no multiple of {ROW_GROUP}")


HELD = Held()


class LocalTable(CodedRows):
    """A table of this machine, see `table.Table`.

    Args:
        sides: the source, and a sealed file.
        shelf: for what is too much for memory; its folder is for buckets too.
        held: how much is held at once; no answer depends on it.
    """

    def __init__(self, sides: Sequence[Spool], shelf: Shelf, held: Held = HELD) -> None:
        super().__init__(sides, shelf, held.batch_rows)
        self._shelf = shelf
        self._relations = Buckets(self.rows, shelf.folder, held.bucket_rows)
        self._people: list[Callable[[], NDArray[Any]]] = []
        self._here: RowsHere | None = None

    def combine(
        self, columns: Sequence[tuple[str, NDArray[np.int64]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts which codes rows have together."""
        found: dict[tuple[int, ...], int] = {}
        counts = np.zeros(0, np.int64)
        for batch in self.batches:
            codes, parts = joint([of[self.codes(name, batch)] for name, of in columns])
            each = zip(*(part.tolist() for part in parts), strict=True)
            index = np.array([found.setdefault(c, len(found)) for c in each])
            codes = index.astype(smallest(len(found)))[codes]
            counts = np.append(counts, np.zeros(len(found) - len(counts), np.int64))
            add_counts(counts, codes)
            self._people.append(self._shelf.keep(codes))
        return np.array(list(found)), counts

    def place(
        self,
        written: Written,
        strata: NDArray[np.int64],
        stays: NDArray[np.bool_],
        entity: Entity | None,
        rule: Rule,
    ) -> PlaceCounts:
        """Places every row; a development row that is also sealed is removed."""
        hashes = [self._shelf.keep(self.hashes(written, i)) for i in self.batches]

        def facts() -> Iterator[RowFacts]:
            for batch in self.batches:
                rows, people = hashes[batch](), self._people[batch]()
                if written.change is not None:
                    both = np.stack(words(rows), axis=1)
                    both += written.change[self.codes(written.label, batch)]
                    rows = both.view(ROW)[:, 0]
                yield RowFacts(
                    rows,
                    np.full(len(rows), self.sealed(batch)),
                    strata[people].astype(np.uint16),
                    entity and entity[1][self.codes(entity[0], batch)],
                    None if stays.all() else ~stays[people],
                )

        placed = self._relations.place(facts, rule)
        self._here = here = RowsHere(
            self,
            placed,
            written,
            hashes,
            self._people,
            stays,
            self._relations,
        )
        return PlaceCounts(
            here.combined(len(strata))[:, :REMOVED],
            placed.repeated,
            placed.copies,
            placed.dropped,
            placed.thinned,
            placed.shared,
        )

    def placed(self, name: str) -> NDArray[np.int64]:
        """Counts the rows of each entry by place, int64 (entries, REMOVED + 1)."""
        assert self._here
        return self.count(name, self._here.places, REMOVED + 1)

    def filled(self, filling: Filling) -> PlacedRows:
        """Returns the placed rows with types."""
        assert self._here
        return PlacedRows(self._here, filling, self._shelf)

    def hashes(self, written: Written, batch: int) -> NDArray[np.void]:
        """Hashes rows: the sum of their cells' words; see `splitting.row_hashes`."""
        part = self.slice(batch)
        total = np.zeros((part.stop - part.start, 2), np.uint64)
        for name, cell in written.cells.items():
            total += cell.named()[self.codes(name, batch)]
        return total.view(ROW)[:, 0]


def prepare_here(
    config: DataConfig,
    sides: Sequence[Spool],
    held: Held = HELD,
    scratch: Path | None = None,
) -> Prepared:
    """Types and splits rows of this machine, see `preparation.prepare`.

    Args:
        config: roles of the columns, fractions, seed.
        sides: the source, and an official test file, if there is one.
        held: how much is held at once; what is made does not depend on it.
        scratch: private folder for what is too much for memory; None = nothing is.
    """
    shelf = Shelf(scratch, held.memory)
    rows, digests = LocalTable(sides, shelf, held), [*sides[-1].digests.values()]
    return prepare(config, rows, shelf, digests)


@dataclass(frozen=True)
class LocalEngine:
    """Prepares rows of this machine; see `preparation.Engine`.

    Attributes:
        held: how much is held at once.
        scratch: private folder for what is too much for memory.
    """

    held: Held
    scratch: Path

    def read(self, uri: str, layout: Layout, window: Window) -> Spool:
        """Reads every row behind a URI."""
        return spool_table(uri, layout, window, self.scratch)

    def prepared(self, config: DataConfig, sides: Sequence[Spool]) -> Prepared:
        """Types and splits the rows."""
        return prepare_here(config, sides, self.held, self.scratch)
