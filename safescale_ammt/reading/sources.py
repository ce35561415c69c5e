"""From the bytes behind a URI to a raw table of text columns.

CSV and Parquet, one file or a folder of equal files, on any store. Bytes are hashed
while they stream by; a broken file is one sentence that says where it broke. No
sentence ever holds a row of data.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.config.window import Days, Window, choose, has_date
from safescale_ammt.errors import DataError, IntegrityError
from safescale_ammt.files.canonical import digest_json, digest_stream
from safescale_ammt.reading.byte_streams import (
    HashedStream,
    TextStream,
    Unpacked,
    read_whole,
)
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.csv_reader import CsvReader, Layout
from safescale_ammt.reading.dialect import with_points
from safescale_ammt.reading.header import check_names, without_index
from safescale_ammt.reading.parquet_reader import parse_parquet
from safescale_ammt.reading.partitions import is_data, with_partitions
from safescale_ammt.reading.spool import Spool
from safescale_ammt.reading.typed_texts import as_texts
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store, split_uri

ALL = Window()
"""Every file of a folder."""


def read_table(uri: str, layout: Layout, window: Window = ALL) -> RawTable:
    """Reads every row behind a URI.

    Args:
        uri: `s3://bucket/key` or `file:///path` of a file, or of a folder whose
            `.csv`, `.tsv` or `.parquet` files have the same columns.
        layout: how the files are written.
        window: which of a folder's dated files.

    Raises:
        DataError: nothing there, or bytes that are no such table.
        StoreInputError: missing bucket or credentials.
    """
    files: dict[str, _File] = {}
    for name, origin, stream in open_objects(uri, window):
        with stream:
            # The day that a window chooses files by is no column of the table.
            folders = [
                folder
                for folder in name.split("/")[:-1]
                if not (window and has_date(folder))
            ]
            files[name] = _read_one(stream, origin, layout, folders)
    # `concat_tables` refuses other columns too, without a word on which file has them.
    # Names stay out of the sentence: a file without a header has a row in their place.
    tables = [file.table for file in files.values()]
    columns = tables[0].column_names
    for name, table in zip(files, tables, strict=True):
        if table.column_names != columns:
            odd = set(table.column_names) ^ set(columns)
            raise DataError(
                f"{name} in {uri} has {len(table.column_names)} columns and the files "
                f"before it have {len(columns)}, {len(odd)} of them in one only; a "
                "folder holds one table, with its columns in one order."
            )
    return _raw_table(files, uri, layout.missing)


def spool_table(uri: str, layout: Layout, window: Window, scratch: Path) -> Spool:
    """Reads every row behind a URI once, in bounded memory.

    Args:
        uri: as in `read_table`, which raises the same.
        layout: how the files are written.
        window: which of a folder's dated files.
        scratch: a private folder that outlives the spool; rows that are many lie there,
            in a file without a name.

    Raises:
        StorageError: the scratch folder's disk is full.
    """
    return Spool.of(read_table(uri, layout, window))


def parse_bytes(data: bytes, origin: str, layout: Layout) -> RawTable:
    """Reads a table that is in memory already.

    Raises:
        DataError: the bytes are no such table.
    """
    file = _read_one(io.BytesIO(data), origin, layout)
    return _raw_table({"": file}, origin, layout.missing)


def content_digest(source: str, sealed_source: str = "", window: Window = ALL) -> str:
    """Digests the raw bytes behind both URIs, for `data.source_digest`.

    A copy under another URI has the same digest: names are relative.

    Raises:
        DataError: nothing there, or nothing in the window.
    """
    days = chosen_days(source, window)
    parts = {"source": _digests(source, days.window if days else ALL)}
    if sealed_source:
        parts["sealed"] = _digests(sealed_source, window_of_sealed(sealed_source, days))
    return digest_json(parts)


def chosen_days(source: str, window: Window) -> Days | None:
    """Says which days of a folder a window comes to; None without a window.

    Raises:
        DataError: the source is no folder of dated files, or has none in the window.
    """
    if not window:
        return None
    files = _Files.at(source)
    if files.single:
        raise DataError(
            f"{source} is one file; data.window {str(window)!r} chooses among the "
            "dated files of a folder."
        )
    return choose(window, files.names, source)


def window_of_sealed(sealed_source: str, days: Days | None) -> Window:
    """Returns what an official test set is cut down to: a folder to the same days."""
    # A single file is one official test set whatever the day, and stays whole.
    if days is None or _Files.at(sealed_source).single:
        return ALL
    return days.window


def check_digest(expected: str, source: RawTable, sealed: RawTable | None) -> str:
    """Compares what was read with `data.source_digest`; returns what was read.

    Raises:
        IntegrityError: the bytes are not those that the run was started on.
    """
    parts = {"source": dict(source.digests)}
    if sealed is not None:
        parts["sealed"] = dict(sealed.digests)
    digest = digest_json(parts)
    if expected and expected != digest:
        raise IntegrityError(
            f"The raw data behind {source.origin} changed: data.source_digest is "
            f"{expected}, found {digest}. A run is of the rows that it was made for: "
            "start a new one for these."
        )
    return digest


def open_objects(uri: str, window: Window = ALL) -> Iterator[tuple[str, str, BinaryIO]]:
    """Yields (relative name, full URI, byte stream) of a file or a folder's files.

    Raises:
        DataError: the URI has no scheme, or nothing readable lies there or in the
            window.
    """
    files = _Files.at(uri)
    days = chosen_days(uri, window)
    for name in days.files if days else files.names:
        origin = f"{uri.rstrip('/')}/{name}" if name else uri
        yield name, origin, files.store.open(files.prefix + name)


@dataclass(frozen=True)
class _Files:
    """What lies behind a URI: a folder's files, or one file.

    Attributes:
        store: the store that holds them.
        prefix: key of the folder with a slash, or of the file.
        names: below the prefix, sorted; of a single file "": it is the table itself,
            and a copy under another name has the same digest.
    """

    store: Store
    prefix: str
    names: tuple[str, ...]

    @property
    def single(self) -> bool:
        return self.names == ("",)

    @classmethod
    def at(cls, uri: str) -> _Files:
        if "://" not in uri:
            raise DataError(
                f"{uri!r} is no URI; prepare_data reads s3://bucket/key or "
                "file:///path, and `safescale data fetch` brings a built-in data set "
                "there."
            )
        store_uri, key = split_uri(uri)
        store = open_store(store_uri)
        # A store has no folders: a key that is no object is a prefix of some.
        if key and not key.endswith("/") and store.exists(key):
            return cls(store, key, ("",))
        prefix = key.rstrip("/") + "/" if key else ""
        keys = (info.key for info in store.list(prefix))
        # Beside the data lie `_SUCCESS`, checksums, notes. Sorted, since the order of
        # the files is the order of the rows, and a store may list in any.
        names = sorted(
            key.removeprefix(prefix)
            for key in keys
            if is_data(key.removeprefix(prefix))
        )
        if not names:
            raise DataError(
                f"{uri} does not exist: found neither a file nor a folder of .csv, "
                ".tsv or .parquet files."
            )
        return cls(store, prefix, tuple(names))


def _digests(uri: str, window: Window) -> dict[str, str]:
    digests = {}
    for name, _, stream in open_objects(uri, window):
        with stream:
            digests[name] = digest_stream(stream)
    return digests


@dataclass(frozen=True)
class _File:
    """One file that was read.

    Attributes:
        table: dictionary-coded text.
        digest: of its bytes as they are stored.
        notes: what was found out about how it is written.
        names_are_safe: they come from a schema or the config, and are no row.
        kept: columns in their own types, of a Parquet file.
        commas: names of columns whose decimal comma has become a point.
        unclear: those whose commas may be decimal signs or part thousands.
    """

    table: pa.Table
    digest: str
    notes: tuple[str, ...]
    names_are_safe: bool
    kept: Mapping[str, pa.ChunkedArray]
    commas: frozenset[str] = frozenset()
    unclear: frozenset[str] = frozenset()


def _raw_table(
    files: Mapping[str, _File], origin: str, missing: Sequence[str]
) -> RawTable:
    commas = frozenset[str]().union(*(file.commas for file in files.values()))
    unclear = frozenset[str]().union(*(file.unclear for file in files.values()))
    table = pa.concat_tables(agreed_commas(files, origin, missing))
    names = table.column_names
    columns = {name: Column.of(table.column(i)) for i, name in enumerate(names)}
    arrays = [file.kept for file in files.values()]
    kept = {
        name: pa.chunked_array([c for part in arrays for c in part[name].chunks])
        for name in arrays[0]
        if all(part.get(name) is not None for part in arrays)
        and len({part[name].type for part in arrays}) == 1
    }
    return RawTable(
        columns,
        table.num_rows,
        origin,
        {name: file.digest for name, file in files.items()},
        notes=Counter(note for file in files.values() for note in file.notes),
        names_are_safe=all(file.names_are_safe for file in files.values()),
        kept=kept,
        commas=commas,
        unclear=unclear - commas,
    )


def agreed_commas(
    files: Mapping[str, _File], origin: str, missing: Sequence[str]
) -> list[pa.Table]:
    """Reads unclear commas of a folder's files as its clear ones: one hand wrote it.

    Args:
        files: by name.
        origin: the folder, for the sentence.
        missing: spellings of a missing value.

    Raises:
        DataError: a column whose commas are unclear has decimal points elsewhere.
    """
    commas = frozenset[str]().union(*(file.commas for file in files.values()))
    unclear = frozenset[str]().union(*(file.unclear for file in files.values()))
    tables = []
    for name, file in files.items():
        settled = [file.table.column_names.index(n) for n in file.unclear & commas]
        tables.append(with_points(file.table, settled, missing))
        for column in unclear - commas - file.unclear:
            at = file.table.column_names.index(column)
            if pc.any(pc.match_substring(file.table[at].cast("string"), ".")).as_py():
                raise DataError(
                    f"Column {at + 1} of {name} in {origin} has decimal points, and in "
                    "another file commas that may be decimal signs or part thousands; "
                    "data.decimal says which."
                )
    return tables


def _read_one(
    stream: BinaryIO, origin: str, layout: Layout, folders: Sequence[str] = ()
) -> _File:
    """Reads one file; the folders that it lies in may spell columns (`g=01`)."""
    hashed = HashedStream(stream)
    data = Unpacked(hashed, origin)
    notes = [f"packed by {data.packing}"] if data.packing else []
    commas = unclear = frozenset[str]()
    is_parquet = layout.format == "parquet" or (
        layout.format == "auto" and data.is_parquet
    )
    kept: dict[str, pa.ChunkedArray] = {}
    if is_parquet:
        table = parse_parquet(read_whole(data, origin), origin)
        names = table.column_names
        kept = {n: table.column(n) for n in layout.keep if names.count(n) == 1}
        # As text, like a CSV file: what a column holds is decided later, for both.
        texts = [as_texts(table[i], name, origin) for i, name in enumerate(names)]
        table = pa.table(texts, names=table.column_names)
        table, left_out = without_index(table, origin, layout.chosen)
    else:
        text = TextStream(data, origin, layout.encoding)
        reader = CsvReader(text, origin, layout)
        table, left_out = reader.read(), reader.notes
        commas, unclear = (
            frozenset(table.column_names[i] for i in places)
            for places in (reader.commas, reader.unclear)
        )
        if text.encoding != "utf-8":
            notes.append(f"spelled in {text.encoding}")
    table = with_partitions(table, folders, origin)
    check_names(table.column_names, origin, layout.chosen)
    if table.num_rows == 0:
        raise DataError(f"{origin} has column names but no rows.")
    safe = is_parquet or bool(layout.columns)
    notes += left_out
    digest = hashed.digest()
    return _File(table, digest, tuple(notes), safe, kept, commas, unclear)
