"""The names in a file's first line, which may be no header but a person's row.

For that reason no sentence here holds a cell: columns are told apart by position.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.errors import DataError
from safescale_ammt.printable import unseen_in
from safescale_ammt.reading.columns import Column

# pandas gives a nameless column this name when it reads a table that it wrote, and
# writes an index into Parquet under the other one.
_PANDAS_INDEX = re.compile(r"Unnamed: 0|__index_level_\d+__")
_REMEDY = (
    "; data.columns (with data.skip_rows: 1 in place of the header) gives every column "
    "a name, and data.drop leaves columns out"
)


MOST_COLUMNS = 10_000
"""Columns of a table; each costs a pass over all rows."""


def check_width(columns: int, origin: str) -> None:
    """Refuses a table of more columns than anybody can speak of.

    Raises:
        DataError: there are more than `MOST_COLUMNS`.
    """
    if columns > MOST_COLUMNS:
        raise DataError(
            f"{origin} has {columns:,} columns, at most {MOST_COLUMNS:,} are read; "
            "leave columns out of the file."
        )


def check_names(
    names: Sequence[str], origin: str, chosen: Collection[str] = ()
) -> None:
    """Refuses names that are reserved, given twice or not to be seen, and too many.

    Args:
        names: of all columns; "" = nameless, which `without_index` judges.
        origin: the file, for the sentence.
        chosen: names that the config uses; only these are shown.

    Raises:
        DataError: such a name.
    """
    check_width(len(names), origin)
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if name and name in seen:
            shown = f" ({name!r})" if name in chosen else ""
            raise DataError(
                f"Columns {seen[name] + 1} and {i + 1} of {origin} have one "
                f"name{shown}; every column needs its own. If the first line is no "
                "header, data.columns names the columns."
            )
        seen[name] = i
        # The splits' files have columns `_label`, `_row` and `_group:...` of their own.
        reserved = name.startswith("_") and not _PANDAS_INDEX.fullmatch(name)
        wrong = "starts with an underscore (reserved)" if reserved else ""
        # It would repaint a terminal, forge a line of a log, or look like another name.
        if unseen := unseen_in(name):
            wrong = f"holds {unseen}"
        if wrong:
            raise DataError(f"The name of column {i + 1} of {origin} {wrong}{_REMEDY}.")


def check_header(table: pa.Table, origin: str) -> None:
    """Refuses a first line that is a row like the others.

    Its cells come again in their columns, which names of columns do not.

    Args:
        table: dictionary-coded text.
        origin: the file, for the sentence.

    Raises:
        DataError: at least two columns, and half of all, have their name as a value.
    """
    names = table.column_names
    again = 0
    for name, column in zip(names, table.columns, strict=True):
        # Trimmed as names are; every chunk has a dictionary of its own.
        texts = [pc.utf8_trim_whitespace(chunk.dictionary) for chunk in column.chunks]
        again += any(pc.any(pc.equal(t, name)).as_py() for t in texts)
    if again >= max(2, len(names) / 2):
        raise DataError(
            f"{origin} seems to have no header: in {again} of its {len(names)} columns "
            "the first line has what other lines have; data.columns names the columns."
        )


def without_index(
    table: pa.Table, origin: str, chosen: Collection[str]
) -> tuple[pa.Table, list[str]]:
    """Leaves out columns that hold a writer's row numbers, or nothing at all.

    Args:
        table: dictionary-coded text; names may be "".
        origin: the file, for the sentence.
        chosen: names that the config uses: these columns stay.

    Returns:
        The table, and one note on each column that was left out.

    Raises:
        DataError: a nameless column that holds something else.
    """
    notes, kept = [], []
    for i, name in enumerate(table.column_names):
        indexed = bool(_PANDAS_INDEX.fullmatch(name))
        if name in chosen or (name and not indexed):
            kept.append(i)
            continue
        column = Column.of(table.column(i))
        # A shuffled or filtered table keeps its numbers, in any order and with gaps.
        digits = pc.all(pc.match_substring_regex(column.values, r"^\d{1,18}$")).as_py()
        distinct = len(column.values) == len(column)
        is_index = (i == 0 or indexed) and digits and distinct
        if is_index and name == "Unnamed: 0":
            numbers = pc.cast(column.values, pa.int64()).to_numpy()[column.codes]
            is_index = bool((np.diff(numbers) == 1).all())
        if not name and column.values.to_pylist()[:2] in ([""], []):
            notes.append(f"nameless column {i + 1} is empty and left out")
        elif is_index:
            notes.append(f"column {i + 1} only numbers the rows and is left out")
        elif not name or name.startswith("_"):
            raise DataError(
                f"Column {i + 1} of {origin} has no name of its own and is no row "
                f"number{_REMEDY}."
            )
        else:
            kept.append(i)
    return table.select(kept) if notes else table, notes
