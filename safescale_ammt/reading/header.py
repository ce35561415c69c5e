"""The names in a file's first line, which may be no header but a person's row.

For that reason no sentence here holds a cell: columns are told apart by position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import product

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


_SORTED_AT_ONCE = 1 << 25
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


def check_header(again: int, columns: int, origin: str) -> None:
    """Refuses a first line that is a row like the others.

    Its cells come again in their columns, which names of columns do not.

    Args:
        again: columns that have their name as a value.
        columns: all of them.
        origin: the file, for the sentence.

    Raises:
        DataError: at least two columns, and half of all, have their name as a value.
    """
    if again >= max(2, columns / 2):
        raise DataError(
            f"{origin} seems to have no header: in {again} of its {columns} columns "
            "the first line has what other lines have; data.columns names the columns."
        )


def without_index(
    names: Sequence[str],
    read: Callable[[int], Iterator[Column]],
    origin: str,
    chosen: Collection[str],
) -> tuple[list[int], list[str]]:
    """Leaves out columns that hold a writer's row numbers, or nothing at all.

    Args:
        names: of the columns; they may be "".
        read: gives a column by its position, block by block of rows; there are rows.
        origin: the file, for the sentence.
        chosen: names that the config uses: these columns stay.

    Returns:
        The positions of the columns that stay, and one note on each other one.

    Raises:
        DataError: a nameless column that holds something else.
    """
    notes, kept = [], []
    for i, name in enumerate(names):
        indexed = bool(_PANDAS_INDEX.fullmatch(name))
        if name in chosen or (name and not indexed):
            kept.append(i)
        elif not name and all(part.values.to_pylist() == [""] for part in read(i)):
            notes.append(f"nameless column {i + 1} is empty and left out")
        elif (i == 0 or indexed) and numbers_rows(
            partial(read, i), in_order=name == "Unnamed: 0"
        ):
            notes.append(f"column {i + 1} only numbers the rows and is left out")
        elif not name or name.startswith("_"):
            raise DataError(
                f"Column {i + 1} of {origin} has no name of its own and is no row "
                f"number{_REMEDY}."
            )
        else:
            kept.append(i)
    return kept, notes


def numbers_rows(read: Callable[[], Iterator[Column]], *, in_order: bool) -> bool:
    """Says whether a column has another whole number in every row.

    A shuffled or filtered table keeps its numbers, in any order and with gaps.

    Args:
        read: gives the column, block by block of rows, whenever it is called.
        in_order: only numbers that count upwards by one will do.
    """
    last, rows, steps, lengths = -1, 0, True, set[int]()
    rising = True
    for part in read():
        digits = pc.all(pc.match_substring_regex(part.values, r"^\d{1,18}$")).as_py()
        if not digits or len(part.values) < len(part):
            return False
        numbers = pc.cast(part.values, pa.int64()).to_numpy()[part.codes]
        between = np.diff(numbers, prepend=last if rows else numbers[0] - 1)
        steps = steps and bool((between == 1).all())
        rising = rising and bool((between > 0).all())
        lengths |= {*pc.unique(pc.binary_length(part.values)).to_pylist()}
        last, rows = int(numbers[-1]), rows + len(part)
    if in_order or rising:
        return steps or not in_order
    # Of texts of one length, those are equal whose numbers are.
    shares = 1 + rows // _SORTED_AT_ONCE
    for length, share in product(lengths, range(shares)):
        found = []
        for part in read():
            same = pc.equal(pc.binary_length(part.values), length)
            numbers = pc.cast(part.values.filter(same), pa.int64()).to_numpy()
            found.append(numbers[numbers % shares == share])
        ordered = np.sort(np.concatenate(found))
        if (ordered[1:] == ordered[:-1]).any():
            return False
    return True
