"""Rows of one machine with their hashes, combinations and places, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.buckets import Buckets
from safescale_ammt.data.coded_rows import CodedRows, add_counts
from safescale_ammt.data.entry_cells import Written
from safescale_ammt.data.relations import REMOVED, Placed


@dataclass(frozen=True)
class RowsHere:
    """All rows and their places.

    Attributes:
        coded: codes of the rows.
        placed: where they went.
        written: their cells as the files spell them.
        hashes: give those of a batch's rows by these cells, V16 (n,).
        people: give the combination (n,) of each row of a batch.
        stays: mask (k,) of combinations whose rows are not left out.
        relations: of rows.
    """

    coded: CodedRows
    placed: Placed
    written: Written
    hashes: Sequence[Callable[[], NDArray[np.void]]]
    people: Sequence[Callable[[], NDArray[Any]]]
    stays: NDArray[np.bool_]
    relations: Buckets

    def places(self, batch: int) -> NDArray[np.uint8]:
        """Returns the places (n,) of the rows of a batch."""
        return self.placed.split[self.coded.slice(batch)]

    def combined(self, combinations: int) -> NDArray[np.int64]:
        """Counts the rows of every combination by place, int64 (k, REMOVED + 2)."""
        kinds = REMOVED + 2  # Beyond it are rows of which nothing was drawn.
        found = np.zeros(combinations * kinds, np.int64)
        for batch, people in enumerate(self.people):
            add_counts(found, people().astype(np.int64) * kinds + self.places(batch))
        return found.reshape(-1, kinds)
