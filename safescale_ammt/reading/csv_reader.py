"""Reads one CSV stream and says in one sentence where it is broken.

pyarrow parses; this module adds what it does not say: the row that is ragged, the
file that ends in the middle of one, the quote that stays open. No sentence holds a
row of data (pyarrow's own messages may, and are dropped).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.errors import DataError
from safescale_ammt.reading.blocks import Blocks
from safescale_ammt.reading.byte_streams import TextStream
from safescale_ammt.reading.csv_rows import (
    LONGEST_ROW,
    CsvRows,
    long_row,
    open_quote,
)
from safescale_ammt.reading.dialect import (
    DELIMITERS,
    NAMES,
    SAMPLE,
    SAMPLED_ROWS,
    Record,
    Signs,
    after_lines,
    comma_numbers,
    find_delimiter,
    records,
)
from safescale_ammt.reading.header import check_header, check_names, without_index
from safescale_ammt.reading.images import ImageLayout

_BREAK = re.compile(r"\s*[\r\n]+\s*")


@dataclass(frozen=True)
class Layout:
    """How raw files are written; what is empty is found out for each file.

    Attributes:
        format: auto, csv or parquet.
        columns: names of a file without a header.
        comment: sign of comment lines.
        skip_rows: lines skipped at the start.
        delimiter: what parts fields.
        decimal: the decimal sign, `.` or `,`.
        encoding: what a text is spelled in.
        missing: spellings of a missing value.
        chosen: names of columns that the config uses.
        texts: names of columns that hold no numbers.
        orders: names for a file whose first line has none of `chosen`: the list that
            is as long as the line. () = the first line is a header.
        delimiters: what is tried if `delimiter` is empty.
        decimal_apart: the decimal sign where no comma parts the fields.
        keep: names of columns that are wanted as the file has them.
        images: where images are, of a source that has some; the rest is of tables.
    """

    format: str = "auto"
    columns: tuple[str, ...] = ()
    comment: str = ""
    skip_rows: int = 0
    delimiter: str = ""
    decimal: str = ""
    encoding: str = ""
    missing: tuple[str, ...] = ()
    chosen: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    orders: tuple[tuple[str, ...], ...] = ()
    delimiters: tuple[str, ...] = DELIMITERS
    decimal_apart: str = ""
    keep: tuple[str, ...] = ()
    images: ImageLayout | None = None


class CsvReader:
    """Reads one CSV stream, saying where it is broken.

    Attributes:
        names: of the columns; once all rows are read, those that stay.
        places: positions of the columns that stay, among those of the file.
        notes: what was found out about the file, one short sentence each.
        commas: names of the columns with a decimal comma, which is to become a point.
        unclear: names of the columns in which it may part thousands as well.
    """

    def __init__(self, text: TextStream, origin: str, layout: Layout) -> None:
        self.text = text
        self.origin = origin
        self.layout = layout
        self.names = list(layout.columns)
        self.places: list[int] = []
        self.delimiter = layout.delimiter
        self.head_rows = layout.skip_rows
        self.notes: list[str] = []
        self.commas: list[str] = []
        self.unclear: list[str] = []

    def read(self, blocks: Blocks) -> None:
        """Reads all rows into blocks, columns by their positions in the file.

        Raises:
            DataError: the stream is no such table.
        """
        self.begin()
        self.places = [*range(len(self.names))]
        # pyarrow calls a stream without a byte an error, and not a table without rows.
        if not self.text.head(1):
            return
        signs, again = self._signs(), set[int]()
        # A file for a prediction tells by the names that the model knows.
        doubted = not self.layout.columns and not self.layout.orders
        rows = CsvRows(
            self.text,
            self.origin,
            len(self.names),
            self.delimiter,
            self.head_rows,
            self.layout.comment,
            bool(self.layout.columns),
        )
        for columns in rows.blocks():
            for at, column in enumerate(columns):
                blocks.add(at, column)
                if doubted and pc.index(column.values, self.names[at]).as_py() >= 0:
                    again.add(at)
                if at in signs:
                    signs[at].add(column.values)
        if blocks.rows:
            self.settle(blocks, signs, again)

    def settle(
        self, blocks: Blocks, signs: Mapping[int, Signs], again: Collection[int]
    ) -> None:
        """Decides what all rows together say about columns and their commas.

        Args:
            blocks: all rows.
            signs: what their texts say of decimal signs, by position.
            again: positions of columns with their name as a value.

        Raises:
            DataError: the first line is no header, a column has no name, or decimal
                signs contradict each other.
        """
        layout, names = self.layout, self.names
        self.places, notes = without_index(
            names, blocks.column, self.origin, layout.chosen
        )
        self.notes += notes
        check_header(len({*again} & {*self.places}), len(self.places), self.origin)
        left = {i: signs[at] for i, at in enumerate(self.places) if at in signs}
        self.names = names = [names[at] for at in self.places]
        found, unclear = comma_numbers(left, bool(self._decimal), self.origin)
        # A few rows to predict do not show it: there a comma that parts no fields is
        # the decimal sign of a column that the model knows as plain numbers.
        found, unclear = (found + unclear, []) if layout.orders else (found, unclear)
        self.commas, self.unclear = ([names[i] for i in c] for c in (found, unclear))
        if found:
            places = ", ".join(str(i + 1) for i in found)
            self.notes.append(f"numbers have a decimal comma in column {places}")

    def begin(self) -> None:
        """Takes what stands before the rows: delimiter and names are known then.

        Raises:
            DataError: the stream is empty, no text, or has no header.
        """
        sample = self.text.head(SAMPLE)
        if not sample:
            raise DataError(f"{self.origin} is empty (0 bytes).")
        if b"\0" in sample:
            raise DataError(
                f"{self.origin} is no text, or one whose encoding (such as utf-16-le) "
                "data.encoding has to name."
            )
        # Excel's first line may say what parts the fields, and is no row.
        said = re.match(rb'"?sep=([!-~\t ])"?(\r\n|\r|\n)', sample)
        if said and not self.names and not self.layout.skip_rows:
            self.delimiter = self.delimiter or said[1].decode()
            self.text.drop(said.end())
            self.head_rows += 1
        self._choose_delimiter(self.text.head(SAMPLE))
        self._take_header()
        check_names(self.names, self.origin, self.layout.chosen)

    def _choose_delimiter(self, sample: bytes) -> None:
        if self.delimiter:
            return
        text = _scanned(sample, whole=len(sample) < SAMPLE)
        # A line that the sample cuts off would have too few fields.
        cut = max(text.rfind("\n"), text.rfind("\r")) + 1 or len(text)
        text = _scanned(text[:cut].encode("latin-1"), whole=True)
        at = after_lines(text, self.layout.skip_rows)
        rows = {
            sign: list(islice(self._rows(text, sign, at), SAMPLED_ROWS))
            for sign in self.layout.delimiters
        }
        likely = {len(names) for names in self.layout.orders}
        self.delimiter = find_delimiter(rows, len(self.names), likely)
        if self.delimiter != ",":
            sign = NAMES.get(self.delimiter, repr(self.delimiter))
            self.notes.append(f"fields are parted by {sign}")

    def _take_header(self) -> None:
        """Takes the skipped lines and, unless names are given, the header.

        Raises:
            DataError: there is no header, or a quote in it stays open.
        """
        size = SAMPLE
        while True:
            head = self.text.head(size)
            whole = len(head) < size
            text = _scanned(head, whole=whole)
            at = after_lines(text, self.layout.skip_rows)
            if self.names and (at < len(text) or whole):
                return self.text.drop(at)
            first = next(self._rows(text, self.delimiter, at), None)
            if first is not None and not self.names:
                # A config cannot well spell a name that has a line break.
                texts = (field.encode("latin-1").decode() for field in first.fields)
                self.names = [re.sub(_BREAK, " ", text).strip() for text in texts]
                # One known name is enough: a value of a row rarely spells a column's
                # name, and a header may name columns that nobody knows.
                known = set(self.names) & self.layout.chosen
                orders = [o for o in self.layout.orders if len(o) == len(self.names)]
                if orders and not known:
                    self.names = list(orders[0])
                    return self.text.drop(first.start)
                self.head_rows += 1
                return self.text.drop(first.end)
            if whole and '"' in text[at:]:
                raise open_quote(self.origin)
            if whole:
                raise DataError(f"{self.origin} holds no header and no rows.")
            if size >= LONGEST_ROW:
                raise long_row(self.origin)
            size *= 4

    def _rows(self, text: str, delimiter: str, at: int) -> Iterator[Record]:
        """Yields the records that are neither blank nor comment lines."""
        comment = self.layout.comment.encode().decode("latin-1")
        for record in records(text, delimiter, at):
            line = text[record.start : record.end].strip()
            if line and not (comment and line.startswith(comment)):
                yield record

    @property
    def _decimal(self) -> str:
        # Between commas a decimal comma stands in quotes, as lists and codes do too.
        apart = self.layout.decimal_apart if self.delimiter != "," else ""
        return self.layout.decimal or apart

    def _signs(self) -> dict[int, Signs]:
        """Makes what looks for a decimal comma, by position; none where none may be."""
        if self._decimal == "." or (self.delimiter == "," and not self._decimal):
            return {}
        missing = pa.array(["", *self.layout.missing], pa.string())
        return {
            at: Signs(missing)
            for at, name in enumerate(self.names)
            if name not in self.layout.texts
        }


def _scanned(data: bytes, *, whole: bool = False) -> str:
    """Returns text with one character per byte; a whole file ends with a line end."""
    text = data.decode("latin-1")
    return text + "\n" if whole and not text.endswith(("\n", "\r")) else text
