"""The bytes of a raw file on their way to a reader: hashed, unpacked, as UTF-8.

What is hashed are the bytes as they are stored, whatever they are packed or
spelled in.
"""

from __future__ import annotations

import bz2
import codecs
import hashlib
import io
import lzma
import re
from typing import Any, BinaryIO

import pyarrow as pa

from safescale_ammt.errors import DataError
from safescale_ammt.files.memory import Room, in_units

CHUNK = 1 << 20
"""Bytes read at a time."""
UNFOLDED = 4
"""A packed text may unfold to so many times what a table may take."""
PARQUET_MAGIC = b"PAR1"
"""The first and last four bytes of every Parquet file."""
_PACKED = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    # With the mark of its first block, or of the end: a header may begin with BZh too.
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
}
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive, as an Excel workbook is one",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"ARROW1\0\0": "an Arrow (Feather) file",
    b"FEA1": "a Feather file",
    b"PARE": "an encrypted Parquet file",
    b"SQLite f": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"<stata_d": "a Stata file",
    b"$FL2@(#)": "an SPSS file",
    b"\x04\x22\x4d\x18": "an LZ4 file",
    b"%PDF": "a PDF",
}
"""First bytes of what people hold a table in and no reader here opens."""
_LONGEST = max(len(magic) for magic in _FOREIGN)
# The longer mark first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class EncodingError(DataError):
    """Text that is not spelled in the encoding that was tried."""


class _Filled(io.RawIOBase):
    """A stream whose reads are only short at its end, so that a peek sees enough."""

    def readable(self) -> bool:
        """Says that this stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads len(buffer) bytes, fewer at the end alone."""
        filled = 0
        # A stream may give fewer bytes than it is asked for, a socket above all.
        while filled < len(buffer) and (data := self._some(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled

    def _some(self, size: int) -> bytes:
        raise NotImplementedError


class HashedStream(_Filled):
    """A stream that hashes what passes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sha = hashlib.sha256()

    def _some(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._sha.update(data)
        return data

    def digest(self) -> str:
        """Returns the digest of all bytes; those that nobody wanted are read now."""
        while self._some(CHUNK):
            pass
        return "sha256:" + self._sha.hexdigest()


class Unpacked(_Filled):
    """The bytes inside a packed file, or those of any other file unchanged.

    Attributes:
        packing: `gzip`, `zstd`, `bzip2`, `xz` or "".
        is_parquet: the first bytes, unpacked, are Parquet's.

    Args:
        stream: the bytes as they are stored.
        origin: the file, for sentences.
        room: what its table may take; None = half of the free memory.

    Raises:
        DataError: the file is damaged, of a format that no reader here opens, or what
            has been made of it takes more memory than a table may.
    """

    def __init__(
        self, stream: HashedStream, origin: str, room: Room | None = None
    ) -> None:
        self._origin = origin
        # Measured, not guessed from a ratio: a column of one value packs a
        # thousandfold and takes four bytes a row.
        self._room = Room.in_memory()
        self._whole = room or self._room
        self._taken = pa.total_allocated_bytes()
        self._unfolded = 0
        packed = io.BufferedReader(stream, CHUNK)
        # By the first bytes and not by the name: `data.csv` may be packed all the same.
        start = packed.peek(10)
        self.packing = next((kind for kind, m in _PACKED.items() if m.match(start)), "")
        self._stream: Any = packed
        if self.packing == "bzip2":
            self._stream = bz2.BZ2File(packed)
        elif self.packing == "xz":
            self._stream = lzma.LZMAFile(packed)  # noqa: SIM115
        elif self.packing:
            inner = pa.PythonFile(packed, mode="r")
            self._stream = pa.CompressedInputStream(inner, self.packing)
        self._start = b""
        while more := self._some(_LONGEST - len(self._start)):
            self._start += more
        for magic, what in _FOREIGN.items():
            if self._start.startswith(magic):
                raise DataError(
                    f"{origin} is {what}; CSV and Parquet are read, save it as one."
                )
        self.is_parquet = self._start.startswith(PARQUET_MAGIC)

    def _some(self, size: int) -> bytes:
        # `_start` is whole once `is_parquet` is there, and given out once.
        if hasattr(self, "is_parquet") and self._start:
            start, self._start = self._start[:size], self._start[size:]
            return start
        if not self.packing:
            return self._fitting(bytes(self._stream.read(size)))
        try:
            return self._fitting(bytes(self._stream.read(size)))
        except (OSError, EOFError, lzma.LZMAError):
            raise DataError(
                f"{self._origin} is not a whole {self.packing} file; it is truncated "
                "or damaged, fetch it again."
            ) from None

    def check_room(self) -> None:
        """Refuses a table that has outgrown its room by now; see the class."""
        self._room.check(pa.total_allocated_bytes() - self._taken, self._origin)

    def _fitting(self, data: bytes) -> bytes:
        self._unfolded += len(data)
        self.check_room()
        # What makes no cell takes no memory, and time all the same.
        most, of = UNFOLDED * self._whole.size, self._whole.of
        if self.packing and self._unfolded > most:
            raise DataError(
                f"{self._origin} is packed by {self.packing} and unfolds to more than "
                f"{in_units(most)}, twice the free {of}; unpack it, leave out what is "
                f"not needed, or use a machine with more {of}."
            )
        return data


def read_whole(stream: BinaryIO | _Filled, origin: str) -> bytes:
    """Returns all bytes of a stream.

    Raises:
        DataError: they do not fit in the memory that a table may take.
    """
    parts: list[bytes] = []
    size, room = 0, Room.in_memory()
    while part := stream.read(CHUNK):
        size += len(part)
        room.check(size, origin)
        parts.append(part)
    return b"".join(parts)


class TextStream(_Filled):
    """The text of a file as UTF-8 without a mark, checked while it passes.

    Attributes:
        encoding: what the file is spelled in.
        quotes: double quotes seen; an odd number leaves one open.
    """

    def __init__(self, stream: Unpacked, origin: str, encoding: str = "") -> None:
        self._stream = stream
        self._origin = origin
        start = stream.read(4) or b""
        marked = (name for mark, name in _MARKS.items() if start.startswith(mark))
        self.encoding = encoding or next(marked, "utf-8")
        self._decoder = codecs.getincrementaldecoder(self.encoding)()
        # UTF-8 is checked and passed on as it is: to spell it anew costs a copy.
        self._same = codecs.lookup(self.encoding).name == "utf-8"
        self._size = 0
        self.quotes = 0
        self._ahead = self._text(start).removeprefix(codecs.BOM_UTF8)

    def check_room(self) -> None:
        """Refuses a table that has outgrown its room; see `Unpacked`."""
        self._stream.check_room()

    def head(self, size: int) -> bytes:
        """Returns the next `size` bytes (fewer at the end) without taking them."""
        while len(self._ahead) < size and (more := self._next(CHUNK)):
            self._ahead += more
        return self._ahead[:size]

    def drop(self, size: int) -> None:
        """Takes bytes that `head` has returned."""
        self._ahead = self._ahead[size:]

    def _some(self, size: int) -> bytes:
        if not self._ahead:
            self._ahead = self._next(size)
        data = self._ahead[:size]
        self._ahead = self._ahead[size:]
        return data

    def _next(self, size: int) -> bytes:
        # A character may take more bytes than one read gives: only the end is empty.
        while data := self._stream.read(size):
            if text := self._text(data):
                return text
        return self._text(b"")

    def _text(self, data: bytes) -> bytes:
        """Decodes bytes; none are the end, where no half character may wait."""
        # Bytes of a character that began in the last chunk wait in the decoder: its
        # error counts from there.
        waiting = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeError as error:
            offset = self._size - waiting + getattr(error, "start", 0)
            name = self.encoding.upper()
            raise EncodingError(
                f"{self._origin} is not {name} at byte {offset}; convert the file to "
                "UTF-8, or name its encoding (such as cp1252) in data.encoding."
            ) from None
        self._size += len(data)
        passed = data if self._same else text.encode()
        self.quotes += passed.count(b'"')
        return passed
