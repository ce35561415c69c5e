"""The rows of a CSV stream, behind its header: pyarrow parses, sentences are ours.

No sentence holds a row of data (pyarrow's own messages may, and are dropped).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from safescale_ammt.errors import DataError
from safescale_ammt.reading.byte_streams import CHUNK, TextStream
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.dialect import NAMES

LONGEST_ROW = 1 << 23
"""Bytes of the longest row: pyarrow parses blocks of this size."""
# A dictionary while the file is read already: a column of texts costs 4 bytes a cell.
_TEXT = pa.dictionary(pa.int32(), pa.string())


@dataclass
class Rejects:
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
        """Says whether pyarrow goes on behind a row."""
        if self.comment and row.text.lstrip().startswith(self.comment):
            self.comments += 1
            return "skip"
        self.bad.append((row.number, row.actual_columns))
        # Only the end of the file tells whether the first bad row is the last of all,
        # which means truncated. A second one settles it, and pyarrow may stop.
        return "skip" if len(self.bad) == 1 else "error"


@dataclass(frozen=True)
class CsvRows:
    """The rows of a stream of which the number of columns is known.

    Attributes:
        text: from the first row on.
        origin: the file, for sentences.
        columns: number of columns.
        delimiter: what parts fields.
        before: lines that were taken already; sentences number the rows of the file.
        comment: sign of comment lines; "" = none.
        named: names of columns were given, so that no title was taken for a header.
    """

    text: TextStream
    origin: str
    columns: int
    delimiter: str
    before: int
    comment: str
    named: bool

    def blocks(self) -> Iterator[list[Column]]:
        """Yields the columns of as many rows as a block of bytes holds.

        Raises:
            DataError: the stream is no such table.
        """
        rejects = Rejects(self.comment)
        rows, broken = 0, False
        for batch in self.batches(rejects):
            rows += batch.num_rows
            # An open quote swallows the rows after it into one value, the last.
            last = [column[-1].as_py() or "" for column in batch.columns]
            broken = any({*value} & {"\n", "\r"} for value in last)
            columns = [
                Column.of(pa.chunked_array([c]), distinct=True) for c in batch.columns
            ]
            # Comment lines may happen to have the right number of fields.
            if self.comment:
                starts = pc.starts_with(columns[0].values, self.comment)
                if pc.any(starts).as_py():
                    kept = ~np.asarray(starts, bool)[columns[0].codes]
                    columns = [column.take(kept) for column in columns]
            yield columns
        self.check(rejects, rows)
        if self.text.quotes % 2 and broken:
            raise open_quote(self.origin)

    def batches(self, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        """Yields the rows as pyarrow reads them, dictionary-coded text.

        Raises:
            DataError: rows have other numbers of fields, or one is too long.
        """
        # Names may be empty here, positions never are.
        names = [str(i) for i in range(self.columns)]
        try:
            reader = pacsv.open_csv(
                io.BufferedReader(self.text, CHUNK),
                # Rows have numbers, for the sentences, on one thread alone.
                pacsv.ReadOptions(
                    use_threads=False, column_names=names, block_size=LONGEST_ROW
                ),
                pacsv.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=rejects,
                ),
                # Missing texts are the config's to say; UTF-8 is checked on the way.
                pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, _TEXT),
                    strings_can_be_null=False,
                    check_utf8=False,
                ),
            )
            for batch in reader:
                # Arrow makes cells later than it reads bytes: now they are there.
                self.text.check_room()
                if batch.num_rows:
                    yield batch
        except pa.ArrowInvalid as error:
            self.check(rejects, None)
            # pyarrow's own message may quote a row: it is not passed on. "Straddling
            # object" is a row longer than a block, which an open quote makes as well.
            if "straddling" in str(error):
                raise long_row(self.origin) from None
            raise DataError(f"{self.origin} is not a CSV table.") from None

    def check(self, rejects: Rejects, rows: int | None) -> None:
        """Refuses rows with another number of fields.

        Args:
            rejects: what pyarrow came upon.
            rows: number of the others; None = it gave up before the end.

        Raises:
            DataError: there are such rows.
        """
        if not rejects.bad:
            return
        number, fields = rejects.bad[0]
        # pyarrow counts from the first row that it is given.
        row = number + self.before
        expected = self.columns
        last = rows is not None and number == rows + rejects.comments + 1
        if last and fields < expected and len(rejects.bad) == 1:
            raise DataError(
                f"{self.origin} ends in the middle of row {row}: found {fields} of "
                f"{expected} fields; the file is truncated, fetch it again."
            )
        sign = NAMES.get(self.delimiter, repr(self.delimiter))
        # A title above the table makes a header of one field.
        remedy = f"quote values that hold {sign}, or set data.delimiter"
        if expected == 1 and not self.named:
            remedy += (
                "; data.skip_rows or data.comment leaves out lines above the table"
            )
        raise DataError(
            f"Row {row} of {self.origin} has {fields} fields, expected {expected} "
            f"parted by {sign}; {remedy}."
        )


def open_quote(origin: str) -> DataError:
    """Says that a quote stays open."""
    return DataError(
        f"{origin} has a quoted value that is never closed; the file is "
        "truncated or a quote is missing."
    )


def long_row(origin: str) -> DataError:
    """Says that a row is longer than a block."""
    return DataError(
        f"{origin} has a row of more than {LONGEST_ROW >> 20} MiB, or a "
        "quoted value that is never closed; close the quote, or leave the long "
        "column out of the file."
    )
