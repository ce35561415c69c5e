"""Functions of one batch of rows that Spark's workers run, as this machine does.

A worker finds them by their names, in the same version of this package.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.splitting import ROW, drawn_keys

TOP = np.uint64(1 << 63)


def signed(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns words (n,) as whole numbers in the same order: Spark has no others."""
    return (words ^ TOP).view(np.int64)


def unsigned(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Returns the words (n,) that are written as such numbers."""
    return np.ascontiguousarray(numbers).view(np.uint64) ^ TOP


def with_keys(
    batches: Iterator[pa.RecordBatch], purpose: str
) -> Iterator[pa.RecordBatch]:
    """Adds to batches of units the column `key`: their rank in a draw.

    Args:
        batches: with columns `high` (half of a hash) and `number` (among equals).
        purpose: of the draw.
    """
    for batch in batches:
        rows = np.zeros((batch.num_rows, 2), np.uint64)
        rows[:, 0] = unsigned(np.asarray(batch["high"]))
        number = np.asarray(batch["number"])
        keys = drawn_keys(rows.view(ROW)[:, 0], purpose, number)
        yield batch.append_column("key", pa.array(signed(keys)))
