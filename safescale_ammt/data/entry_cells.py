"""The cells of all rows as words of entries, by which rows are hashed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.reading.cells import Cells, Words, salted
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.readings import Form, learn_readings, read_columns
from safescale_ammt.reading.spelling import Kinds


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


@dataclass(frozen=True)
class Written:
    """The cells of all rows as the files spell them, the label too.

    Attributes:
        kinds: of values, by column.
        forms: by which cells are read before they are hashed.
        missing: spellings of a missing value.
        cells: of the entries of each column.
        label: its name.
        change: words (entries, 2) that make of a row's hash one that is equal for
            copies, whatever a file calls their label; None = there is no difference.
    """

    kinds: Kinds
    forms: Mapping[str, Form]
    missing: tuple[str, ...]
    cells: Mapping[str, EntryCells]
    label: str
    change: Words | None

    @classmethod
    def of(
        cls,
        config: DataConfig,
        written: RawTable,
        source: Mapping[str, Column],
        merged: Column,
        *,
        kinds: Kinds,
        shelf: Shelf,
    ) -> Written:
        """Reads the cells of all rows.

        A row is the same whatever its numbers and dates look like, so they are read; of
        the config only what settles how they are written has a part in it.

        Args:
            config: spelled by kinds.
            written: entries of all rows, the label as the files spell it.
            source: those that rows of the source have.
            merged: the label with its spellings merged.
            kinds: of values, by column.
            shelf: for words.
        """
        plain = DataConfig(
            numbers=config.numbers,
            dates=config.dates,
            decimal=config.decimal,
            missing=(*DataConfig().missing, *config.missing),
        )
        learnt = replace(written, columns=source)
        forms = learn_readings(plain, learnt, kinds).forms
        cells, label = {}, config.label
        for name, column in written.columns.items():
            one = replace(written, columns={name: column})
            read = read_columns(one, forms, plain.missing).columns[name]
            cells[name] = EntryCells.of(name, read, shelf)
        change = EntryCells.of(label, merged, shelf).named() - cells[label].named()
        known = change if change.any() else None
        return cls(kinds, forms, tuple(plain.missing), cells, label, known)

    @property
    def shift(self) -> Words:
        """The words (2,) of the columns that are equal in all rows."""
        constants = [c.constant for c in self.cells.values() if c.constant is not None]
        return reduce(add, constants, np.zeros(2, np.uint64))
