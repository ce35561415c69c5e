"""Object storage: one contract for an S3 bucket and for a folder.

`open_store("s3://bucket/prefix")` and `open_store("file:///folder")` give the
same `Store`. Every write is whole or absent: a reader never sees half an
object, and `put(..., if_absent=True)` is atomic, so that of two writers exactly
one wins. The ledger and the registry rest on that one promise.

S3 credentials and endpoint come from the standard environment (`s3.py`); the
client library is imported only when an `s3://` URI is opened.
"""

from __future__ import annotations

import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from safescale_ammt.errors import StoreInputError
from safescale_ammt.files.artifacts import MANIFEST
from safescale_ammt.files.disk import (
    CHUNK,
    PARTIAL,
    local_disk,
    private_folder,
    written,
)
from safescale_ammt.files.regular import walk

CONDITIONAL_LIMIT = 64 << 20
"""Largest conditional write, bytes: one request. SeaweedFS 4.48 was seen to let
two racing conditional *multipart* uploads both win; single requests never."""
_LONGEST_KEY = 1024  # bytes, the limit of S3


@dataclass(frozen=True)
class ObjectInfo:
    """One object: its key, size in bytes, version tag and time of writing."""

    key: str
    size: int
    etag: str
    modified: datetime


class Store(ABC):
    """A flat name space of objects; keys look like relative POSIX paths."""

    uri: str

    @abstractmethod
    def put(
        self, key: str, data: bytes | BinaryIO | Path, *, if_absent: bool = False
    ) -> None:
        """Writes an object, streaming; memory stays bounded.

        Args:
            key: name of the object.
            data: its bytes, an open binary file, or the path of a file.
            if_absent: write only if nobody has written the key, atomically; at
                most `CONDITIONAL_LIMIT` bytes.

        Raises:
            PreconditionFailed: `if_absent`, and the object exists.
            StoreInputError: no such bucket, no right to write, a bad key.
            StorageError: the store is full, broken or gone; nothing half-written
                stays behind.
        """

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """Opens an object for streaming; a short read is an error, never an end.

        Raises:
            StoreInputError: no such object or bucket, or no right to read.
            StorageError: the store failed.
        """

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """Returns what the store knows of an object, None if it has none."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Lists all objects whose key begins with `prefix`, in no fixed order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Deletes an object; one that is not there is no error."""

    @abstractmethod
    def holds(self, info: ObjectInfo, path: Path) -> bool:
        """Says whether the object surely has the bytes of a local file."""

    def lock(self, key: str, until: datetime) -> str:
        """Locks an object, so that nobody destroys it before a time.

        A lock is never shortened: one that lasts longer stays.

        Returns:
            The id of the version that is locked, which stays though another one, or
            a delete marker, be put over it.

        Raises:
            StoreInputError: the store has no object lock, or no such object.
        """
        raise StoreInputError(
            f"{self.uri}/{key} cannot be locked until {until:%Y-%m-%d}: the store has "
            "no object lock. Take an S3 bucket that was made with it, or set "
            "registry.record_retention_days to 0."
        )

    def exists(self, key: str) -> bool:
        """Says whether an object is there.

        Raises:
            StoreInputError: the bucket itself is not there, or no right to look.
        """
        return self.stat(key) is not None

    def get(self, key: str, most: int | None = None) -> bytes:
        """Reads a whole object, of at most so many bytes; the errors of `open`."""
        with self.open(key) as stream:
            data = stream.read(-1 if most is None else most + 1)
        if most is not None and len(data) > most:
            raise StoreInputError(
                f"{self.uri}/{key} has more than {most:,} bytes, the most that an "
                "object of its kind has."
            )
        return data

    def get_listed(self, info: ObjectInfo, most: int) -> bytes:
        """Reads a small object that a listing has just told of, as `get` does.

        A store may keep its bytes, and asks again once a listing tells of others.
        """
        return self.get(info.key, most)

    def digest(self, key: str) -> str:
        """Returns `sha256:<hex>` of an object, streamed."""
        sha = hashlib.sha256()
        with self.open(key) as stream:
            while chunk := stream.read(CHUNK):
                sha.update(chunk)
        return "sha256:" + sha.hexdigest()

    def download(self, key: str, path: Path | str) -> None:
        """Copies an object into a local file, written aside and moved there."""
        path = Path(path)
        with self.open(key) as source, local_disk(f"downloading {key}"):
            private_folder(path.parent)
            # In the same folder: a rename is atomic within one file system only.
            aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}"
            with written(aside, source):
                aside.replace(path)

    def upload_folder(self, folder: Path | str, prefix: str) -> int:
        """Copies a folder under `prefix`; unchanged objects are not sent again.

        Manifests go last, the outermost last of all: whoever finds
        `manifest.json` under the prefix finds the whole artifact.

        Returns:
            The number of files sent.

        Raises:
            StoreInputError: the folder does not exist or holds no file, or
                it holds a link, a pipe or what else is no regular file.
        """
        folder, prefix = Path(folder), prefix.strip("/")
        if not (names := list(walk(folder)) if folder.is_dir() else []):
            raise StoreInputError(
                f"{folder} holds no file, so there is nothing to put into "
                f"{self.uri}/{prefix}."
            )
        # One listing: a request for each file would cost more than small files do.
        infos = {info.key: info for info in self.list(f"{prefix}/")}
        sent = 0
        for name in sorted(names, key=_manifests_last):
            key, path = f"{prefix}/{name}", folder / name
            if path.is_symlink():
                raise StoreInputError(f"{path} is a link, so it is not stored.")
            if key not in infos or not self.holds(infos[key], path):
                self.put(key, path)
                sent += 1
        return sent

    def download_folder(self, prefix: str, folder: Path | str) -> int:
        """Copies every object under `prefix/` into a folder, manifests last.

        Returns:
            The number of files fetched; unchanged local files are kept.

        Raises:
            StoreInputError: nothing is stored under the prefix, or a key would
                leave the folder.
        """
        folder, prefix = Path(folder), prefix.strip("/")
        skip = len(prefix) + 1
        infos = {info.key[skip:]: info for info in self.list(f"{prefix}/")}
        if not infos:
            raise StoreInputError(f"nothing is stored under {self.uri}/{prefix}/.")
        fetched = 0
        for name in sorted(infos, key=_manifests_last):
            # Others may write to the bucket: no key of theirs leaves the folder.
            path = folder / check_key(name)
            if not (path.is_file() and self.holds(infos[name], path)):
                self.download(infos[name].key, path)
                fetched += 1
        return fetched


def check_key(key: str, *, prefix: bool = False) -> str:
    """Returns a key that cannot leave its store.

    Args:
        key: the key, or the beginning of keys.
        prefix: `key` is a beginning: it may be empty or end in a slash.

    Raises:
        StoreInputError: the key is empty, absolute, too long, or climbs.
    """
    parts = key.split("/")
    if prefix and parts[-1] == "":
        parts.pop()
    # What a folder would resolve, a bucket takes literally: such a key would name two
    # different objects in the two. No file name holds a NUL; Windows splits at "\\".
    climbs = any(part in ("", ".", "..", PARTIAL) for part in parts)
    too_long = len(key.encode()) > _LONGEST_KEY
    if climbs or too_long or "\0" in key or "\\" in key:
        raise StoreInputError(
            f"{key[:100]!r} is not allowed as an object's key: a relative path of at "
            f"most {_LONGEST_KEY} bytes without '..' or '{PARTIAL}' is expected."
        )
    return key


def _manifests_last(name: str) -> tuple[bool, int, str]:
    path = PurePosixPath(name)
    is_manifest = path.name == MANIFEST
    # Deepest first: an inner artifact is whole before the outer one that holds it.
    return is_manifest, -len(path.parts) if is_manifest else 0, name
