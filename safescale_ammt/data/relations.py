"""What rows of a table have to do with each other: which are equal, who goes where.

All that the preparation asks of many rows at once is one of three operations, each a
grouping or a ranking by a key. `data.buckets` does them on one machine, in memory or
through files, of batches of plain arrays in the order of the table; `spark.placing`
does them by joins and windows of Spark, and gives the same answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS

SEALED = "sealed"
ALL_SPLITS = (*SPLITS, SEALED)
SEALED_CODE = len(SPLITS)
REMOVED = len(ALL_SPLITS)
"""Code of a row that goes nowhere; those before it are codes into `ALL_SPLITS`."""

_PART = 1 << 20

Keyed = tuple[NDArray[np.uint64], NDArray[np.bool_]]
"""Keys (n,) of some rows, and a mask of those that are asked about."""
Times = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Of distinct keys (k,): rows that have it, and those of them that are asked about."""


@dataclass(frozen=True)
class RowFacts:
    """What the place of some rows depends on.

    Attributes:
        rows: hashes, V16 (n,), equal for equal rows however a file spells their label.
        sealed: mask (n,) of rows of an official test file.
        stratum: uint16 (n,), code of first sensitive value and class.
        entity: int64 (n,), code of who each row is about; None if rows are units.
        absent: mask (n,) of rows that are left out, as they have no label; None = none.
    """

    rows: NDArray[np.void]
    sealed: NDArray[np.bool_]
    stratum: NDArray[np.uint16]
    entity: NDArray[np.int64] | None = None
    absent: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Rule:
    """By what rows are placed; see `data.splitting`.

    Attributes:
        fractions: share of each of `ALL_SPLITS`, summing to 1.
        seed: of the draw.
        drop_duplicates: whether one of equal rows stays, on each side.
        entities: hash V16 of every entity by its code; None if rows are units.
    """

    fractions: tuple[float, ...]
    seed: int
    drop_duplicates: bool = False
    entities: NDArray[np.void] | None = None


@dataclass(frozen=True)
class Placed:
    """Where every row goes.

    Attributes:
        split: uint8 (n,), code into `ALL_SPLITS`, or `REMOVED`.
        first: mask (n,) of development rows that no earlier one equals.
        copies: development rows removed because the sealed file has them too.
        dropped: rows of the source and sealed rows that repeat another and are left
            out.
        thinned: sealed rows left out, as another row of their entity is judged.
        shared: entities on both sides; with one, nothing is drawn.
    """

    split: NDArray[np.uint8]
    first: NDArray[np.bool_]
    copies: int = 0
    dropped: tuple[int, int] = (0, 0)
    thinned: int = 0
    shared: int = 0

    @cached_property
    def sizes(self) -> list[int]:
        """The rows of each of `ALL_SPLITS`."""
        sizes = np.zeros(REMOVED + 2, np.int64)
        # Part by part: what counts them makes eight bytes of each.
        for start in range(0, len(self.split), _PART):
            part = self.split[start : start + _PART]
            sizes += np.bincount(part, minlength=len(sizes))
        return [int(size) for size in sizes[:REMOVED]]

    @property
    def repeated(self) -> int:
        """Development rows that repeat an earlier one; they stay."""
        return sum(self.sizes[:SEALED_CODE]) - int(np.count_nonzero(self.first))
