"""Reads one CSV stream and says in one sentence where it is broken.

pyarrow parses; this module adds what it does not say: the byte that is not
UTF-8, the row that is ragged, the file that ends in the middle of one. No
sentence holds a row of data (pyarrow's own messages may, and are dropped).
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from safescale_ammt.data.columns import Column
from safescale_ammt.errors import DataError

CHUNK = 1 << 20
"""Bytes read at a time."""
_TEXT = pa.dictionary(pa.int32(), pa.string())
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Layout:
    """How raw files are written: format, column names, comment sign, lines to skip."""

    format: str = "auto"
    columns: tuple[str, ...] = ()
    comment: str = ""
    skip_rows: int = 0


class HashedStream(io.RawIOBase):
    """A byte stream that hashes what passes and checks that text is UTF-8.

    Attributes:
        is_parquet: the first bytes are Parquet's.
        quotes: double quotes seen; an odd number leaves one open.
    """

    def __init__(self, stream: BinaryIO, origin: str) -> None:
        self._stream = stream
        self._origin = origin
        self._sha = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._size = 0
        self._head = _first_bytes(stream, len(_PARQUET_MAGIC))
        self.is_parquet = self._head == _PARQUET_MAGIC
        self.quotes = 0

    def readable(self) -> bool:
        """Says that this stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads up to len(buffer) bytes, passing them by hash and check.

        Raises:
            DataError: text that is not UTF-8; the sentence holds the byte offset.
        """
        data, self._head = self._head or self._stream.read(len(buffer)), b""
        buffer[: len(data)] = data
        self._sha.update(data)
        if not self.is_parquet:
            self._check_text(data)
        self._size += len(data)
        return len(data)

    def _check_text(self, data: bytes) -> None:
        self.quotes += data.count(b'"')
        pending = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            offset = self._size - pending + error.start
            raise DataError(
                f"{self._origin} is not UTF-8 at byte {offset}; convert the file "
                "to UTF-8."
            ) from None

    def digest(self) -> str:
        """Returns the digest of what has been read."""
        return "sha256:" + self._sha.hexdigest()


def _first_bytes(stream: BinaryIO, size: int) -> bytes:
    """Reads `size` bytes, or all that there are; a raw stream may give fewer."""
    head = b""
    while len(head) < size and (more := stream.read(size - len(head))):
        head += more
    return head


def check_names(names: Sequence[str], origin: str) -> None:
    """Refuses column names that are empty, reserved or given twice.

    Raises:
        DataError: such a name.
    """
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(
            f"{origin} has two columns named {twice[0]!r}; every column needs its "
            "own name."
        )
    for name in names:
        if not name or name.startswith("_"):
            raise DataError(
                f"{origin} has a column named {name!r}; a name is not empty and does "
                "not start with an underscore (reserved)."
            )


@dataclass
class _Rejects:
    """Rows that do not fit: comments are skipped, the first bad row remembered.

    Called by pyarrow with each row whose number of fields is not the expected.
    """

    comment: str
    comments: int = 0
    bad: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, row: Any) -> str:
        if self.comment and row.text.lstrip().startswith(self.comment):
            self.comments += 1
            return "skip"
        self.bad.append((row.number, row.actual_columns))
        return "skip" if len(self.bad) == 1 else "error"


class CsvReader:
    """Reads one CSV stream, saying where it is broken."""

    def __init__(self, hashed: HashedStream, origin: str, layout: Layout) -> None:
        self.hashed = hashed
        self.stream = io.BufferedReader(hashed, CHUNK)
        self.origin = origin
        self.comment = layout.comment
        self.skip_rows = layout.skip_rows
        self.names = list(layout.columns)
        self.rejects = _Rejects(layout.comment)
        self.head_rows = 0

    def read(self) -> pa.Table:
        """Returns all rows: dictionary-coded text, one column per name.

        Raises:
            DataError: the stream is no such table.
        """
        if not self.stream.peek(1):
            raise DataError(f"{self.origin} is empty (0 bytes).")
        for _ in range(self.skip_rows):
            self.stream.readline()
            self.head_rows += 1
        if not self.names:
            self.names = self._header()
        check_names(self.names, self.origin)
        if not self.stream.peek(1):
            return pa.table({name: pa.array([], _TEXT) for name in self.names})
        table = self._rows()
        self._check_rejects(table.num_rows)
        self._check_quotes(table)
        return self._without_comments(table)

    def _header(self) -> list[str]:
        for line in self.stream:
            text = line.decode("utf-8-sig").strip()
            if text and not (self.comment and text.startswith(self.comment)):
                self.head_rows += 1
                return [name.strip() for name in next(csv.reader([text]))]
        raise DataError(f"{self.origin} holds no header and no rows.")

    def _rows(self) -> pa.Table:
        try:
            reader = pacsv.open_csv(
                self.stream,
                pacsv.ReadOptions(
                    use_threads=False, column_names=self.names, block_size=CHUNK
                ),
                pacsv.ParseOptions(
                    newlines_in_values=True, invalid_row_handler=self.rejects
                ),
                pacsv.ConvertOptions(
                    column_types=dict.fromkeys(self.names, _TEXT),
                    strings_can_be_null=False,
                    check_utf8=False,
                ),
            )
            return reader.read_all()
        except pa.ArrowInvalid as error:
            self._check_rejects(None)
            # pyarrow's own message may quote a row: it is not passed on.
            if "straddling" in str(error):
                raise self._open_quote() from None
            raise DataError(f"{self.origin} is not a CSV table.") from None

    def _check_rejects(self, rows: int | None) -> None:
        if not self.rejects.bad:
            return
        number, found = self.rejects.bad[0]
        place = number + self.head_rows
        expected = len(self.names)
        last = rows is not None and number == rows + self.rejects.comments + 1
        if last and found < expected and len(self.rejects.bad) == 1:
            raise DataError(
                f"{self.origin} ends in the middle of row {place}: found {found} of "
                f"{expected} fields; the file is truncated, fetch it again."
            )
        raise DataError(
            f"Row {place} of {self.origin} has {found} fields, expected {expected}; "
            "quote values that hold a comma."
        )

    def _check_quotes(self, table: pa.Table) -> None:
        """An open quote swallows the rows after it into one value."""
        if self.hashed.quotes % 2 == 0:
            return
        if any("\n" in (c[-1].as_py() or "") for c in table.columns if len(c)):
            raise self._open_quote()

    def _open_quote(self) -> DataError:
        return DataError(
            f"{self.origin} has a quoted value that is never closed; the file is "
            "truncated or a quote is missing."
        )

    def _without_comments(self, table: pa.Table) -> pa.Table:
        """Drops comment lines that happen to have the right number of fields."""
        if not self.comment or not table.num_rows:
            return table
        first = Column.of(table.column(0))
        starts = np.asarray(pc.starts_with(first.values, self.comment), dtype=bool)
        if not starts.any():
            return table
        return table.filter(pa.array(~starts[first.codes]))
