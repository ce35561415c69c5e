"""A store in a folder: the contract of `Store` on a local or shared disk.

An object is one file. It is written aside under `.partial/`, brought to disk
(fsync) and then moved by `rename`, or, for a conditional write, by `link`,
which the file system refuses if the name is taken: atomic on both accounts.
"""

from __future__ import annotations

import filecmp
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from safescale_ammt.errors import (
    PreconditionFailed,
    StorageError,
    StoreInputError,
)
from safescale_ammt.files.disk import PARTIAL, local_disk, reading, written
from safescale_ammt.store.base import ObjectInfo, Store, check_key


class FileStore(Store):
    """Objects as files below `root`, which the first write creates."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = self.root.as_uri()

    def put(
        self, key: str, data: bytes | BinaryIO | Path, *, if_absent: bool = False
    ) -> None:
        """Writes an object; see `Store.put`."""
        path = self._path(key)
        with local_disk(f"writing {key} to {self.uri}"), reading(data) as source:
            aside = self.root / PARTIAL / uuid.uuid4().hex
            aside.parent.mkdir(parents=True, exist_ok=True)
            with written(aside, source):
                self._make_room(path, key)
                if if_absent:
                    self._link(aside, path, key)
                else:
                    aside.replace(path)
                _sync_folder(path.parent)

    def open(self, key: str) -> BinaryIO:
        """Opens an object; see `Store.open`."""
        path = self._path(key)
        with local_disk(f"reading {key} from {self.uri}"):
            if path.is_file():
                return path.open("rb")
        raise StoreInputError(f"{self.uri}/{key} does not exist.")

    def stat(self, key: str) -> ObjectInfo | None:
        """Describes an object; see `Store.stat`."""
        path = self._path(key)
        with local_disk(f"looking for {key} in {self.uri}"):
            return self._info(path) if path.is_file() else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Lists objects; see `Store.list`."""
        check_key(prefix, prefix=True)
        top = self.root / prefix.rpartition("/")[0]
        for folder, subfolders, names in os.walk(top):
            if PARTIAL in subfolders:
                subfolders.remove(PARTIAL)
            for name in names:
                path = Path(folder, name)
                if self._key(path).startswith(prefix):
                    # Another process may have deleted it since the walk.
                    with suppress(FileNotFoundError):
                        yield self._info(path)

    def delete(self, key: str) -> None:
        """Deletes an object; see `Store.delete`."""
        path = self._path(key)
        with local_disk(f"deleting {key} from {self.uri}"):
            path.unlink(missing_ok=True)

    def holds(self, info: ObjectInfo, path: Path) -> bool:
        """Compares byte by byte; see `Store.holds`."""
        mine = self._path(info.key)
        return info.size == path.stat().st_size and filecmp.cmp(
            mine, path, shallow=False
        )

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        # A link inside the store must not lead out of it either.
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise StoreInputError(f"{key!r} leads out of the store {self.uri}.")
        return path

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _info(self, path: Path) -> ObjectInfo:
        seen = path.stat()
        modified = datetime.fromtimestamp(seen.st_mtime, UTC)
        etag = f"{seen.st_mtime_ns:x}-{seen.st_ino:x}-{seen.st_size:x}"
        return ObjectInfo(self._key(path), seen.st_size, etag, modified)

    def _make_room(self, path: Path, key: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StorageError(
                f"{key} cannot be stored in {self.uri}: a part of its path is an "
                "object already, and a folder store cannot hold both."
            ) from None

    def _link(self, aside: Path, path: Path, key: str) -> None:
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            # NFS may lose the reply of a link that was made: two names tell.
            if aside.stat().st_nlink != 2:
                raise PreconditionFailed(
                    f"{self.uri}/{key} exists already, so it was not written."
                ) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
