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
# A dictionary while the file is read already: a column of texts costs 4 bytes a cell.
_TEXT = pa.dictionary(pa.int32(), pa.string())
# The first and last four bytes of every Parquet file.
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
        self._head = b""
        # A raw stream may give fewer bytes than it is asked for, a socket above all.
        while missing := len(_PARQUET_MAGIC) - len(self._head):
            if not (more := stream.read(missing)):
                break
            self._head += more
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
            self.quotes += data.count(b'"')
            # Bytes of a character that began in the last chunk wait in the decoder:
            # its error counts from there. No data is the end, where none may wait.
            waiting = len(self._decoder.getstate()[0])
            try:
                self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                offset = self._size - waiting + error.start
                raise DataError(
                    f"{self._origin} is not UTF-8 at byte {offset}; convert the file "
                    "to UTF-8."
                ) from None
        self._size += len(data)
        return len(data)

    def digest(self) -> str:
        """Returns the digest of what has been read."""
        return "sha256:" + self._sha.hexdigest()


def check_names(names: Sequence[str], origin: str) -> None:
    """Refuses column names that are empty, reserved or given twice.

    Raises:
        DataError: such a name.
    """
    repeats = [name for name, n in Counter(names).items() if n > 1]
    if repeats:
        raise DataError(
            f"{origin} has two columns named {repeats[0]!r}; every column needs its "
            "own name."
        )
    # The splits' files have columns `_label`, `_row` and `_group:...` of their own.
    for name in names:
        if not name or name.startswith("_"):
            raise DataError(
                f"{origin} has a column named {name!r}; a name is not empty and does "
                "not start with an underscore (reserved)."
            )


@dataclass
class _Rejects:
    """Rows that do not fit: comments are skipped, bad rows remembered.

    Called by pyarrow with each row whose number of fields is not the expected.

    Attributes:
        comment: sign of a comment line; "" = none.
        comments: comment lines that were skipped.
        bad: number (from 1, comments counted) and number of fields of bad rows.
    """

    comment: str
    comments: int = 0
    bad: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, row: Any) -> str:
        if self.comment and row.text.lstrip().startswith(self.comment):
            self.comments += 1
            return "skip"
        self.bad.append((row.number, row.actual_columns))
        # Only the end of the file tells whether the first bad row is the last of all,
        # which means truncated. A second one settles it, and pyarrow may stop.
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
        # pyarrow calls a stream without a byte an error, and not a table without rows.
        if not self.stream.peek(1):
            return pa.table({name: pa.array([], _TEXT) for name in self.names})
        table = self._parse()
        self._check_rejects(table.num_rows)
        # An open quote swallows the rows after it into one value.
        last = [column[-1].as_py() or "" for column in table.columns if len(column)]
        if self.hashed.quotes % 2 and any("\n" in value for value in last):
            raise self._open_quote()
        if not self.comment or not table.num_rows:
            return table
        # A comment line with the right number of fields is a row to pyarrow.
        first = Column.of(table.column(0))
        starts = np.asarray(pc.starts_with(first.values, self.comment), dtype=bool)
        return table.filter(pa.array(~starts[first.codes])) if starts.any() else table

    def _header(self) -> list[str]:
        for line in self.stream:
            # A byte-order mark, as Excel writes it, is no part of the first name.
            text = line.decode("utf-8-sig").strip()
            if text and not (self.comment and text.startswith(self.comment)):
                self.head_rows += 1
                return [name.strip() for name in next(csv.reader([text]))]
        raise DataError(f"{self.origin} holds no header and no rows.")

    def _parse(self) -> pa.Table:
        try:
            reader = pacsv.open_csv(
                self.stream,
                # Rows have numbers, for the sentences, on one thread alone.
                pacsv.ReadOptions(
                    use_threads=False, column_names=self.names, block_size=CHUNK
                ),
                pacsv.ParseOptions(
                    newlines_in_values=True, invalid_row_handler=self.rejects
                ),
                # Which texts are missing is the config's to say, and UTF-8 is checked
                # while the bytes stream by.
                pacsv.ConvertOptions(
                    column_types=dict.fromkeys(self.names, _TEXT),
                    strings_can_be_null=False,
                    check_utf8=False,
                ),
            )
            return reader.read_all()
        except pa.ArrowInvalid as error:
            self._check_rejects(None)
            # pyarrow's own message may quote a row: it is not passed on. "Straddling
            # object" is a value longer than a block, which an open quote makes.
            if "straddling" in str(error):
                raise self._open_quote() from None
            raise DataError(f"{self.origin} is not a CSV table.") from None

    def _check_rejects(self, rows: int | None) -> None:
        if not self.rejects.bad:
            return
        number, fields = self.rejects.bad[0]
        # pyarrow counts from the first row that it is given.
        row = number + self.head_rows
        expected = len(self.names)
        last = rows is not None and number == rows + self.rejects.comments + 1
        if last and fields < expected and len(self.rejects.bad) == 1:
            raise DataError(
                f"{self.origin} ends in the middle of row {row}: found {fields} of "
                f"{expected} fields; the file is truncated, fetch it again."
            )
        raise DataError(
            f"Row {row} of {self.origin} has {fields} fields, expected {expected}; "
            "quote values that hold a comma."
        )

    def _open_quote(self) -> DataError:
        return DataError(
            f"{self.origin} has a quoted value that is never closed; the file is "
            "truncated or a quote is missing."
        )
