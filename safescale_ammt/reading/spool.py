"""What one reading of raw rows leaves: their columns in batches, to be read again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from safescale_ammt.reading.columns import RawTable

BATCH_ROWS = 1 << 17
"""Rows of a batch, at most."""


@dataclass(frozen=True)
class Spool:
    """Raw rows that were read once, in batches.

    Attributes:
        names: of the columns, in source order.
        rows: number of rows.
        origin, digests, notes, names_are_safe, commas, unclear: see `RawTable`.
    """

    names: tuple[str, ...]
    rows: int
    origin: str
    digests: Mapping[str, str]
    notes: Mapping[str, int] = field(default_factory=dict)
    names_are_safe: bool = False
    commas: frozenset[str] = frozenset()
    unclear: frozenset[str] = frozenset()
    whole: RawTable | None = None

    @classmethod
    def of(cls, table: RawTable) -> Spool:
        """Makes a spool of a table that is in memory."""
        return cls(
            tuple(table.columns),
            table.rows,
            table.origin,
            table.digests,
            table.notes,
            table.names_are_safe,
            table.commas,
            table.unclear,
            table,
        )

    @property
    def outline(self) -> RawTable:
        """Returns the table without a row, for what is asked of its names alone."""
        return self.table().take(slice(0))

    def batches(self, names: Collection[str] | None = None) -> Iterator[RawTable]:
        """Yields the rows in source order, at most `BATCH_ROWS` at a time.

        A column of a batch has the distinct values that the batch has; `start` says how
        many rows lie before it.

        Args:
            names: of the columns that are read; None = all. They keep their order.
        """
        table = self.table(names)
        for start in range(0, self.rows, BATCH_ROWS):
            rows = table.take(slice(start, start + BATCH_ROWS))
            yield replace(rows, start=start)

    def table(self, names: Collection[str] | None = None) -> RawTable:
        """Returns all rows as one table."""
        assert self.whole is not None
        columns = {
            name: column
            for name, column in self.whole.columns.items()
            if names is None or name in names
        }
        return replace(self.whole, columns=columns)
