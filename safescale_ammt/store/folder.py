"""A store in a folder: the contract of `Store` on a local or shared disk.

An object is one file. It is written aside under `.partial/`, brought to disk
(fsync) and then moved by `rename`, or, for a conditional write, by `link`,
which the file system refuses if the name is taken: both are atomic. Objects are their
writer's alone, unless the set-gid bit of the store's folder shares them with its group.
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
from safescale_ammt.files.disk import (
    PARTIAL,
    local_disk,
    private_folder,
    reading,
    written,
)
from safescale_ammt.files.regular import open_regular
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
            private_folder(aside.parent)
            with written(aside, source):
                try:
                    private_folder(path.parent)
                except (FileExistsError, NotADirectoryError):
                    raise StorageError(
                        f"{key} cannot be stored in {self.uri}: a part of its path is "
                        "an object already, and a folder store cannot hold both."
                    ) from None
                try:
                    if if_absent:
                        path.hardlink_to(aside)
                    else:
                        aside.replace(path)
                except FileExistsError:
                    # NFS may lose the reply of a link that was made and repeat it; the
                    # file then has two names (link(2)), and the write has succeeded.
                    if aside.stat().st_nlink != 2:
                        raise PreconditionFailed(
                            f"{self.uri}/{key} exists already, so it was not written."
                        ) from None
                # The file's fsync does not bring its new name to disk: that is part of
                # the folder, and a crash could take the name back.
                descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def open(self, key: str) -> BinaryIO:
        """Opens an object; see `Store.open`."""
        path = self._path(key)
        with local_disk(f"reading {key} from {self.uri}"):
            # A folder is no object, although a key may be the beginning of others.
            if self._is_object(path):
                return open_regular(path)
        raise StoreInputError(f"{self.uri}/{key} does not exist.")

    def stat(self, key: str) -> ObjectInfo | None:
        """Describes an object; see `Store.stat`."""
        path = self._path(key)
        with local_disk(f"looking for {key} in {self.uri}"):
            return self._info(path) if self._is_object(path) else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Lists objects; see `Store.list`."""
        check_key(prefix, prefix=True)
        # Only the folder that the prefix names is walked, not the whole store.
        top = self.root / prefix.rpartition("/")[0]
        for folder, subfolders, names in os.walk(top):
            if PARTIAL in subfolders:
                subfolders.remove(PARTIAL)  # what others write just now
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
        stored = self._path(info.key)
        # Not `shallow`: equal size and time of change do not mean equal bytes.
        return info.size == path.stat().st_size and filecmp.cmp(
            stored, path, shallow=False
        )

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        # A link inside the store must not lead out of it either, nor in a ring.
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError):
            inside = False
        if not inside:
            raise StoreInputError(f"{key!r} leads out of the store {self.uri}.")
        return path

    def _is_object(self, path: Path) -> bool:
        # What is neither a file nor a folder, such as a pipe, is refused by name.
        return path.exists() and not path.is_dir()

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _info(self, path: Path) -> ObjectInfo:
        status = path.stat()
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        # The inode too: a coarse clock may give two writes of one size the same time,
        # but each write is a new file.
        etag = f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"
        return ObjectInfo(self._key(path), status.st_size, etag, modified)
