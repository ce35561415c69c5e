"""Shards: the files that hold the rows of one split, and where one may lie.

    train.parquet, train-00001.parquet, train-00002.parquet, ...

Each has `SHARD_ROWS` rows but the last, in the order of the rows: a split of no more is
one file. Where a table is prepared is no part of this rule, so that equal rows make
equal files. A shard may lie apart from its dataset, in the store of data at a key that
its digest alone says: whoever writes it twice, or for two datasets, writes equal bytes
to one key, and no object there is ever replaced by another.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from safescale_ammt.errors import DataError

DATASETS = "datasets/"
"""Beginning of the keys of shards that lie apart (`store.shards`)."""
SHARD_ROWS = 1 << 22
"""Rows of a shard: whole row groups, some hundred megabytes of a narrow table. Of 500
columns it is some gigabytes, for which whoever reads it needs the disk."""
MOST_SHARDS = 100_000
"""Of a split: numbers of five digits sort as their rows do."""
# The names of the splits stand here too: this room knows no config.
_SHARD = re.compile(
    r"(train|validation|constraint|monitor|select)(-(?!00000)[0-9]{5})?\.parquet"
)


def shard_name(split: str, number: int) -> str:
    """Returns the name of a shard; number 0 is the first.

    Raises:
        DataError: the split has more than `MOST_SHARDS`.
    """
    if number >= MOST_SHARDS:
        raise DataError(
            f"Split {split!r} has more than {MOST_SHARDS:,} shards of "
            f"{SHARD_ROWS:,} rows, the most that a split has."
        )
    return f"{split}-{number:05}.parquet" if number else f"{split}.parquet"


def is_shard(name: str) -> bool:
    """Says whether a file of a dataset holds rows of a development split."""
    return _SHARD.fullmatch(name) is not None


def shards_of(split: str, names: Collection[str]) -> list[str]:
    """Returns the shards of a split among the files of a dataset, in order.

    They end where a number is missing: who reads them counts their rows.
    """
    found = [shard_name(split, 0)]
    while (name := shard_name(split, len(found))) in names:
        found.append(name)
    return found
