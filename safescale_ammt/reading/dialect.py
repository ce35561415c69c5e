"""How a CSV file is written: what parts its fields, and its decimal sign.

A guess is only made where it explains every line that is looked at; it is said
in the dataset's notes, and a key of the config overrules it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.number_forms import marked

DELIMITERS = (",", ";", "\t", "|")
"""What is looked for; of two that fit alike the earlier one is taken."""
SAMPLE = 1 << 16
"""Bytes in which a delimiter must fit every line."""
SAMPLED_ROWS = 500
"""Rows of the sample that are looked at, at most."""
NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
"""Delimiters by name, for sentences."""
_LINE_END = re.compile(r"\r\n|\r|\n")
_COMMA_NUMBER = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?([eE][+-]?\d+)?$"
_BY_THOUSANDS = r"^[+-]?(\d+|[1-9]\d{0,2}(,\d{3})+)$"
_POINT_NUMBER = r"^[+-]?(\d+|\d*\.\d+)([eE][+-]?\d+)?$"


@dataclass(frozen=True)
class Record:
    """One record of a CSV text.

    Attributes:
        fields: unquoted, white space kept.
        start, end: offsets in the text; the line's end lies before `end`.
        clean: no quote stands inside a field.
    """

    fields: tuple[str, ...]
    start: int
    end: int
    clean: bool


def records(text: str, delimiter: str, at: int = 0) -> Iterator[Record]:
    """Yields the records of a text up to one whose end is not there.

    Args:
        text: of latin-1, so that offsets are those of the bytes.
        delimiter: one character.
        at: offset to begin at.
    """
    sign = re.escape(delimiter)
    # A quote opens a field at its start alone, as in pyarrow's parser.
    cell = re.compile(
        rf'(?:"([^"]*(?:""[^"]*)*)"([^{sign}\r\n]*)|([^{sign}\r\n]*))'
        rf"({sign}|\r\n|\r|\n|\Z)"
    )
    fields: list[str] = []
    start, clean = at, True
    while at < len(text) and (match := cell.match(text, at)):
        quoted, rest, plain, stop = match.groups()
        if not stop or (plain is not None and plain.startswith('"')):
            return
        fields.append(plain if quoted is None else quoted.replace('""', '"') + rest)
        clean = clean and '"' not in (plain or rest or "").strip()
        at = match.end()
        if stop != delimiter:
            yield Record(tuple(fields), start, at, clean)
            fields, start, clean = [], at, True


def after_lines(text: str, count: int) -> int:
    """Returns the offset behind `count` lines, the text's end if it has fewer."""
    at = 0
    for _ in range(count):
        match = _LINE_END.search(text, at)
        at = match.end() if match else len(text)
    return at


def find_delimiter(
    rows_by_sign: Mapping[str, Sequence[Record]], expected: int, likely: Collection[int]
) -> str:
    """Chooses the delimiter that gives every line the same number of fields.

    Args:
        rows_by_sign: the first rows of the file by delimiter, a comma first.
        expected: number of fields if it is known, else 0.
        likely: numbers of fields that are taken first if several delimiters fit.

    Returns:
        One of the delimiters; a comma if none fits.
    """
    counts = {s: [len(r.fields) for r in rows] for s, rows in rows_by_sign.items()}
    wanted = {s: expected or (c[0] if c else 0) for s, c in counts.items()}
    whole = [s for s, c in counts.items() if wanted[s] > 1 and {*c} == {wanted[s]}]
    if whole:
        # `x;"2,5"` has two fields by a comma as well, but one with a quote inside.
        unclean = {s: sum(not row.clean for row in rows_by_sign[s]) for s in whole}
        return min(whole, key=lambda s: (wanted[s] not in likely, unclean[s]))
    # A ragged row fits no delimiter: if a comma does not part the header, the one that
    # fits most lines makes the sentence about that row true.
    if wanted[","] > 1 and not expected:
        return ","
    shares = {}
    for sign, c in counts.items():
        fits = c.count(wanted[sign])
        shares[sign] = fits / len(c) if wanted[sign] > 1 and 2 * fits > len(c) else 0.0
    return max(shares, key=lambda sign: shares[sign])


@dataclass
class Signs:
    """What the texts of a column say of its decimal sign, block by block of rows.

    Attributes:
        missing: spellings of a missing value, "" among them.
        commas: each text is a number that may have a decimal comma.
        thousands: each of those commas may part thousands as well.
        points: each text is a number that may have a decimal point.
        found: which of `,` and `.` some text has.
    """

    missing: pa.StringArray
    commas: bool = True
    thousands: bool = True
    points: bool = True
    found: frozenset[str] = frozenset()

    def add(self, values: pa.StringArray) -> None:
        """Looks at the distinct texts of some rows."""
        # Of a column of words nothing is left to be learnt.
        if not (self.commas or self.points):
            return
        absent = pc.is_in(values, value_set=self.missing)
        values = values.filter(pc.invert(absent))
        if len(values):
            self.commas = self.commas and _all(values, _COMMA_NUMBER)
            self.thousands = self.thousands and _all(values, _BY_THOUSANDS)
            self.points = self.points and _all(values, _POINT_NUMBER)
            for sign in ",.":
                if pc.any(pc.match_substring(values, sign)).as_py():
                    self.found |= {sign}


def comma_numbers(
    signs: Mapping[int, Signs], declared: bool, origin: str
) -> tuple[list[int], list[int]]:
    """Returns the positions of the columns of numbers with a decimal comma.

    A column is one if each of its texts is such a number and one of them has a comma
    (or points between thousands, if the comma is declared). Where every comma may part
    thousands as well, `1,234`, it is unclear.

    Args:
        signs: of columns that may hold numbers, by position.
        declared: whether the config says that the sign is a comma.
        origin: the file, for the sentence.

    Returns:
        Positions of those columns, and of the unclear ones; none if it is declared.

    Raises:
        DataError: not declared, and other columns have a decimal point.
    """
    commas: list[int] = []
    points: list[int] = []
    unclear: list[int] = []
    for i, column in signs.items():
        if column.commas and column.found & {*(",." if declared else ",")}:
            is_clear = declared or not column.thousands
            (commas if is_clear else unclear).append(i)
        elif column.points and "." in column.found:
            points.append(i)
    if commas and points and not declared:
        raise DataError(
            f"{origin} has numbers with a comma in column {commas[0] + 1} and some "
            f"with a point in column {points[0] + 1}; data.decimal says which is the "
            "decimal sign."
        )
    return commas, unclear


def with_points(column: Column, missing: Collection[str]) -> Column:
    """Spells the numbers of a column that `comma_numbers` found with a point."""
    plain = pc.replace_substring(column.values, ".", "")
    plain = pc.replace_substring(plain, ",", ".")
    # What is missing keeps its spelling: "n.a." is one with points.
    absent = pc.is_in(column.values, value_set=pa.array([*missing], pa.string()))
    # Read once: a column's form shall not take the new point for thousands'.
    spelled = pc.if_else(absent, column.values, marked(pc.utf8_trim_whitespace(plain)))
    return column.mapped(spelled)


def _all(values: pa.StringArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())
