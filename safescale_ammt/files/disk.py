"""This disk: files written aside and whole, for whom, its errors in one sentence."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from safescale_ammt.errors import StorageError, StoreInputError
from safescale_ammt.files.regular import open_regular

CHUNK = 1 << 20
"""Bytes copied at a time, so that memory does not grow with the object."""
PARTIAL = ".partial"
"""Mark of what is written aside; no key of a store may use the name."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Full disk, full quota, file over the size limit: the system takes no more bytes."""


@contextmanager
def reading(data: bytes | BinaryIO | Path) -> Iterator[BinaryIO]:
    """Gives any accepted form of data as an open binary file.

    Raises:
        StoreInputError: the path does not exist or is no file.
    """
    if isinstance(data, bytes):
        yield BytesIO(data)
    elif isinstance(data, Path):
        if not data.is_file():
            raise StoreInputError(f"{data} is no file, so it cannot be stored.")
        with open_regular(data) as file:
            yield file
    else:
        yield data


def keep_private(*paths: Path) -> None:
    """Leaves files and folders to their owner, or to their group where it is asked for.

    A folder asks by its set-gid bit, by which what is made in it belongs to its group:
    a store that several people share, or the folder of a container, which runs as
    somebody else. Below it all is the group's too, and nobody else's anywhere.

    Args:
        paths: those that this process has made, folders before what lies in them.
    """
    for path in paths:
        if path.is_symlink():
            continue
        shared = path.parent.stat().st_mode & stat.S_ISGID
        if path.is_dir():
            path.chmod(0o2770 if shared else 0o700)
        else:
            path.chmod(0o660 if shared else 0o600)


def private_folder(path: Path) -> None:
    """Makes a folder and those above it that are missing, kept private.

    Raises:
        OSError: it cannot be made, or a part of its path is a file.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):  # somebody else was faster
            # Not `parents`: those would have the mode that the umask leaves.
            folder.mkdir(mode=0o700)
            keep_private(folder)
    path.mkdir(exist_ok=True)


def nameless(beside: Path | None = None) -> BinaryIO:
    """Opens a new file without a name: whatever becomes of this process, it goes too.

    Args:
        beside: the file lies on the disk that takes this; None = with temporary files,
            which may be memory or small.

    Raises:
        StoreInputError, StorageError: as `local_disk`.
    """
    with local_disk("opening a file without a name"):
        if beside is not None:
            private_folder(beside.parent)
        file = TemporaryFile(dir=beside.parent if beside else None)  # noqa: SIM115
    return cast("BinaryIO", file)


@contextmanager
def written(aside: Path, source: BinaryIO) -> Iterator[None]:
    """Writes a file aside and to disk, for the body to move; it never stays there.

    It is its owner's alone, as `keep_private` says.
    """
    try:
        # "x": two writers that chose one name are an error, not a mixed file.
        with aside.open("xb") as target:
            keep_private(aside)  # while it is still empty
            shutil.copyfileobj(source, target, CHUNK)
            target.flush()
            # Before the rename, or a power cut could leave a whole name on half a file.
            os.fsync(target.fileno())
        yield
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def local_disk(action: str) -> Iterator[None]:
    """Turns an error of the local file system into one sentence.

    Raises:
        StoreInputError: no permission.
        StorageError: the disk is full or failed.
    """
    try:
        yield
    except PermissionError as error:
        raise StoreInputError(
            f"{action} failed: no permission for {error.filename}."
        ) from None
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageError(
                f"{action} failed: the disk has no room left; free some space and "
                "run again (nothing half-written was kept)."
            ) from None
        reason = error.strerror or type(error).__name__
        raise StorageError(f"{action} failed: {reason}.") from None
