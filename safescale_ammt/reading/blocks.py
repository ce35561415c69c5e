"""The columns of one file in blocks of rows, wherever they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa

from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.scratch import Held, Scratch, array_of

BATCH_ROWS = 1 << 17
"""Rows of a batch, at most."""
BLOCK_BYTES = 1 << 25
"""Bytes of the rows of a block, about, as far as they are known beforehand."""


class Blocks:
    """Columns of one file, block by block of rows.

    Attributes:
        held: the blocks of every column of texts, by position in the file.
        kept: blocks of columns in the file's own types, by name.
        lengths: rows of each block of every column, by position.

    Args:
        scratch: takes them.
        origin: the file, for sentences.
    """

    def __init__(self, scratch: Scratch, origin: str) -> None:
        self.scratch = scratch
        self.origin = origin
        self.held: dict[int, list[Held]] = defaultdict(list)
        self.kept: dict[str, list[Held]] = defaultdict(list)
        self.lengths: dict[int, list[int]] = defaultdict(list)

    @property
    def sizes(self) -> list[int]:
        """Rows of each block, by the first column."""
        return self.lengths[0]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.sizes)

    def add(self, at: int, column: Column) -> None:
        """Adds the next block of a column; without rows it is none.

        Raises:
            DataError: there is no room for it.
            StorageError: the disk is full or failed.
        """
        if not len(column):
            return
        self.lengths[at].append(len(column))
        self.held[at].append(self.scratch.put(column.coded(), self.origin))

    def keep(self, name: str, array: pa.Array) -> None:
        """Adds the next block of a column in the file's own type; see `add`."""
        if len(array):
            self.kept[name].append(self.scratch.put(array, self.origin))

    def column(self, at: int) -> Iterator[Column]:
        """Yields a column block by block."""
        for held in self.held[at]:
            yield Column.decoded(array_of(held))
