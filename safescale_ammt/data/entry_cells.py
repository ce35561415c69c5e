"""The cells of all rows as words of entries, by which rows are hashed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.coded_rows import CodedRows
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.shelf import KeptColumns, Shelf
from safescale_ammt.data.splitting import ROW
from safescale_ammt.reading.cells import Cells, Words, salted
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.readings import Form, learn_readings, read_columns
from safescale_ammt.reading.spelling import Kinds

Hashes = Callable[[int], NDArray[np.void]]
"""Gives the row hashes V16 (n,) of a batch."""


@dataclass(frozen=True)
class EntryCells:
    """The cells of the entries of one column.

    Attributes:
        words: gives uint64 (entries, 2), hashes of the canonical texts.
        named: gives the same as only a column of this name has them.
        numbers, texts: give bool (entries,); a gap is neither.
        constant: the one named cell (2,) that all rows have; None if they differ.
        counter: whether the column only numbers the rows.
    """

    words: Callable[[], Words]
    named: Callable[[], Words]
    numbers: Callable[[], NDArray[np.bool_]]
    texts: Callable[[], NDArray[np.bool_]]
    constant: Words | None
    counter: bool

    @classmethod
    def of(cls, name: str, column: Column, shelf: Shelf) -> EntryCells:
        """Hashes the entries of a column, those that no row has as any other."""
        used = np.flatnonzero(column.stands_for)
        cells = Cells.of(column.weighed(column.stands_for))
        codes = np.zeros(len(column), np.int32)
        codes[used] = cells.codes
        named = cells.named(name)
        return cls(
            shelf.keep(cells.words[codes]),
            shelf.keep(named[codes]),
            shelf.keep(cells.numbers[codes]),
            shelf.keep(cells.texts[codes]),
            named[0] if cells.constant else None,
            cells.counter,
        )

    def renamed(self, name: str) -> Words:
        """Returns the words (entries, 2) that a column of another name had."""
        return salted(self.words(), name)


def written_cells(
    config: DataConfig, joined: Joined, kinds: Kinds, shelf: Shelf
) -> dict[str, EntryCells]:
    """Returns the cells of all rows as the files spell them, the label too.

    A row is the same whatever its numbers and dates look like, so they are read; of
    the config only what settles how they are written has a part in it.
    """
    written = joined.written
    columns = written.table.columns
    source = KeptColumns(columns, written.of_source)
    forms, missing = written_forms(config, replace(joined.table, columns=source), kinds)
    cells = {}
    for name in columns:
        one = replace(joined.table, columns={name: columns[name]})
        read = read_columns(one, forms, missing).columns[name]
        cells[name] = EntryCells.of(name, read, shelf)
    return cells


def written_forms(
    config: DataConfig, source: RawTable, kinds: Kinds
) -> tuple[Mapping[str, Form], tuple[str, ...]]:
    """Finds by what forms cells are read before they are hashed.

    Args:
        config: spelled by kinds.
        source: its rows, spelled by kinds, the label as the files have it.
        kinds: of its columns.

    Returns:
        Forms by column, and the spellings of a missing value.
    """
    plain = DataConfig(
        numbers=config.numbers,
        dates=config.dates,
        decimal=config.decimal,
        missing=(*DataConfig().missing, *config.missing),
    )
    return learn_readings(plain, source, kinds).forms, tuple(plain.missing)


def hashed_rows(
    coded: CodedRows, cells: Mapping[str, EntryCells], shelf: Shelf
) -> Hashes:
    """Hashes every row: the sum of its cells' words; see `splitting.row_hashes`."""
    kept = []
    for batch in coded.batches:
        part = coded.slice(batch)
        total = np.zeros((part.stop - part.start, 2), np.uint64)
        for name, cell in cells.items():
            total += cell.named()[coded.codes(name, batch)]
        kept.append(shelf.keep(total.view(ROW)[:, 0]))
    return lambda batch: kept[batch]()
