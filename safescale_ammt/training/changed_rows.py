"""Changed rows: copies of training rows, changed as promises on a table permit.

A promise of `robust_accuracy` on a table has no slope, so that no multiplier can aim at
it. Training can see what it speaks of: each copy of a row is changed in as many columns
as may be at once, by options drawn with the seed, and keeps label and groups. They are
learnt from and nothing else: no rate that steers, and no form's score, is of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.constitution.table_threats import TableThreat
from safescale_ammt.data.coding import Coding
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.row_changes import ChangeableRows, Choices
from safescale_ammt.data.schema import Schema
from safescale_ammt.training.encoded import EncodedRows, coded


@runtime_checkable
class ChangedNets(Protocol):
    """Nets of a table whose rows can be changed."""

    def changed(
        self, threats: Sequence[TableThreat], copies: int, seed: int
    ) -> tuple[EncodedRows | None, Tensor]:
        """Returns changed copies of the pool's rows, and the number of each one's row.

        Args:
            threats: what may be changed; copies take them in turn.
            copies: of each row that permits a change.
            seed: of the draws.
        """


def changed_copies(
    batches: Iterator[Split],
    schema: Schema,
    coding: Coding,
    threats: Sequence[TableThreat],
    *,
    copies: int,
    seed: int,
) -> tuple[EncodedRows | None, Tensor]:
    """Draws changed copies of rows.

    Args:
        batches: the rows, in order.
        schema: of them.
        coding: of the copies.
        threats: what may be changed; copies take them in turn.
        copies: of each row that permits a change.
        seed: of the draws.

    Returns:
        The copies, None where no row permits a change, and the number (m,) int64 of
        the row that each is of.
    """
    rng = np.random.default_rng(seed)
    parts, origins, start = [], [np.zeros(0, np.int64)], 0
    for batch in batches:
        for copy in range(copies):
            rows = ChangeableRows(
                batch.features, threat := threats[copy % len(threats)], schema
            )
            # Each copy draws anew, so that a row is seen changed in several ways.
            choices = drawn_choices(rows, threat.changes, rng)
            own = np.flatnonzero((choices >= 0).any(axis=1))
            if len(own):
                taken = batch.take(own)
                table = plain_text(rows.changed(own, choices[own]))
                changed = Split(
                    table, taken.label, taken.groups, taken.rows, taken.entity
                )
                parts.append(coded(changed, coding, schema))
                origins.append(start + own)
        start += len(batch)
    found = EncodedRows.joined(parts, one_split=True) if parts else None
    return found, torch.from_numpy(np.concatenate(origins))


def drawn_choices(
    rows: ChangeableRows, changes: int, rng: np.random.Generator
) -> Choices:
    """Draws one permitted choice of each row (n, columns); all -1 where there is none.

    As many columns as may be changed at once, of those that a row can change.
    """
    columns = len(rows.permitted)
    option: NDArray[np.int64] = np.full((len(rows), columns), -1)
    for c, permitted in enumerate(rows.permitted):
        if permitted.shape[1]:
            # The greatest of independent draws is one of the permitted ones by chance.
            ranked = np.where(permitted, rng.random(permitted.shape), -1.0)
            option[:, c] = np.where(permitted.any(axis=1), ranked.argmax(axis=1), -1)
    order = np.where(option >= 0, rng.random(option.shape), 2.0).argsort(axis=1)
    kept = order.argsort(axis=1) < changes
    return np.where(kept, option, -1)


def plain_text(table: pa.Table) -> pa.Table:
    """Returns a table whose columns of codes into texts are texts, as in a split."""
    columns = {
        name: column.cast(pa.string())
        if pa.types.is_dictionary(column.type)
        else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pa.table(columns)


def with_copies(rows: EncodedRows, copies: EncodedRows, origins: Tensor) -> EncodedRows:
    """Returns rows and behind them their copies, each of its row's entity."""
    entity = None if rows.entity is None else rows.entity[origins]
    behind = EncodedRows(copies.x, copies.y, copies.groups, entity)
    return EncodedRows.joined([rows, behind], one_split=True)


def views_with_copies(
    views: Sequence[Tensor], origins: Tensor, rows: int
) -> tuple[Tensor, ...]:
    """Returns views to which the copies of their own rows are added.

    A copy of a row that an agent sets aside would tell it that row's label.

    Args:
        views: row numbers int32.
        origins: the row of each copy (m,).
        rows: before the copies.
    """
    found = []
    for view in views:
        inside = torch.zeros(rows, dtype=torch.bool)
        inside[view.long()] = True
        own = inside[origins].nonzero()[:, 0] + rows
        found.append(torch.cat([view, own.to(torch.int32)]))
    return tuple(found)
