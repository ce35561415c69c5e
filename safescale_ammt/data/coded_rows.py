"""All rows as codes into the distinct texts of their columns, out of memory.

A table is read once into columns of *entries*: each distinct text of the source is an
entry, then each of the sealed file. What is decided or computed of a column is so of
its entries, each of which stands for many rows; of the rows there are only codes left,
one to four bytes a cell, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.shelf import KeptColumns, Shelf
from safescale_ammt.data.table import Left
from safescale_ammt.files.memory import check_fits
from safescale_ammt.reading.blocks import BATCH_ROWS
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.spool import Spool

# Columns that are coded at once, and cells whose texts are made one dictionary at once.
_TOGETHER = 32
_CELLS = 1 << 24
# Bytes that work on distinct texts takes for each byte of them.
_WORK = 6
_NO_TEXT = pa.array([], pa.string())

Places = Callable[[int], NDArray[Any]]
"""Gives the places of the rows of a batch, whole numbers from 0."""


class CodedRows:
    """Rows of a source, then of a sealed file, as codes of entries.

    Attributes:
        rows: in all.
        border: rows of the source, which come first.
        starts: positions of the first rows of the batches, and the end.
        tables: of each side its entries; a column's weights count their rows.
    """

    def __init__(
        self, sides: Sequence[Spool], shelf: Shelf, most: int = BATCH_ROWS
    ) -> None:
        self._scratch, self._most = shelf, most
        self.rows, self.border = sum(side.rows for side in sides), sides[0].rows
        self._codes: dict[str, list[Callable[[], NDArray[Any]]]] = {}
        self._entries: dict[str, int] = {}
        self.starts: list[int] = [0]
        self._first: dict[str, int] = {}
        self.tables = [self._coded(side) for side in sides]

    @property
    def batches(self) -> range:
        """Numbers of the batches, which are asked for by them."""
        return range(len(self.starts) - 1)

    def slice(self, batch: int) -> slice:
        """Returns where the rows of a batch are in the table."""
        return slice(self.starts[batch], self.starts[batch + 1])

    def sealed(self, batch: int) -> bool:
        """Says whether a batch is of the sealed file."""
        return self.starts[batch] >= self.border

    def codes(self, name: str, batch: int) -> NDArray[Any]:
        """Returns the entry (n,) of each row of a batch, in the fewest bytes."""
        return self._codes[name][batch]()

    def count(self, name: str, places: Places, kinds: int) -> NDArray[np.int64]:
        """Counts the rows of every entry by place, int64 (entries, kinds).

        Args:
            name: of the column.
            places: of the rows.
            kinds: number of places.
        """
        size = self._entries[name] * kinds
        found = np.zeros(size, np.int64)
        for batch in self.batches:
            codes = self.codes(name, batch).astype(np.int64) * kinds + places(batch)
            add_counts(found, codes)
        return found.reshape(-1, kinds)

    def entries(self, name: str) -> int:
        """Returns how many entries of a column are of the source; they come first."""
        return self._first[name]

    def stays(self, left: Left, batch: int) -> NDArray[np.bool_]:
        """Returns a mask (n,) of the rows of a batch that are not left out."""
        gone: NDArray[np.bool_] = left.entries[self.codes(left.name, batch)]
        return ~gone

    def kept(self, name: str, left: Left) -> NDArray[np.int64]:
        """Counts the rows of each entry (entries,) of a column that stay."""
        return self.count(name, lambda batch: self.stays(left, batch), 2)[:, 1]

    def first_row(
        self, name: str, entries: NDArray[np.bool_], left: Left | None
    ) -> int:
        """Returns the position of the first row that has one of some entries."""
        for batch in self.batches:
            found = entries[self.codes(name, batch)]
            if left is not None:
                found &= self.stays(left, batch)
            if found.any():
                return self.starts[batch] + int(np.argmax(found))
        raise ValueError("no row has such an entry")

    def _coded(self, side: Spool) -> RawTable:
        """Codes all columns of one side; returns its entries."""
        made: dict[str, Callable[[], Column]] = {}
        for i in range(0, len(side.names), _TOGETHER):
            some = side.names[i : i + _TOGETHER]
            coding = {
                name: Coding(self._entries.get(name, 0), side.origin) for name in some
            }
            held: list[dict[str, Column]] = []
            for batch in regular(side.batches(some), self._most):
                held.append(batch)
                if len(held) * self._most * len(some) >= _CELLS:
                    self._keep(coding, held)
                if i == 0:
                    self.starts.append(self.starts[-1] + len(batch[some[0]]))
            self._keep(coding, held)
            for name, coded in coding.items():
                made[name] = coded.kept(self._scratch)
                self._entries[name] = self._entries.get(name, 0) + len(coded.texts)
                self._first.setdefault(name, len(coded.texts))
        columns = KeptColumns(side.names, lambda name: made[name]())
        return replace(side.outline, columns=columns, rows=side.rows)

    def _keep(self, coding: dict[str, Coding], held: list[dict[str, Column]]) -> None:
        for name, coded in coding.items():
            kept = self._codes.setdefault(name, [])
            for codes in coded.add([batch[name] for batch in held]):
                kept.append(self._scratch.keep(codes))
        held.clear()


class Coding:
    """The distinct texts of a column, in the order in which rows had them first.

    Attributes:
        texts: so far.
        counts: their rows.
    """

    def __init__(self, first: int, origin: str) -> None:
        self.texts, self.counts = _NO_TEXT, np.zeros(0, np.int64)
        self._first, self._origin = first, origin

    def add(self, parts: list[Column]) -> Iterator[NDArray[Any]]:
        """Adds the rows of some batches; yields their codes, from `first` on."""
        indices = [part.codes for part in parts]
        if len(parts) > 1 or (parts and len(self.texts)):
            # Those that were there come first, and keep their codes.
            none = pa.array([], pa.int32())
            chunks = [
                pa.DictionaryArray.from_arrays(codes, texts)
                for codes, texts in [
                    (none, self.texts),
                    *((pa.array(part.codes), part.values) for part in parts),
                ]
            ]
            merged = pa.chunked_array(chunks).unify_dictionaries()
            self.texts = merged.chunk(0).dictionary
            # Refused with a sentence, and not by who watches over the memory.
            check_fits(_WORK * self.texts.nbytes, f"A column of {self._origin}")
            indices = [chunk.indices.to_numpy() for chunk in merged.chunks[1:]]
        elif parts:
            self.texts = parts[0].values
        more = len(self.texts) - len(self.counts)
        self.counts = np.append(self.counts, np.zeros(more, np.int64))
        kind = smallest(self._first + len(self.texts))
        for codes in indices:
            add_counts(self.counts, codes)
            yield codes.astype(kind) + kind.type(self._first)

    def kept(self, shelf: Shelf) -> Callable[[], Column]:
        """Keeps the entries; what is returned gives them back."""
        texts, counts = shelf.keep_texts(self.texts), shelf.keep(self.counts)

        def entries() -> Column:
            values = texts()
            return Column(np.arange(len(values), dtype=np.int32), values, counts())

        return entries


def smallest(size: int) -> np.dtype[Any]:
    """Returns the smallest type of codes below `size`."""
    return np.min_scalar_type(max(size - 1, 0))


def add_counts(counts: NDArray[np.int64], codes: NDArray[Any]) -> None:
    """Adds one to the count of every code, however few of many they are."""
    if len(counts) <= 2 * len(codes):
        counts += np.bincount(codes, minlength=len(counts))
    else:
        np.add.at(counts, codes, 1)


def regular(batches: Iterator[RawTable], most: int) -> Iterator[dict[str, Column]]:
    """Cuts and joins batches into those of so many rows, the last one of the rest.

    A batch that is read holds as many bytes, and fewer rows of more columns.
    """
    held: list[RawTable] = []
    rows = 0
    for batch in batches:
        start = 0
        while start < batch.rows:
            some = min(most - rows, batch.rows - start)
            part = (
                batch if some == batch.rows else batch.take(slice(start, start + some))
            )
            held.append(part)
            rows, start = rows + some, start + some
            if rows == most:
                yield joined(held)
                held, rows = [], 0
    if held:
        yield joined(held)


def joined(parts: Sequence[RawTable]) -> dict[str, Column]:
    """Puts the rows of tables one after another."""
    return {
        name: Column.joined([part.columns[name] for part in parts])
        for name in parts[0].columns
    }
