"""What the preparation asks of all rows of a table, wherever they are held.

What is decided of a column is decided of its *entries*, its distinct texts, which are
in memory. What is a matter of all rows is asked of a table: on one machine of
`local_table`, which has them as codes, beyond it of frames of Spark (`spark.table`).
Both give the same answers, whatever batches or partitions there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.relations import REMOVED, SEALED_CODE, Rule, Times

if TYPE_CHECKING:
    from pathlib import Path

    from safescale_ammt.config.sections import DataConfig
    from safescale_ammt.data.composition import Composition
    from safescale_ammt.data.dataset import Split
    from safescale_ammt.data.entry_cells import Written
    from safescale_ammt.data.row_keys import RowKeys
    from safescale_ammt.data.schema import Schema
    from safescale_ammt.data.typed_entries import TypedEntries
    from safescale_ammt.files.artifacts import Draft
    from safescale_ammt.reading.columns import Column, RawTable
    from safescale_ammt.reading.readings import Form

Entity = tuple[str, NDArray[np.int64]]
"""Column that says who a row is about, and the code (entries,) of each entry."""


@dataclass(frozen=True)
class Left:
    """Rows that are left out: those that have some entries of a column.

    Attributes:
        name: of the column.
        entries: mask (entries,).
    """

    name: str
    entries: NDArray[np.bool_]


@dataclass(frozen=True)
class PlaceCounts:
    """How many rows went where.

    Attributes:
        counts: rows of each combination by place, int64 (k, REMOVED).
        repeated: development rows that repeat an earlier one; they stay.
        copies: development rows removed because the sealed file has them too.
        dropped: rows of the source and sealed rows that repeat another and are left
            out.
        thinned: sealed rows left out, as another row of their entity is judged.
        shared: entities on both sides; with one, nothing is drawn.
    """

    counts: NDArray[np.int64]
    repeated: int = 0
    copies: int = 0
    dropped: tuple[int, int] = (0, 0)
    thinned: int = 0
    shared: int = 0

    @cached_property
    def sizes(self) -> list[int]:
        """The rows of each of `ALL_SPLITS`."""
        return [int(size) for size in self.counts.sum(axis=0)[:REMOVED]]

    @property
    def developed(self) -> int:
        """The development rows."""
        return sum(self.sizes[:SEALED_CODE])


@dataclass(frozen=True)
class Filling:
    """What makes typed rows of raw ones.

    Attributes:
        columns: the entries of all columns, spelled; equal codes are equal texts.
        typed: the feature columns in schema order.
        forms: by which columns of text are read.
        missing: spellings of a missing value.
        composition: classes and groups of the combinations.
        entity: who rows are about; None if each is a unit.
    """

    columns: Mapping[str, Column]
    typed: Mapping[str, TypedEntries]
    forms: Mapping[str, Form]
    missing: Sequence[str]
    composition: Composition
    entity: Entity | None = None


class PlacedTable(Protocol):
    """Typed rows in their splits."""

    def code_counts(self, schema: Schema) -> list[NDArray[np.int64]]:
        """Counts the train rows of each code and class of every part of the inputs."""

    def split(self, name: str) -> Split:
        """Returns a split in memory."""

    def drawn(self, most: int) -> dict[str, Split]:
        """Draws about so many development rows, in memory, by split; all if fewer.

        Each by itself, by its hash and position: equal rows are drawn apart.
        """

    def write_sealed(self, path: Path, schema: Schema) -> None:
        """Writes the Parquet file of the sealed rows."""

    def write_shards(self, draft: Draft, schema: Schema, shard_rows: int) -> None:
        """Writes the shards of the development splits into an artifact.

        Args:
            draft: of the dataset.
            schema: of the rows.
            shard_rows: rows of a shard, all but the last of a split.
        """

    def times(self, *, beside: Sequence[NDArray[np.int64]] = ()) -> Iterator[Times]:
        """Counts rows by their inputs; asked about are those of development.

        Args:
            beside: codes (k,) of the combinations in which rows have to agree too.
        """

    def whole_times(self) -> Iterator[Times]:
        """Counts rows by all of their cells; asked about are those of development."""

    def text_times(self, names: Sequence[str]) -> Iterator[Times]:
        """Counts development rows that no earlier one equals by texts of columns."""

    def keys(self, config: DataConfig, digests: Sequence[str]) -> RowKeys:
        """Returns what the sealed rows are known by.

        Args:
            config: names the ids and the label.
            digests: `sha256:...` of the files that the sealed rows come from.
        """


class Table(Protocol):
    """All rows of a source, then those of a sealed file.

    They are combined, then placed, then filled with types.
    """

    @property
    def rows(self) -> int:
        """Rows in all."""

    @property
    def border(self) -> int:
        """Rows of the source, which come first."""

    @property
    def tables(self) -> Sequence[RawTable]:
        """Entries of each side; a column's weights count their rows."""

    def entries(self, name: str) -> int:
        """Returns how many entries of a column are of the source; they come first."""

    def kept(self, name: str, left: Left) -> NDArray[np.int64]:
        """Counts the rows of each entry (entries,) of a column that stay."""

    def first_row(
        self, name: str, entries: NDArray[np.bool_], left: Left | None
    ) -> int:
        """Returns the position of the first row that has one of some entries."""

    def combine(
        self, columns: Sequence[tuple[str, NDArray[np.int64]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts which codes rows have together.

        Args:
            columns: by name, the label first: the code (entries,) of each entry.

        Returns:
            Codes (k, columns) of the combinations, and the rows (k,) of each.
        """

    def place(
        self,
        written: Written,
        strata: NDArray[np.int64],
        stays: NDArray[np.bool_],
        entity: Entity | None,
        rule: Rule,
    ) -> PlaceCounts:
        """Places every row; a development row that is also sealed is removed.

        Args:
            written: how cells are read before rows are hashed.
            strata: of the combinations (k,).
            stays: mask (k,) of combinations whose rows are not left out.
            entity: who rows are about.
            rule: of the placement.
        """

    def placed(self, name: str) -> NDArray[np.int64]:
        """Counts the rows of each entry by place, int64 (entries, REMOVED + 1)."""

    def filled(self, filling: Filling) -> PlacedTable:
        """Returns the placed rows with types."""
