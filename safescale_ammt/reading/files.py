"""One file of raw rows, read once: what it says, and its columns in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.errors import DataError
from safescale_ammt.reading.blocks import Blocks
from safescale_ammt.reading.byte_streams import HashedStream, TextStream, Unpacked
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.csv_reader import CsvReader, Layout
from safescale_ammt.reading.dialect import with_points
from safescale_ammt.reading.header import check_names
from safescale_ammt.reading.parquet_reader import ParquetReader
from safescale_ammt.reading.partitions import partitions
from safescale_ammt.reading.scratch import Held, Scratch, array_of


@dataclass
class File:
    """One file that was read.

    Attributes:
        origin: its URI.
        sizes: rows of each block.
        columns: blocks of texts by name, in the order of the file.
        folders: texts of columns that its folders spell, by name; they come last.
        kept: blocks of columns in their own types, of a Parquet file.
        digest: of its bytes as they are stored.
        notes: what was found out about how it is written.
        names_are_safe: they come from a schema or the config, and are no row.
        commas: names of columns whose decimal comma becomes a point when it is read.
        unclear: those whose commas may be decimal signs or part thousands.
        missing: spellings of a missing value, which keep their commas.
    """

    origin: str
    sizes: Sequence[int]
    columns: Mapping[str, Sequence[Held]]
    folders: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, Sequence[Held]] = field(default_factory=dict)
    digest: str = ""
    notes: Sequence[str] = ()
    names_are_safe: bool = False
    commas: frozenset[str] = frozenset()
    unclear: frozenset[str] = frozenset()
    missing: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The names of its columns."""
        return [*self.columns, *self.folders]

    def type_of(self, name: str) -> pa.DataType | None:
        """The type of a column that is kept, None if it is not."""
        return array_of(self.kept[name][0]).type if name in self.kept else None

    def block(self, at: int, name: str) -> Column:
        """Returns a column's texts of one block of rows."""
        if name in self.folders:
            text = pa.array([self.folders[name]], pa.string())
            codes = np.zeros(self.sizes[at], np.int32)
            return Column(codes, pc.utf8_trim_whitespace(text))
        column = Column.decoded(array_of(self.columns[name][at]))
        return with_points(column, self.missing) if name in self.commas else column

    def blocks(self, name: str) -> Iterator[Column]:
        """Yields a column block by block."""
        return (self.block(at, name) for at in range(len(self.sizes)))


def read_file(
    stream: BinaryIO,
    origin: str,
    layout: Layout,
    scratch: Scratch,
    folders: Sequence[str] = (),
) -> File:
    """Reads one file; the folders that it lies in may spell columns (`g=01`).

    Args:
        stream: its bytes.
        origin: its URI, for sentences.
        layout: how it is written.
        scratch: takes its columns.
        folders: names of the folders, outermost first.

    Raises:
        DataError: the bytes are no such table, or there is no room for it.
        StorageError: the disk of the scratch folder is full.
    """
    hashed = HashedStream(stream)
    data = Unpacked(hashed, origin, scratch.room)
    notes = [f"packed by {data.packing}"] if data.packing else []
    is_parquet = layout.format == "parquet" or (
        layout.format == "auto" and data.is_parquet
    )
    blocks = Blocks(scratch, origin)
    reader: CsvReader | ParquetReader
    if is_parquet:
        with scratch.copied(data, origin) as (source, size):
            reader = ParquetReader(source, size, origin, layout)
            reader.read(blocks)
        commas = unclear = frozenset[str]()
    else:
        text = TextStream(data, origin, layout.encoding)
        reader = CsvReader(text, origin, layout)
        reader.read(blocks)
        commas, unclear = frozenset(reader.commas), frozenset(reader.unclear)
        if text.encoding != "utf-8":
            notes.append(f"spelled in {text.encoding}")
    spelled = partition_columns(reader, blocks, folders)
    check_names([*reader.names, *spelled], origin, layout.chosen)
    if not blocks.rows:
        raise DataError(f"{origin} has column names but no rows.")
    places = zip(reader.names, reader.places, strict=True)
    return File(
        origin,
        blocks.sizes,
        {name: blocks.held[at] for name, at in places},
        spelled,
        blocks.kept,
        hashed.digest(),
        [*notes, *reader.notes],
        is_parquet or bool(layout.columns),
        commas,
        unclear,
        layout.missing,
    )


def partition_columns(
    reader: CsvReader | ParquetReader, blocks: Blocks, folders: Sequence[str]
) -> dict[str, str]:
    """Returns the texts of the columns that a file's folders alone spell, by name.

    Raises:
        DataError: the file has such a column itself, with other values.
    """
    spelled: dict[str, str] = {}
    for name, text in partitions(folders):
        if name in reader.names:
            at = reader.places[reader.names.index(name)]
            same = all(c.values.to_pylist() == [text] for c in blocks.column(at))
        else:
            same = spelled.setdefault(name, text) == text
        if not same:
            raise DataError(
                f"{blocks.origin} has a column {name!r} and lies in a folder that "
                "gives it another value; rename one of them."
            )
    return spelled
