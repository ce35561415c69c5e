"""Which classes and sensitive values rows have together, and how many rows have each.

Labels, groups, strata and counts are all functions of these combinations, which are
few; each row is one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.associations import joint
from safescale_ammt.data.attack import Groups
from safescale_ammt.data.coded_rows import CodedRows, Places, add_counts, smallest
from safescale_ammt.data.groups import check_few, group_columns
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.relations import REMOVED, Placed
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.reading.columns import Column, RawTable

Combination = tuple[int, ...]


@dataclass(frozen=True)
class Composition:
    """The combinations of all rows.

    Attributes:
        coded: the rows.
        classes: class names in code order.
        label: class code (k,) of each combination; -1 of rows that are left out.
        groups: every group by name: its values, sorted, and codes (k,) into them.
    """

    coded: CodedRows
    classes: tuple[str, ...]
    label: NDArray[np.int64]
    groups: Groups
    _rows: tuple[Callable[[], NDArray[Any]], ...]

    @classmethod
    def of(
        cls,
        config: DataConfig,
        joined: Joined,
        classes: tuple[str, ...],
        label: NDArray[np.int64],
        shelf: Shelf,
    ) -> Composition:
        """Finds the combinations.

        Args:
            config: names sensitive columns, merges and crosses.
            joined: all rows.
            classes: their names.
            label: class code of every label entry.
            shelf: for the combination of each row.

        Raises:
            DataError: a sensitive column with too many values.
            ConfigError: a merge or cross of something unknown.
        """
        table, coded = joined.table, joined.coded
        for name in config.sensitive:
            check_few(config, name, table.columns[name], table.origin)
        of_entry: list[tuple[str, NDArray[Any]]] = [(config.label, label + 1)]
        of_entry += [(name, table.columns[name].codes) for name in config.sensitive]
        found: dict[Combination, int] = {}
        rows, counts = [], np.zeros(0, np.int64)
        for batch in coded.batches:
            codes, parts = joint(
                [of[coded.codes(name, batch)] for name, of in of_entry]
            )
            each = zip(*(part.tolist() for part in parts), strict=True)
            index = np.array([found.setdefault(c, len(found)) for c in each])
            codes = index.astype(smallest(len(found)))[codes]
            counts = np.append(counts, np.zeros(len(found) - len(counts), np.int64))
            add_counts(counts, codes)
            rows.append(shelf.keep(codes))
        combinations = np.array(list(found))
        ranked = groups_of(config, table, combinations, counts)
        return cls(coded, classes, combinations[:, 0] - 1, ranked, tuple(rows))

    def of_rows(self, batch: int) -> NDArray[Any]:
        """Returns the combination (n,) of each row of a batch."""
        return self._rows[batch]()

    def count(self, places: Places, kinds: int) -> NDArray[np.int64]:
        """Counts the rows of every combination by place, int64 (k, kinds)."""
        found = np.zeros(len(self.label) * kinds, np.int64)
        for batch in self.coded.batches:
            codes = self.of_rows(batch).astype(np.int64) * kinds + places(batch)
            add_counts(found, codes)
        return found.reshape(-1, kinds)

    def split_counts(self, placement: Placed) -> NDArray[np.int64]:
        """Counts the rows of every combination by split, int64 (k, splits)."""
        split = placement.split
        counts = self.count(lambda i: split[self.coded.slice(i)], REMOVED + 1)
        return counts[:, :REMOVED]


def groups_of(
    config: DataConfig,
    table: RawTable,
    combinations: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Groups:
    """Returns every group by name: its values, sorted, and codes (k,) into them.

    Args:
        config: names sensitive columns, merges and crosses.
        table: the entries of all rows.
        combinations: (k, 1 + sensitive columns): class code and one, 0 of rows that
            are left out; then the value of each sensitive column.
        counts: rows (k,) of each.

    Raises:
        ConfigError: a merge or cross of something unknown.
    """
    stays = combinations[:, 0] > 0
    columns = {}
    for i, name in enumerate(config.sensitive, 1):
        texts, values = table.columns[name].values, combinations[:, i].astype(np.int32)
        columns[name] = Column(values, texts, counts).take(stays)
    few = RawTable(columns, int(stays.sum()), table.origin, table.digests)
    groups = group_columns(config, few)
    ranked = {}
    # JSON sorts keys: written and read groups have one order.
    for name in sorted(groups):
        codes = np.zeros(len(stays), np.int64)
        names, codes[stays] = groups[name].ranked()
        ranked[name] = names, codes
    return ranked


def strata_of(
    config: DataConfig, label: NDArray[np.int64], classes: int, groups: Groups
) -> NDArray[np.int64]:
    """Returns the stratum (k,) of combinations: class and first sensitive value.

    Args:
        config: names sensitive columns.
        label: class code (k,); -1 of rows that are left out.
        classes: how many there are.
        groups: see `groups_of`.
    """
    strata = np.maximum(label, 0)
    if config.sensitive:
        _, first = groups[config.sensitive[0]]
        strata = first * classes + strata
    return strata
