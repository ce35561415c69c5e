"""Which classes and sensitive values rows have together, and how many rows have each.

Labels, groups, strata and counts are all functions of these combinations, which are
few; each row is one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.attack import Groups
from safescale_ammt.data.counts import Counts, tally
from safescale_ammt.data.disclosure import shown_counts, with_class_groups
from safescale_ammt.data.groups import check_few, class_groups, group_columns
from safescale_ammt.data.relations import SEALED, SEALED_CODE
from safescale_ammt.reading.columns import Column, RawTable

Coded = Sequence[tuple[str, NDArray[np.int64]]]
"""By name of a column the code (entries,) of each entry."""


@dataclass(frozen=True)
class Composition:
    """The combinations of all rows.

    Attributes:
        classes: class names in code order.
        label: class code (k,) of each combination; -1 of rows that are left out.
        groups: every group by name: its values, sorted, and codes (k,) into them.
        of_label: names of groups that are merges of the label.
    """

    classes: tuple[str, ...]
    label: NDArray[np.int64]
    groups: Groups
    of_label: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        config: DataConfig,
        table: RawTable,
        combine: Callable[[Coded], tuple[NDArray[np.int64], NDArray[np.int64]]],
        classes: tuple[str, ...],
        label: NDArray[np.int64],
    ) -> Composition:
        """Finds the combinations.

        Args:
            config: names sensitive columns, merges and crosses.
            table: the entries of all rows.
            combine: counts which codes of entries rows have together, as
                `table.Table.combine`.
            classes: their names.
            label: class code of every label entry.

        Raises:
            DataError: a sensitive column with too many values.
            ConfigError: a merge or cross of something unknown.
        """
        columns = [(config.label, label + 1)]
        for name in config.sensitive:
            check_few(config, name, table.columns[name], table.origin)
            columns.append((name, table.columns[name].codes.astype(np.int64)))
        combinations, counts = combine(columns)
        groups = groups_of(config, table, combinations, counts, classes)
        of_label = frozenset(class_groups(config))
        return cls(classes, combinations[:, 0] - 1, groups, of_label)

    def strata(self, config: DataConfig) -> NDArray[np.int64]:
        """Returns the stratum (k,) of combinations: class and first sensitive value."""
        strata = np.maximum(self.label, 0)
        if config.sensitive:
            _, first = self.groups[config.sensitive[0]]
            strata = first * len(self.classes) + strata
        return strata

    def told(self, counts: NDArray[np.int64], positive: str) -> Counts:
        """Counts the rows of every split; of the sealed one what may be told.

        Args:
            counts: rows of each combination by split, int64 (k, splits).
            positive: name of the class that counts as such.
        """
        stays = self.label >= 0
        label, counts = self.label[stays], counts[stays]
        groups = {name: (v, codes[stays]) for name, (v, codes) in self.groups.items()}
        told = {
            name: tally(label, groups, len(self.classes), weights=counts[:, i])
            for i, name in enumerate(SPLITS)
        }
        # With development rows: their combinations of groups narrow down hidden counts.
        judged = counts[:, SEALED_CODE]
        weights = np.concatenate([counts.sum(axis=1) - judged, judged])
        used = weights > 0
        twice = {
            name: (values, np.tile(codes, 2)[used])
            for name, (values, codes) in groups.items()
            if name not in self.of_label
        }
        shown = shown_counts(
            np.tile(label, 2)[used],
            twice,
            len(self.classes),
            np.repeat([False, True], len(label))[used],
            weights[used],
        )
        of_label = {name: groups[name] for name in self.of_label}
        full = tally(label, of_label, len(self.classes), weights=judged)
        told[SEALED] = with_class_groups(shown, full)
        return Counts(self.classes, positive, told)


def groups_of(
    config: DataConfig,
    table: RawTable,
    combinations: NDArray[np.int64],
    counts: NDArray[np.int64],
    classes: Sequence[str],
) -> Groups:
    """Returns every group by name: its values, sorted, and codes (k,) into them.

    Args:
        config: names sensitive columns, merges and crosses.
        table: the entries of all rows.
        combinations: (k, 1 + sensitive columns): class code and one, 0 of rows that
            are left out; then the value of each sensitive column.
        counts: rows (k,) of each.
        classes: their names; a merge may be of the label.

    Raises:
        ConfigError: a merge or cross of something unknown.
    """
    stays = combinations[:, 0] > 0
    columns = {}
    for i, name in enumerate(config.sensitive, 1):
        texts, values = table.columns[name].values, combinations[:, i].astype(np.int32)
        columns[name] = Column(values, texts, counts).take(stays)
    names, label = pa.array(classes, pa.string()), combinations[:, 0] - 1
    columns[config.label] = Column(label.astype(np.int32), names, counts).take(stays)
    few = RawTable(columns, int(stays.sum()), table.origin, table.digests)
    groups = group_columns(config, few)
    ranked = {}
    # JSON sorts keys: written and read groups have one order.
    for name in sorted(groups):
        codes = np.zeros(len(stays), np.int64)
        values_of, codes[stays] = groups[name].ranked()
        ranked[name] = values_of, codes
    return ranked
