"""Reads the bytes of one Parquet file, or says why not without a value of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safescale_ammt.errors import DataError
from safescale_ammt.files.memory import Room
from safescale_ammt.files.parquet import size_of, text_columns
from safescale_ammt.printable import printable
from safescale_ammt.reading.blocks import BATCH_ROWS, BLOCK_BYTES, Blocks
from safescale_ammt.reading.byte_streams import CHUNK
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.csv_rows import LONGEST_ROW
from safescale_ammt.reading.header import check_width, without_index
from safescale_ammt.reading.typed_texts import check_times, coded_texts, times_outside

# What pyarrow says and no row can be in. Its numbers may be values: they are hidden.
_SAFE_REASONS = re.compile(
    r"(Integer value [-\d]+ not in range"
    r"|Unexpected end of stream"
    r"|Corrupt \w+ compressed data"
    r"|could not verify page integrity"
    r"|Unknown encoding type"
    r"|Not yet implemented: [A-Za-z ]{1,60}"
    r"|Nested data conversions not implemented)"
)


_TYPES = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_null,
)
"""Parquet types that have a spelling as text; lists and structs have none."""


def check_schema(schema: pa.Schema, origin: str) -> None:
    """Refuses what no table here has, before a value is read.

    Raises:
        DataError: too many columns, or one of lists, structs and the like.
    """
    check_width(len(schema), origin)
    for at, field in enumerate(schema):
        coded = pa.types.is_dictionary(field.type)
        kind = field.type.value_type if coded else field.type
        if not any(fits(kind) for fits in _TYPES):
            name = printable(field.name)
            raise DataError(
                f"Column {at + 1} ({name!r}) of {origin} holds {field.type}; a table "
                "has numbers, text, dates and booleans, data.drop does not change "
                "that: write it as one of these, or leave it out of the file."
            )


class ParquetReader:
    """Reads one Parquet file column by column of a few row groups.

    Texts come as dictionaries: a column of one long value then takes four bytes a row,
    as it does in the file.

    Attributes:
        names: of the columns; once all rows are read, those that stay.
        places: positions of the columns that stay, among those of the file.
        notes: what was found out about the file, one short sentence each.

    Args:
        source: the whole file: the list of its columns is a footer at the end.
        size: its bytes.
        origin: the file, for the sentence.
        layout: which columns the config uses, and which are kept as they are.

    Raises:
        DataError: the footer is not there, or describes a table that is none of ours.
    """

    def __init__(
        self, source: pa.NativeFile, size: int, origin: str, layout: Layout
    ) -> None:
        self.origin = origin
        self.layout = layout
        self.notes: list[str] = []
        try:
            file = pq.ParquetFile(source)
            schema = file.schema_arrow
            self._file = pq.ParquetFile(
                source,
                metadata=file.metadata,
                read_dictionary=text_columns(schema),
                # Page by page: a row group of millions of rows is never held.
                pre_buffer=False,
                buffer_size=CHUNK,
            )
        except (pa.ArrowException, OSError):
            raise DataError(
                f"{origin} is not a whole Parquet file ({size} bytes)."
            ) from None
        check_schema(schema, origin)
        # A blank name is none: nobody could say which column is meant.
        self.names: list[str] = [name if name.strip() else "" for name in schema.names]
        self.places = [*range(len(self.names))]
        self._longest = dict.fromkeys(self.places, 0)
        self._outside = dict.fromkeys(self.places, 0)
        self._faults: dict[int, DataError] = {}
        self._room = Room.in_memory()

    def read(self, blocks: Blocks) -> None:
        """Reads all rows into blocks, columns by their positions in the file.

        Raises:
            DataError: the rows do not fit, or pyarrow refuses what the file describes.
        """
        footer = self._file.metadata
        if blocks.scratch.folder is None:
            self._room.check(size_of(footer), self.origin)
        for groups, rows in spans(footer):
            for at in self.places:
                for column in self.pieces(groups, at, rows):
                    self.add(blocks, at, column)
        self.check(blocks)
        if blocks.rows:
            self.places, self.notes = without_index(
                self.names, blocks.column, self.origin, self.layout.chosen
            )
            self.names = [self.names[at] for at in self.places]

    def check(self, blocks: Blocks) -> None:
        """Refuses what stands out once all rows are read, of the first column first.

        Raises:
            DataError: a text is too long, a value has no text, or columns differ in
                their rows.
        """
        for at, longest in self._longest.items():
            if longest > LONGEST_ROW:
                raise DataError(
                    f"Column {at + 1} of {self.origin} has a value of {longest:,} "
                    f"bytes, at most {LONGEST_ROW:,} are read; leave it out of the "
                    "file."
                )
        for at, name in enumerate(self.names):
            if at in self._faults:
                raise self._faults[at]
            check_times(self._outside[at], name, self.origin)
        if any(blocks.lengths[at] != blocks.sizes for at in self.places):
            raise DataError(
                f"{self.origin} is a damaged Parquet file: its columns have different "
                "numbers of rows; fetch it again."
            )

    def pieces(self, groups: list[int], at: int, rows: int) -> Iterator[pa.Array]:
        """Yields a column of row groups, so many rows at a time."""
        footer = self._file.metadata
        # A page may be as large as all of its column in the group.
        for group in groups:
            size = footer.row_group(group).column(at).total_uncompressed_size
            self._room.check(size, f"A row group of {self.origin}")
        held: list[pa.Array] = []
        try:
            for batch in self._file.reader.iter_batches(
                rows, groups, column_indices=[at], use_threads=False
            ):
                part = batch.column(0)
                # Where a dictionary ends, a batch is shorter than was asked for.
                while len(part) and (some := rows - sum(map(len, held))):
                    held.append(part[:some])
                    part = part[some:]
                    if sum(map(len, held)) == rows:
                        yield pa.chunked_array(held)
                        held = []
            if held:
                yield pa.chunked_array(held)
        except (pa.ArrowException, OSError) as error:
            said = _SAFE_REASONS.search(str(error))
            reason = re.sub(r"-?\d+", "...", said.group()) if said else ""
            raise DataError(
                f"{self.origin} is a whole Parquet file that pyarrow {pa.__version__} "
                f"refuses ({type(error).__name__}{': ' if reason else ''}{reason}); "
                "write it anew with plain text in place of dictionaries (categories)."
            ) from None

    def add(self, blocks: Blocks, at: int, column: pa.ChunkedArray) -> None:
        """Adds the next rows of a column as texts; what is wrong is told later."""
        if pa.types.is_dictionary(column.type):
            longest = (pc.max(pc.binary_length(c.dictionary)) for c in column.chunks)
            sizes = [size.as_py() or 0 for size in longest]
            self._longest[at] = max(self._longest[at], *sizes)
        name = self.names[at]
        if at in self._faults:
            return
        try:
            texts = coded_texts(column, name, self.origin)
        except DataError as error:
            # Of several columns the first is told, whichever has the earlier row.
            self._faults[at] = error
            return
        self._outside[at] += times_outside(column.type, texts)
        blocks.add(at, Column.of(texts, distinct=True))
        if name in self.layout.keep and self.names.count(name) == 1:
            blocks.keep(name, column.combine_chunks())


def spans(footer: pq.FileMetaData) -> Iterator[tuple[list[int], int]]:
    """Yields row groups that are read at once, and how many rows make a block.

    Small groups are read together, and of rows that are large a block has fewer.
    """
    groups: list[int] = []
    rows = size = 0
    for at in range(footer.num_row_groups):
        group = footer.row_group(at)
        more, bytes_ = max(0, group.num_rows), max(0, group.total_byte_size)
        if groups and (rows + more > BATCH_ROWS or size + bytes_ > BLOCK_BYTES):
            yield groups, rows_of_block(rows, size)
            groups, rows, size = [], 0, 0
        groups.append(at)
        rows, size = rows + more, size + bytes_
    if groups:
        yield groups, rows_of_block(rows, size)


def rows_of_block(rows: int, size: int) -> int:
    """Returns the rows of a block where so many rows take so many bytes."""
    return max(1, min(BATCH_ROWS, BLOCK_BYTES * rows // max(1, size)))
