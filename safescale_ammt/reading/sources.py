"""From the bytes behind a URI to a raw table of text columns.

CSV and Parquet, one file or a folder of equal files, and images, on any store. Bytes
are hashed while they stream by; a broken file is one sentence that says where it broke.
No sentence ever holds a row of data.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from safescale_ammt.config.window import Days, Window, choose, has_date
from safescale_ammt.errors import DataError, IntegrityError
from safescale_ammt.files.canonical import digest_json, digest_stream
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.files import File, read_file
from safescale_ammt.reading.image_sources import image_digests, spool_images
from safescale_ammt.reading.images import ImageLayout
from safescale_ammt.reading.partitions import is_data
from safescale_ammt.reading.scratch import Scratch
from safescale_ammt.reading.spool import Spool
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
    return _spooled(uri, layout, window, Scratch()).table()


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
    return _spooled(uri, layout, window, Scratch(scratch))


def spool_stream(stream: BinaryIO, origin: str, layout: Layout, scratch: Path) -> Spool:
    """Reads the rows of one open file once, in bounded memory; see `spool_table`.

    Raises:
        DataError: the bytes are no such table.
        StorageError: the scratch folder's disk is full.
    """
    file = read_file(stream, origin, layout, Scratch(scratch))
    return Spool.of_files({"": file}, origin)


def parse_bytes(data: bytes, origin: str, layout: Layout) -> RawTable:
    """Reads a table that is in memory already.

    Raises:
        DataError: the bytes are no such table.
    """
    file = read_file(io.BytesIO(data), origin, layout, Scratch())
    return Spool.of_files({"": file}, origin).table()


def content_digest(
    source: str,
    sealed_source: str = "",
    window: Window = ALL,
    images: ImageLayout | None = None,
) -> str:
    """Digests the raw bytes behind both URIs, for `data.source_digest`.

    A copy under another URI has the same digest: names are relative.

    Args:
        source: URI of the development rows.
        sealed_source: URI of the sealed rows; "" = none.
        window: which of a folder's dated files.
        images: where images are, of sources that have some.

    Raises:
        DataError: nothing there, or nothing in the window.
    """
    if images:
        uris = {"source": source} | ({"sealed": sealed_source} if sealed_source else {})
        return digest_json({r: image_digests(uri, images) for r, uri in uris.items()})
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


class Side(Protocol):
    """Raw rows that were read, wherever they are; see `RawTable`."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def origin(self) -> str:
        """The URI, for sentences."""

    @property
    def digests(self) -> Mapping[str, str]:
        """Digests of the raw bytes by object name."""

    @property
    def notes(self) -> Mapping[str, int]:
        """What was found out about how files are written -> number of files."""


def check_digest(expected: str, source: Side, sealed: Side | None) -> str:
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
    for name in names_behind(uri, window):
        yield name, origin_of(uri, name), files.store.open(files.prefix + name)


def names_behind(uri: str, window: Window = ALL) -> tuple[str, ...]:
    """Lists the files of a folder by their relative names; of a file it is "".

    Raises:
        DataError: as `open_objects`.
    """
    days = chosen_days(uri, window)
    return tuple(days.files) if days else _Files.at(uri).names


def origin_of(uri: str, name: str) -> str:
    """Returns the URI of a file below another."""
    return f"{uri.rstrip('/')}/{name}" if name else uri


def folders_of(name: str, window: Window) -> list[str]:
    """Returns the folders of a file that may spell a column, outermost first."""
    # The day that a window chooses files by is no column of the table.
    folders = name.split("/")[:-1]
    return [folder for folder in folders if not (window and has_date(folder))]


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


def _spooled(uri: str, layout: Layout, window: Window, scratch: Scratch) -> Spool:
    if layout.images:
        return spool_images(uri, layout.images, scratch)
    files: dict[str, File] = {}
    for name, origin, stream in open_objects(uri, window):
        with stream:
            folders = folders_of(name, window)
            files[name] = read_file(stream, origin, layout, scratch, folders)
    return Spool.of_files(files, uri)
