"""Parquet files of ours that others may have written, read in bounded memory.

Texts are read as dictionaries: a column of one long value is as small in memory as it
is in the file, and what it takes when it is written out is known before it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from safescale_ammt.errors import DataError, IntegrityError
from safescale_ammt.files.disk import CHUNK
from safescale_ammt.files.memory import check_fits
from safescale_ammt.files.regular import Readable

CELL = 16
"""Bytes of a cell that was read: a value of 8, a code of 4, and their copies."""
SPELLED = 40
"""Bytes of a cell while its column is spelled as text, one column at a time."""
ROW_GROUP = 1 << 20
"""Rows of a row group, at most: what Arrow's writer makes of a table."""
TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
"""Types of values of any length."""
_LONG = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")


def text_columns(schema: pa.Schema) -> list[str]:
    """Names the columns whose values may have any length."""
    return [f.name for f in schema if any(fits(f.type) for fits in TEXTS)]


def size_of(
    footer: pq.FileMetaData,
    columns: Collection[str] | None = None,
    group: int | None = None,
) -> int:
    """Returns the bytes that columns take once they are read, texts standing once.

    Args:
        footer: of the file; of several numbers of rows it states, the largest counts.
        columns: those that are read; None = all.
        group: the row group that is read; None = all.
    """
    numbers = range(footer.num_row_groups) if group is None else [group]
    groups = [footer.row_group(i) for i in numbers]
    rows: int = sum(max(0, g.num_rows) for g in groups)
    if group is None:
        rows = max(footer.num_rows, rows)
    size = rows * SPELLED
    for at in range(footer.num_columns):
        column = footer.schema.column(at)
        if columns is not None and column.path not in columns:
            continue
        size += rows * CELL
        if column.physical_type in _LONG:
            parts = (g.column(at).total_uncompressed_size for g in groups)
            size += sum(max(0, part) for part in parts)
    return size


@contextmanager
def parquet_file(
    path: Path | Readable, columns: Sequence[str] | None = None
) -> Iterator[pq.ParquetFile]:
    """Opens a file that fits in memory and has no nested columns.

    Args:
        path: the file.
        columns: those that are read; None = all.

    Raises:
        DataError: its rows do not fit in memory.
        IntegrityError: a column is nested, so that no table of ours is this one.
        OSError, pa.ArrowException: it is not there, or no whole Parquet file.
    """
    file = Readable.of(path)
    with file.open() as source:
        yield fitting(source, file.name, columns)


def fitting(
    source: BinaryIO,
    what: str,
    columns: Sequence[str] | None = None,
    *,
    whole: bool = True,
) -> pq.ParquetFile:
    """Opens bytes as `parquet_file` does a file.

    Args:
        source: the bytes.
        what: names them in a sentence.
        columns: those that are read; None = all.
        whole: whether all rows are held together, or each row group after another.
    """
    footer = pq.read_metadata(source)
    schema = footer.schema.to_arrow_schema()
    if any(pa.types.is_nested(field.type) for field in schema):
        raise IntegrityError(f"{what} has nested columns, a table of ours has none.")
    groups = [None] if whole else range(footer.num_row_groups)
    sizes = (size_of(footer, columns, group) for group in groups)
    check_fits(max(sizes, default=0), what)
    # Read ahead, the bytes of all row groups would be held until the last row is read;
    # without a buffer of its own, each column of a row group is read as a whole.
    return pq.ParquetFile(
        source,
        metadata=footer,
        read_dictionary=text_columns(schema),
        pre_buffer=False,
        buffer_size=CHUNK,
    )


def read_parquet(
    path: Path | Readable, columns: Sequence[str] | None = None
) -> pa.Table:
    """Reads columns of a file, texts written out.

    Raises:
        DataError: it is no whole Parquet file, or its rows do not fit in memory.
        IntegrityError: a column is nested.
    """
    what = Readable.of(path).name
    with _refused(what):
        with parquet_file(path, columns) as file:
            table = file.read(columns=columns)
        coded = [
            i for i, f in enumerate(table.schema) if pa.types.is_dictionary(f.type)
        ]
        check_fits(sum(written_out(table.column(i)) for i in coded), what)
        for i in coded:
            column = table.column(i)
            plain = column.cast(column.type.value_type)
            table = table.set_column(i, table.field(i).name, plain)
        return table


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{what} cannot be read as Parquet ({type(error).__name__})."
        ) from None


def parquet_rows(path: Path | Readable) -> int:
    """Returns the rows that a file states, without reading them.

    Raises:
        DataError: it is no whole Parquet file.
    """
    file = Readable.of(path)
    with _refused(file.name), file.open() as source:
        return int(pq.read_metadata(source).num_rows)


def parquet_batches(
    path: Path | Readable, columns: Sequence[str], rows: int
) -> Iterator[pa.Table]:
    """Reads columns batch by batch, texts coded, in memory for one row group.

    Args:
        path: the file.
        columns: those that are read, as far as they are there.
        rows: of a batch, at most.

    Raises:
        DataError: it is no whole Parquet file, or one of its row groups does not
                fit in memory.
        IntegrityError: a column is nested.
    """
    readable = Readable.of(path)
    with _refused(readable.name), readable.open() as source:
        file = fitting(source, readable.name, columns, whole=False)
        if not file.metadata.num_rows:
            # Without a row there is no batch, but there are columns.
            yield file.read(columns=columns)
        for batch in file.iter_batches(rows, columns=columns):
            yield pa.Table.from_batches([batch])


def fixed_bytes(column: pa.ChunkedArray, kind: np.dtype[Any]) -> NDArray[Any]:
    """Returns the values of a column of so many bytes each, (n,), in a new array.

    No value becomes a Python object, which takes four times the room of a hash.

    Args:
        column: of `pa.binary(width)`, without a null.
        kind: of the array, as wide.
    """
    found, at = np.empty(len(column), kind), 0
    for chunk in column.chunks:
        own = found[at : at + len(chunk)]
        if len(chunk):
            start = chunk.offset * kind.itemsize
            own[:] = np.frombuffer(chunk.buffers()[1], kind, len(chunk), start)
        at += len(chunk)
    return found


def read_fixed(
    path: Path | Readable,
    column: str,
    kind: np.dtype[Any],
    among: Mapping[str, str] | None = None,
) -> NDArray[Any]:
    """Reads a column of so many bytes each, (n,), in the memory of its values.

    Args:
        path: the file.
        column: of `pa.binary(width)`.
        kind: of the array, as wide.
        among: column of texts -> text of the rows that are read; all if None.

    Raises:
        DataError: it is no whole Parquet file, its rows do not fit in memory, or the
            column is of another type or lacks a value.
    """
    file, at = Readable.of(path), 0
    with _refused(file.name), file.open() as source:
        # Opened once: a file that lies apart is fetched whenever it is opened.
        once = Readable(file.name, lambda: nullcontext(source))
        rows = parquet_rows(once)
        check_fits(rows * kind.itemsize, file.name)
        # What is not filled takes no memory.
        found = np.empty(rows, kind)
        for table in parquet_batches(once, [column, *(among or ())], ROW_GROUP):
            values = table[column]
            if values.type != pa.binary(kind.itemsize) or values.null_count:
                raise DataError(
                    f"{file.name} has values of another type in {column!r}."
                )
            for name, text in (among or {}).items():
                values = values.filter(pc.equal(table[name].cast(pa.string()), text))
            found[at : at + len(values)] = fixed_bytes(values, kind)
            at += len(values)
    return found[:at]


def written_out(column: pa.ChunkedArray) -> int:
    """Returns the bytes that a coded column of texts takes when it is written out."""
    lengths = (
        pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py()
        for chunk in column.chunks
    )
    return sum(filter(None, lengths))
