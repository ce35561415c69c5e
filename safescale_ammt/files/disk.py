"""This disk: files written aside and whole, its errors in one sentence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

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


@contextmanager
def written(aside: Path, source: BinaryIO) -> Iterator[None]:
    """Writes a file aside and to disk, for the body to move; it never stays there."""
    try:
        # "x": two writers that chose one name are an error, not a mixed file.
        with aside.open("xb") as target:
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
