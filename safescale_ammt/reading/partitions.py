"""Files of a folder: which of them hold data, and the columns that paths spell.

Hive's way to part a table: `folder/g=01/part.parquet` has a column `g`, whose value
is the text `01` in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

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


def partitions(folders: Sequence[str]) -> list[tuple[str, str]]:
    """Returns names and texts of the columns that a file's folders spell.

    Args:
        folders: names of the folders that the file lies in, outermost first.
    """
    spelled = []
    for folder in folders:
        column, sign, value = folder.partition("=")
        if sign and column:
            # Writers spell what a path cannot hold as %20.
            column, value = unquote(column), unquote(value)
            spelled.append((column, "" if value == _NO_VALUE else value))
    return spelled
