"""Arrays between one reading of rows and the next: in memory, then in a file."""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO, TypeAlias

import pyarrow as pa

from safescale_ammt.files.disk import CHUNK, local_disk
from safescale_ammt.files.memory import Room

IN_MEMORY = 1 << 26
"""Bytes of arrays that stay in memory where a folder is given, at most."""
_MEMORY_SHARE = 8
# Half the bytes of LZ4, for .03 s more of a million rows of fifteen columns that are
# written and read once; Parquet takes three times as long.
_WRITING = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
_READING = pa.ipc.IpcReadOptions(use_threads=False)


@dataclass(frozen=True)
class Stored:
    """An array that lies in a file: where, and by whom it is read."""

    read_at: Callable[[int, int], bytes]
    at: int
    size: int

    def read(self) -> pa.Array:
        """Reads the array."""
        data = pa.py_buffer(self.read_at(self.at, self.size))
        with pa.ipc.open_stream(data, options=_READING) as stream:
            return stream.read_next_batch().column(0)


Held: TypeAlias = pa.Array | Stored
"""An array in memory, or where it lies."""


def array_of(held: Held) -> pa.Array:
    """Returns an array, wherever it lies."""
    return held.read() if isinstance(held, Stored) else held


class Scratch:
    """Takes arrays, the first ones in memory and the others in a file without a name.

    Whatever becomes of this process, a file without a name is gone with it, and so are
    the rows in it.

    Attributes:
        room: what all arrays together may take, before they are packed.

    Args:
        folder: where the file is made; None = all stays in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        memory = Room.in_memory()
        self.room = memory
        self._in_memory = min(IN_MEMORY, memory.size // _MEMORY_SHARE)
        if folder:
            disk = Room.on_disk(folder)
            # What needs no disk is not refused for want of one.
            self.room = replace(disk, size=max(disk.size, self._in_memory))
        self._taken = self._held = self._end = 0
        self._file: IO[bytes] | None = None

    def put(self, array: pa.Array, origin: str) -> Held:
        """Keeps an array; it may be read any number of times.

        Args:
            array: of any type.
            origin: the file that it comes from, for the sentence.

        Raises:
            DataError: all arrays take more than the room.
            StorageError: the disk is full or failed.
        """
        size = array.nbytes
        self._taken += size
        self.room.check(self._taken, origin)
        if self.folder is None or self._held + size <= self._in_memory:
            self._held += size
            return array
        sink = pa.BufferOutputStream()
        schema = pa.schema([pa.field("", array.type)])
        with pa.ipc.new_stream(sink, schema, options=_WRITING) as stream:
            stream.write_batch(pa.record_batch([array], schema=schema))
        packed = sink.getvalue()
        with local_disk(f"writing raw rows aside to {self.folder}"):
            if self._file is None:
                self._file = self.nameless()
            write_all(self._file, packed)
        self._end += packed.size
        return Stored(self._read, self._end - packed.size, packed.size)

    @contextmanager
    def copied(
        self, stream: BinaryIO | io.RawIOBase, origin: str
    ) -> Iterator[tuple[pa.NativeFile, int]]:
        """Gives all bytes of a stream as a file, and their number.

        Raises:
            DataError: they take more than the room.
            StorageError: the disk is full or failed.
        """
        start = io.BytesIO()
        file: IO[bytes] = start
        size = 0
        while part := stream.read(CHUNK):
            size += len(part)
            self.room.check(size, origin)
            with local_disk(f"writing raw rows aside to {self.folder}"):
                if self.folder and size > self._in_memory >= size - len(part):
                    file = self.nameless()
                    write_all(file, start.getvalue())
                write_all(file, part)
        with file:
            yield pa.PythonFile(file, mode="r"), size

    def nameless(self) -> IO[bytes]:
        """Makes a file without a name, which goes with this object at the latest.

        Raises:
            OSError: it cannot be made.
        """
        file = tempfile.TemporaryFile(buffering=0, dir=self.folder)  # noqa: SIM115
        weakref.finalize(self, file.close)
        return file

    def _read(self, at: int, size: int) -> bytes:
        assert self._file is not None
        with local_disk(f"reading raw rows from {self.folder}"):
            # By position: two readers of one spool do not move each other.
            return os.pread(self._file.fileno(), size, at)


def write_all(file: IO[bytes], data: bytes | pa.Buffer) -> None:
    """Writes all bytes at once; what is not buffered may take a part of them.

    Raises:
        OSError: the disk is full or failed.
    """
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
