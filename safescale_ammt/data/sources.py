"""From the bytes behind a URI to a raw table of text columns.

CSV and Parquet, one file or a folder of equal files, on any store. Bytes are
hashed and checked for UTF-8 while they stream by; a broken file is one sentence
that says where it broke. No sentence ever holds a row of data.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safescale_ammt.artifacts import digest_json
from safescale_ammt.data.columns import Column, RawTable
from safescale_ammt.data.csv_reader import (
    CHUNK,
    CsvReader,
    HashedStream,
    Layout,
    check_names,
)
from safescale_ammt.errors import DataError, IntegrityError
from safescale_ammt.storage import open_store, split_uri

__all__ = [
    "Layout",
    "check_digest",
    "content_digest",
    "open_objects",
    "parse_bytes",
    "read_table",
]


def read_table(uri: str, layout: Layout) -> RawTable:
    """Reads every row behind a URI.

    Args:
        uri: `s3://bucket/key` or `file:///path` of a file, or of a folder whose
            `.csv` or `.parquet` files have the same columns.
        layout: how the files are written.

    Raises:
        DataError: nothing there, or bytes that are no such table.
        StoreInputError: missing bucket or credentials.
    """
    tables: list[pa.Table] = []
    digests: dict[str, str] = {}
    for name, origin, stream in open_objects(uri):
        with stream:
            table, digests[name] = _read_one(stream, origin, layout)
        tables.append(table)
    first = tables[0].column_names
    for table, name in zip(tables, digests, strict=True):
        if table.column_names != first:
            raise DataError(
                f"{name} in {uri} has the columns {', '.join(table.column_names)}, "
                f"the files before it have {', '.join(first)}; a folder holds one "
                "table."
            )
    return _raw_table(pa.concat_tables(tables), uri, digests)


def parse_bytes(data: bytes, origin: str, layout: Layout) -> RawTable:
    """Reads a table that is in memory already.

    Raises:
        DataError: the bytes are no such table.
    """
    table, digest = _read_one(io.BytesIO(data), origin, layout)
    return _raw_table(table, origin, {"": digest})


def content_digest(source: str, sealed_source: str = "") -> str:
    """Digests the raw bytes behind both URIs, for `data.source_digest`.

    A copy under another URI has the same digest: names are relative.

    Raises:
        DataError: nothing there.
    """
    parts = {
        role: {name: _stream_digest(stream) for name, _, stream in open_objects(uri)}
        for role, uri in (("source", source), ("sealed", sealed_source))
        if uri
    }
    return digest_json(parts)


def check_digest(expected: str, source: RawTable, sealed: RawTable | None) -> str:
    """Compares what was read with `data.source_digest`; returns what was read.

    Raises:
        IntegrityError: the bytes are not those that the run was started on.
    """
    parts = {"source": dict(source.digests)}
    if sealed is not None:
        parts["sealed"] = dict(sealed.digests)
    found = digest_json(parts)
    if expected and expected != found:
        raise IntegrityError(
            f"The raw data behind {source.origin} changed: data.source_digest is "
            f"{expected}, found {found}."
        )
    return found


def open_objects(uri: str) -> Iterator[tuple[str, str, BinaryIO]]:
    """Yields (relative name, full URI, byte stream) of a file or a folder's files.

    Raises:
        DataError: the URI has no scheme, or nothing readable lies there.
    """
    if "://" not in uri:
        raise DataError(
            f"{uri!r} is no URI; prepare_data reads s3://bucket/key or file:///path, "
            "and `safescale data fetch` brings a built-in data set there."
        )
    store_uri, key = split_uri(uri)
    store = open_store(store_uri)
    if key and not key.endswith("/") and store.exists(key):
        # Parts of one table have names, a single file is the table itself: a
        # copy under another name has the same digest.
        yield "", uri, store.open(key)
        return
    prefix = key.rstrip("/") + "/" if key else ""
    found = sorted(
        info.key
        for info in store.list(prefix)
        if info.key.lower().endswith((".csv", ".parquet"))
    )
    if not found:
        raise DataError(
            f"{uri} does not exist: found neither a file nor a folder of .csv or "
            ".parquet files."
        )
    for name in found:
        origin = f"{uri.rstrip('/')}/{name[len(prefix) :]}"
        yield name[len(prefix) :], origin, store.open(name)


def _stream_digest(stream: BinaryIO) -> str:
    sha = hashlib.sha256()
    with stream:
        while chunk := stream.read(CHUNK):
            sha.update(chunk)
    return "sha256:" + sha.hexdigest()


def _raw_table(table: pa.Table, origin: str, digests: dict[str, str]) -> RawTable:
    names = table.column_names
    columns = {name: Column.of(table.column(i)) for i, name in enumerate(names)}
    return RawTable(columns, table.num_rows, origin, digests)


def _read_one(stream: BinaryIO, origin: str, layout: Layout) -> tuple[pa.Table, str]:
    """Reads one file; returns its table (dictionary columns) and digest."""
    hashed = HashedStream(stream, origin)
    if layout.format == "parquet" or (layout.format == "auto" and hashed.is_parquet):
        table = _read_parquet(hashed, origin)
    else:
        table = CsvReader(hashed, origin, layout).read()
    check_names(table.column_names, origin)
    if table.num_rows == 0:
        raise DataError(f"{origin} has column names but no rows.")
    return table, hashed.digest()


def _read_parquet(hashed: HashedStream, origin: str) -> pa.Table:
    data = io.BufferedReader(hashed, CHUNK).read()
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException:
        raise DataError(
            f"{origin} is not a whole Parquet file ({len(data)} bytes)."
        ) from None
    for column in table.schema:
        if not _is_plain(column.type):
            raise DataError(
                f"Column {column.name!r} of {origin} holds {column.type}; a table has "
                "numbers and text only."
            )
    arrays = [pc.dictionary_encode(pc.cast(c, pa.string())) for c in table.columns]
    return pa.table(arrays, names=table.column_names)


def _is_plain(kind: pa.DataType) -> bool:
    """Says whether a Parquet type has a spelling as text."""
    types = pa.types
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return any(
        test(kind)
        for test in (
            types.is_boolean,
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_string,
            types.is_large_string,
            types.is_date,
            types.is_timestamp,
            types.is_null,
        )
    )
