"""Reads the bytes of one Parquet file, or says why not without a value of it."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safescale_ammt.errors import DataError
from safescale_ammt.files.memory import check_fits
from safescale_ammt.files.parquet import size_of, text_columns
from safescale_ammt.printable import printable
from safescale_ammt.reading.csv_reader import LONGEST_ROW
from safescale_ammt.reading.header import check_width

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


def parse_parquet(data: bytes, origin: str) -> pa.Table:
    """Parses a Parquet file.

    Texts come as dictionaries: a column of one long value then takes four bytes a row,
    as it does in the file.

    Args:
        data: the whole file: the list of its columns is a footer at the end.
        origin: the file, for the sentence.

    Raises:
        DataError: the footer is not there, describes a table that is none of ours or
            does not fit in memory, or pyarrow refuses what it describes.
    """
    buffer = pa.BufferReader(data)
    try:
        file = pq.ParquetFile(buffer)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError):
        raise DataError(
            f"{origin} is not a whole Parquet file ({len(data)} bytes)."
        ) from None
    check_schema(schema, origin)
    check_fits(size_of(file.metadata), origin)
    table = _decoded(buffer, file.metadata, text_columns(schema), origin)
    check_values(table, origin)
    return table


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


def check_values(table: pa.Table, origin: str) -> None:
    """Refuses a text that is longer than a row of a CSV file may be.

    Raises:
        DataError: such a text.
    """
    for at, column in enumerate(table.columns):
        coded = pa.types.is_dictionary(column.type)
        texts = [chunk.dictionary for chunk in column.chunks if coded]
        longest = max(
            (pc.max(pc.binary_length(t)).as_py() or 0 for t in texts), default=0
        )
        if longest > LONGEST_ROW:
            raise DataError(
                f"Column {at + 1} of {origin} has a value of {longest:,} bytes, at "
                f"most {LONGEST_ROW:,} are read; leave it out of the file."
            )


def _decoded(
    buffer: pa.BufferReader, footer: pq.FileMetaData, texts: list[str], origin: str
) -> pa.Table:
    try:
        return pq.ParquetFile(buffer, metadata=footer, read_dictionary=texts).read()
    except (pa.ArrowException, OSError) as error:
        said = _SAFE_REASONS.search(str(error))
        reason = re.sub(r"-?\d+", "...", said.group()) if said else ""
        raise DataError(
            f"{origin} is a whole Parquet file that pyarrow {pa.__version__} refuses "
            f"({type(error).__name__}{': ' if reason else ''}{reason}); write it anew "
            "with plain text in place of dictionaries (categories)."
        ) from None
