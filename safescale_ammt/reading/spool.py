"""What one reading of raw rows leaves: one table, in batches that are read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.errors import DataError
from safescale_ammt.reading.blocks import BATCH_ROWS
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.files import File
from safescale_ammt.reading.image_cells import Contents
from safescale_ammt.reading.scratch import array_of

BATCH_BYTES = 1 << 24
"""Bytes of codes and texts from which on a batch takes no further rows."""


@dataclass(frozen=True)
class Spool:
    """Raw rows that were read once, in batches that are read any number of times.

    Attributes:
        names: of the columns, in source order.
        rows: number of rows.
        origin, digests, notes, names_are_safe, commas, unclear: see `RawTable`.
        files: what was read, in the order of the rows.
        kept: names of columns that all files have in one type.
        contents: bytes of the images that cells stand for.
    """

    names: tuple[str, ...]
    rows: int
    origin: str
    digests: Mapping[str, str]
    notes: Mapping[str, int] = field(default_factory=dict)
    names_are_safe: bool = False
    commas: frozenset[str] = frozenset()
    unclear: frozenset[str] = frozenset()
    files: Sequence[File] = ()
    kept: tuple[str, ...] = ()
    contents: Contents = field(default_factory=dict)

    @classmethod
    def of(cls, table: RawTable) -> Spool:
        """Makes a spool of a table that is in memory."""
        file = File(
            table.origin,
            [table.rows] if table.rows else [],
            {name: [column.coded()] for name, column in table.columns.items()},
            kept={name: [a.combine_chunks()] for name, a in table.kept.items()},
        )
        return cls(
            tuple(table.columns),
            table.rows,
            table.origin,
            table.digests,
            table.notes,
            table.names_are_safe,
            table.commas,
            table.unclear,
            [file],
            tuple(table.kept),
        )

    @classmethod
    def of_files(cls, files: Mapping[str, File], origin: str) -> Spool:
        """Makes one table of files that were read.

        Args:
            files: by name, in the order of their rows.
            origin: the URI of all, for sentences.

        Raises:
            DataError: their columns are not the same, or decimal commas of one
                contradict points of another.
        """
        first = next(iter(files.values()))
        for name, file in files.items():
            if file.names != first.names:
                odd = set(file.names) ^ set(first.names)
                # Names stay out of the sentence: a file without a header has a row in
                # their place.
                raise DataError(
                    f"{name} in {origin} has {len(file.names)} columns and the files "
                    f"before it have {len(first.names)}, {len(odd)} of them in one "
                    "only; a folder holds one table, with its columns in one order."
                )
        commas, unclear = agree_on_commas(files, origin)
        kept = [
            name
            for name in first.kept
            if len({file.type_of(name) for file in files.values()}) == 1
        ]
        return cls(
            tuple(first.names),
            sum(sum(file.sizes) for file in files.values()),
            origin,
            {name: file.digest for name, file in files.items()},
            Counter(note for file in files.values() for note in file.notes),
            all(file.names_are_safe for file in files.values()),
            commas,
            unclear,
            [*files.values()],
            tuple(kept),
        )

    @property
    def outline(self) -> RawTable:
        """The table without a row, for what is asked of its names alone."""
        empty = Column.of(pa.chunked_array([], pa.string()))
        return RawTable(
            dict.fromkeys(self.names, empty),
            0,
            self.origin,
            self.digests,
            self.notes,
            self.names_are_safe,
            commas=self.commas,
            unclear=self.unclear,
            contents=self.contents,
        )

    def batches(self, names: Collection[str] | None = None) -> Iterator[RawTable]:
        """Yields the rows in source order, at most `BATCH_ROWS` at a time.

        A column of a batch has the distinct values that the batch has; `start` says how
        many rows lie before it.

        Args:
            names: of the columns that are read; None = all. They keep their order.
        """
        held: list[RawTable] = []
        rows = size = 0
        for block in self._blocks(names):
            for start in range(0, block.rows, BATCH_ROWS):
                part = piece(block, start)
                if held and (rows + part.rows > BATCH_ROWS or size > BATCH_BYTES):
                    yield joined(held)
                    held, rows, size = [], 0, 0
                held.append(part)
                rows, size = rows + part.rows, size + part.nbytes
        if held:
            yield joined(held)

    def table(self, names: Collection[str] | None = None) -> RawTable:
        """Returns all rows as one table, which has to fit in memory."""
        return joined([*self._blocks(names)])

    def _blocks(self, names: Collection[str] | None) -> Iterator[RawTable]:
        """Yields the rows block by block, as they lie."""
        chosen = [n for n in self.names if names is None or n in names]
        outline, start = self.outline, 0
        for file in self.files:
            for at, rows in enumerate(file.sizes):
                columns = {name: file.block(at, name) for name in chosen}
                kept = {
                    name: pa.chunked_array([array_of(file.kept[name][at])])
                    for name in self.kept
                }
                yield replace(
                    outline, columns=columns, rows=rows, kept=kept, start=start
                )
                start += rows


def piece(table: RawTable, start: int) -> RawTable:
    """Returns a batch of a table's rows, from one on."""
    if table.rows <= BATCH_ROWS:
        return table
    rows = table.take(slice(start, start + BATCH_ROWS))
    kept = {name: a.slice(start, BATCH_ROWS) for name, a in table.kept.items()}
    return replace(rows, kept=kept, start=table.start + start)


def joined(tables: Sequence[RawTable]) -> RawTable:
    """Puts the rows of tables with the same columns one after another."""
    first = tables[0]
    if len(tables) == 1:
        return first
    columns = {
        name: Column.joined([table.columns[name] for table in tables])
        for name in first.columns
    }
    kept = {
        name: pa.chunked_array([c for t in tables for c in t.kept[name].chunks])
        for name in first.kept
    }
    rows = sum(table.rows for table in tables)
    return replace(first, columns=columns, rows=rows, kept=kept)


def agree_on_commas(
    files: Mapping[str, File], origin: str
) -> tuple[frozenset[str], frozenset[str]]:
    """Reads unclear commas of a folder's files as its clear ones: one hand wrote it.

    Args:
        files: by name; their `commas` become what all of them agree on.
        origin: the folder, for the sentence.

    Returns:
        Names of columns with a decimal comma in some file, and of those that no file
        makes clear.

    Raises:
        DataError: a column whose commas are unclear has decimal points elsewhere.
    """
    commas = frozenset[str]().union(*(file.commas for file in files.values()))
    unclear = frozenset[str]().union(*(file.unclear for file in files.values()))
    for name, file in files.items():
        file.commas |= file.unclear & commas
        for at, column in enumerate(file.names):
            if column not in unclear - commas - file.unclear:
                continue
            blocks = (pc.match_substring(c.values, ".") for c in file.blocks(column))
            if any(pc.any(points).as_py() for points in blocks):
                raise DataError(
                    f"Column {at + 1} of {name} in {origin} has decimal points, and in "
                    "another file commas that may be decimal signs or part thousands; "
                    "data.decimal says which."
                )
    return commas, unclear - commas
