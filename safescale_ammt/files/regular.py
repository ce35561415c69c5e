"""Opening foreign files: only a regular one, never waiting, never past a limit.

A pipe without a writer blocks whoever opens it, a device has no end, and a link inside
a folder that others made may lead to any file of this machine. So a file is opened
without blocking, and what the descriptor is decides: the check and the use are of one
file, whatever happens to its name meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.printable import unseen_in

DEEPEST = 32
"""Levels of folders inside an artifact."""
MOST_FILES = 100_000
"""Files inside an artifact."""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}


@dataclass(frozen=True)
class Readable:
    """A file that can be read, wherever it lies.

    Attributes:
        name: what sentences call it.
        open: gives its bytes while a context lasts.
    """

    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]

    @classmethod
    def of(cls, file: Path | Readable) -> Readable:
        """Takes a path as a file of this machine, which may be no link."""
        if isinstance(file, Readable):
            return file
        return cls(str(file), partial(open_regular, file, follow=False))


def open_regular(path: Path | str, *, follow: bool = True) -> BinaryIO:
    """Opens a regular file for reading; nothing else is waited for or read.

    Args:
        path: the file.
        follow: whether the name may be a link; not inside of an artifact.

    Raises:
        InputError: it is a pipe, a socket, a device, a folder or a link.
        FileNotFoundError, OSError: as `open` does.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        # Before it is opened: to open a device may do something.
        if kind := _kind(Path(path).stat(follow_symlinks=follow).st_mode):
            raise InputError(_refusal(path, kind))
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except ValueError:
        raise InputError(f"{path} is no name of a file.") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(_refusal(path, "a link that leads to no file")) from None
    # The name may have been given to something else in between.
    if kind := _kind(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(_refusal(path, kind))
    return os.fdopen(descriptor, "rb")


def open_given(path: Path) -> BinaryIO:
    """Opens a file that a person names on a command line.

    What the shell has opened for this process (`/dev/stdin`, or `/dev/fd/63` of
    `<(command)`) has somebody who writes it; a named pipe may have nobody.

    Raises:
        InputError, OSError: as `open_regular`, for every other name.
    """
    if str(path) == "/dev/stdin" or path.parts[:3] == ("/", "dev", "fd"):
        return path.open("rb")
    return open_regular(path)


def read_regular(path: Path | str, most: int, *, follow: bool = True) -> bytes:
    """Reads a whole regular file of at most `most` bytes.

    Raises:
        InputError: it is larger, is missing, or is no regular file.
    """
    try:
        with open_regular(path, follow=follow) as file:
            # By its size before a byte is read; the rest for a file that grows.
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > most else file.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    if max(size, len(data)) > most:
        raise InputError(
            f"{path} has {max(size, len(data)):,} bytes, a file of its kind at most "
            f"{most:,}."
        )
    return data


def walk(folder: Path) -> Iterator[str]:
    """Yields what lies below a folder and is no folder, relative; links not followed.

    Raises:
        IntegrityError: more names, or deeper ones, than an artifact has, or one with
            characters that nobody sees.
    """
    # A list of what is left to do: a recursion would end in one of Python's own limits.
    left, seen = [("", 0)], 0
    while left:
        below, depth = left.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                seen += 1
                name = below + entry.name
                # A name that is no Unicode text has no digest.
                if seen > MOST_FILES or depth >= DEEPEST or unseen_in(name):
                    raise IntegrityError(
                        f"{folder} is no artifact: it holds a name with characters "
                        f"that are not seen, more than {MOST_FILES:,} names or more "
                        f"than {DEEPEST} levels."
                    )
                if entry.is_dir(follow_symlinks=False):
                    left.append((name + "/", depth + 1))
                else:
                    yield name


def _kind(mode: int) -> str:
    kind = stat.S_IFMT(mode)
    return "" if kind == stat.S_IFREG else _KINDS.get(kind, "no file")


def _refusal(path: Path | str, kind: str) -> str:
    return f"{path} is {kind}, a regular file was expected."
