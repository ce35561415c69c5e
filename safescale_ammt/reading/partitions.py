"""Files of a folder: which of them hold data, and the columns that paths spell.

Hive's way to part a table: `folder/g=01/part.parquet` has a column `g`, whose value
is the text `01` in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column

_ENDINGS = (".csv", ".tsv", ".parquet")
_PACKED = (".gz", ".zst", ".bz2", ".xz")
# What writers put in place of a missing value and of an empty one.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def is_data(name: str) -> bool:
    """Says whether a file below the folder holds rows, by its name."""
    *folders, file = name.split("/")
    # `_temporary/`, `._a.csv`: half-written or beside the data; `_g=1/` is a column.
    hidden = any(f.startswith((".", "_")) and "=" not in f for f in folders)
    if hidden or file.startswith((".", "_")):
        return False
    plain = file.lower()
    for ending in _PACKED:
        plain = plain.removesuffix(ending)
    return plain.endswith(_ENDINGS)


def with_partitions(table: pa.Table, folders: Sequence[str], origin: str) -> pa.Table:
    """Appends the columns that a file's folders spell, text as it stands there.

    Args:
        table: dictionary-coded text.
        folders: names of the folders that the file lies in, outermost first.
        origin: the file, for the sentence.

    Raises:
        DataError: the file has such a column itself, with other values.
    """
    for folder in folders:
        column, sign, value = folder.partition("=")
        if not sign or not column:
            continue
        # Writers spell what a path cannot hold as %20.
        column, value = unquote(column), unquote(value)
        text = "" if value == _NO_VALUE else value
        if column in table.column_names:
            if Column.of(table.column(column)).values.to_pylist() != [text]:
                raise DataError(
                    f"{origin} has a column {column!r} and lies in a folder that gives "
                    "it another value; rename one of them."
                )
            continue
        codes = pa.array(np.zeros(table.num_rows, np.int32))
        array = pa.DictionaryArray.from_arrays(codes, pa.array([text], pa.string()))
        table = table.append_column(column, pa.chunked_array([array]))
    return table
