"""The placement of rows, a bucket of equal row hashes at a time.

A bucket holds its rows in the order of the table, and all that equal one of them. The
places of all rows are one byte a row; entities have a few words each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.relations import (
    REMOVED,
    SEALED_CODE,
    Placed,
    RowFacts,
    Rule,
)
from safescale_ammt.data.splitting import (
    ROW,
    assign_splits,
    contained,
    drawn_keys,
    occurrences,
    ranked_splits,
)

PLACED = np.dtype(
    [("row", ROW), ("at", "u4"), ("stratum", "u2"), ("sealed", "?"), ("entity", "u4")]
)
"""A row that is placed: its hash and its position in the table."""
DRAWN = np.dtype([("key", "u8"), ("at", "u4"), ("stratum", "u2")])
"""A row of which a draw decides the split, by its key."""
# A row of development until it is drawn.
_FREE = REMOVED + 1
_LAST = np.uint64(2**64 - 1)


class Spilling(Protocol):
    """Records by bucket of their keys: ascending buckets, each in order of addition."""

    def add(self, keys: NDArray[np.uint64], records: NDArray[np.void]) -> None:
        """Adds records (n,) with their keys (n,)."""

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Yields the records of each bucket."""


def records_of(batch: RowFacts, start: int) -> NDArray[np.void]:
    """Returns the rows of a batch that stay, as records; it begins at `start`."""
    records = np.empty(len(batch.rows), PLACED)
    records["at"] = np.arange(start, start + len(batch.rows))
    records["row"], records["sealed"] = batch.rows, batch.sealed
    records["stratum"] = batch.stratum
    records["entity"] = 0 if batch.entity is None else batch.entity
    return records if batch.absent is None else records[~batch.absent]


class Placing:
    """Places rows by a rule, in the order of the methods.

    Attributes:
        split: uint8 (n,), the place of every row so far.
        first: mask (n,), see `Placed`.
        shared: entities on both sides.
    """

    def __init__(self, rule: Rule, rows: int) -> None:
        self.rule, self.shared = rule, 0
        self.split = np.full(rows, REMOVED, np.uint8)
        self.first = np.zeros(rows, np.bool_)
        self._copies, self._thinned, self._dropped = 0, 0, [0, 0]
        entities = 0 if rule.entities is None else len(rule.entities)
        # Least stratum of the development rows of each entity, `_NONE` without one.
        self._least = np.full(entities, np.iinfo(np.int64).max)

    @property
    def placement(self) -> Placed:
        """What has become of the rows."""
        source, sealed = self._dropped
        return Placed(
            self.split,
            self.first,
            self._copies,
            (source, sealed),
            self._thinned,
            self.shared,
        )

    def see_sides(self, placed: Spilling) -> None:
        """Tells sealed rows, copies of them, repeats and the others apart."""
        judged = np.zeros(len(self._least), np.bool_)
        for bucket in placed:
            rows, at, sealed = bucket["row"], bucket["at"], bucket["sealed"]
            repeats = np.zeros(len(rows), np.bool_)
            # Each side by itself: a sealed row stays, whatever the source holds.
            for side in (~sealed, sealed) if self.rule.drop_duplicates else ():
                repeats[side] = occurrences(rows[side]) > 0
            # A sealed row that was trained on measures memory. It is taken from
            # development: an official test set stays what others judge on.
            copies = ~sealed & ~repeats
            copies[copies] = contained(rows[copies], rows[sealed])
            free = ~sealed & ~copies & ~repeats
            self.split[at[free]] = _FREE
            self.split[at[sealed & ~repeats]] = SEALED_CODE
            self._copies += int(copies.sum())
            for i, side in enumerate((~sealed, sealed)):
                self._dropped[i] += int(repeats[side].sum())
            if self.rule.entities is not None:
                judged[bucket["entity"][sealed]] = True
                strata = bucket["stratum"][free].astype(np.int64)
                np.minimum.at(self._least, bucket["entity"][free], strata)
        developed = self._least < np.iinfo(np.int64).max
        self.shared = int((developed & judged).sum())

    def draw(self, placed: Spilling, drawn: Spilling) -> None:
        """Draws the splits of rows, or of entities with all of their rows."""
        if self.rule.entities is None:
            self._draw_rows(placed, drawn)
        else:
            self._draw_entities(placed)
            self._thin(placed)

    def _draw_rows(self, placed: Spilling, drawn: Spilling) -> None:
        sizes = np.zeros(1 << 16, np.int64)
        for bucket in placed:
            free = bucket[self.split[bucket["at"]] == _FREE]
            records = np.empty(len(free), DRAWN)
            for name in ("at", "stratum"):
                records[name] = free[name]
            purpose = f"split {self.rule.seed}"
            rows = np.ascontiguousarray(free["row"])
            records["key"] = drawn_keys(rows, purpose, occurrences(rows))
            sizes += np.bincount(free["stratum"], minlength=len(sizes))
            drawn.add(records["key"], records)
        # Ranks go on from bucket to bucket: those before have the smaller keys.
        before = np.zeros_like(sizes)
        for bucket in drawn:
            at, strata = bucket["at"], bucket["stratum"]
            self.split[at] = ranked_splits(
                bucket["key"], strata, self.rule.fractions, (before, sizes), at
            )
            before += np.bincount(strata, minlength=len(sizes))

    def _draw_entities(self, placed: Spilling) -> None:
        assert self.rule.entities is not None
        # An entity is one unit, whatever the number of its rows: large and small ones
        # have the same chance, so that those that are drawn are a sample of all.
        units = np.flatnonzero(self._least < np.iinfo(np.int64).max)
        keys = drawn_keys(self.rule.entities[units], f"split {self.rule.seed}")
        split = np.zeros(len(self._least), np.uint8)
        split[units] = assign_splits(keys, self._least[units], self.rule.fractions)
        for bucket in placed:
            free = bucket[self.split[bucket["at"]] == _FREE]
            self.split[free["at"]] = split[free["entity"]]

    def _thin(self, placed: Spilling) -> None:
        """Draws one sealed row of every entity, whatever splits it.

        The draw has no seed, so that nobody who runs anything chooses it.
        """
        key, at = np.full(len(self._least), _LAST), np.zeros(len(self._least), np.int64)
        drawn = np.zeros(len(self._least), np.bool_)
        for bucket in placed:
            judged = bucket[self.split[bucket["at"]] == SEALED_CODE]
            rows = np.ascontiguousarray(judged["row"])
            keys = drawn_keys(rows, "row of an entity", occurrences(rows))
            order = np.lexsort((judged["at"], keys, judged["entity"]))
            whose, keys, here = (
                judged["entity"][order],
                keys[order],
                judged["at"][order],
            )
            new = np.append(True, whose[1:] != whose[:-1])[: len(whose)]
            whose, keys, here = whose[new], keys[new], here[new]
            tied = (keys == key[whose]) & (here < at[whose])
            better = ~drawn[whose] | (keys < key[whose]) | tied
            whose = whose[better]
            key[whose], at[whose], drawn[whose] = keys[better], here[better], True
        others = self.split == SEALED_CODE
        others[at[drawn]] = False
        self.split[others] = REMOVED
        self._thinned = int(others.sum())

    def see_firsts(self, placed: Spilling) -> None:
        """Finds the development rows that no earlier one equals."""
        for bucket in placed:
            mine = bucket[self.split[bucket["at"]] < SEALED_CODE]
            fresh = occurrences(np.ascontiguousarray(mine["row"])) == 0
            self.first[mine["at"][fresh]] = True
