"""Rows that are judged, by batches: the sealed ones, or *select* in a rehearsal.

Of an entity one row is judged. The sealed rows were drawn when they were prepared; of
*select* one row of each entity is drawn here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.dataset import (
    BATCH_ROWS,
    ENTITY_COLUMN,
    ROW_COLUMN,
    Dataset,
    Split,
    StoredSplits,
    check_rows,
)
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW, one_of_each
from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import read_json
from safescale_ammt.files.parquet import (
    fixed_bytes,
    parquet_batches,
    parquet_rows,
    read_fixed,
)
from safescale_ammt.files.regular import Readable

SEALED_ROWS = "sealed.parquet"
"""The file of the holdout with the sealed rows."""
SAMPLING = "sampling.json"
"""The file of the holdout that says how many rows its entities had."""


@dataclass(frozen=True)
class StoredRows:
    """Rows of a split that are judged.

    Attributes:
        files: of the split, in order.
        schema: of the rows.
        rows: of the split.
        drawn: mask (n,) of the rows that are judged; None = all.
    """

    files: Sequence[Path | Readable]
    schema: Schema
    rows: int
    drawn: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Returns the number of rows that are judged."""
        return self.rows if self.drawn is None else int(self.drawn.sum())

    @classmethod
    def of_split(cls, dataset: Dataset, name: str) -> StoredRows:
        """Takes the rows of a split of a stored dataset; as `of`."""
        assert isinstance(dataset.splits, StoredSplits)
        files = dataset.splits.shards.of(name)
        return cls.of(files, dataset.schema, dataset.rows(name))

    @classmethod
    def of(
        cls, files: Sequence[Path | Readable], schema: Schema, rows: int
    ) -> StoredRows:
        """Takes the rows of a split, of each entity the one that is drawn.

        Raises:
            DataError: these are no split's files, or hold other rows.
        """
        stored = cls(files, schema, rows)
        if not schema.entity:
            return stored
        return cls(files, schema, rows, one_of_each(*stored.entities()))

    def batches(self) -> Iterator[Split]:
        """Yields the rows in batches, all but their hashes; as `Split.batches`."""
        at = 0
        for file in self.files:
            for batch in Split.batches(file, self.schema):
                own = slice(at, at := at + len(batch))
                yield batch if self.drawn is None else batch.take(self.drawn[own])
        self._check(at)

    def hashes(self) -> NDArray[np.void]:
        """Returns the raw-row hashes, V16 (n,)."""
        parts = [read_fixed(file, ROW_COLUMN, ROW) for file in self.files]
        # Copied only where there are several.
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._check(len(rows))
        return rows if self.drawn is None else rows[self.drawn]

    def entities(self) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """Reads the number of each row's entity, and its hash, (n,), of all rows."""
        numbers, rows = [], []
        for file in self.files:
            columns = [ROW_COLUMN, ENTITY_COLUMN]
            for table in parquet_batches(file, columns, BATCH_ROWS):
                numbers.append(table[ENTITY_COLUMN].to_numpy())
                rows.append(fixed_bytes(table[ROW_COLUMN], ROW))
        found = np.concatenate(numbers)
        self._check(len(found))
        return found, np.concatenate(rows)

    def _check(self, rows: int) -> None:
        check_rows(Readable.of(self.files[0]).name, rows, self.rows)


@dataclass(frozen=True)
class Holdout:
    """The sealed split, for `evaluate_safety` alone.

    Attributes:
        stored: the sealed rows.
        identity: identity digest of the artifact.
        rows: sealed rows before one of each entity was drawn.
    """

    stored: StoredRows
    identity: str
    rows: int

    @property
    def schema(self) -> Schema:
        """As in the dataset that was made with it."""
        return self.stored.schema

    @cached_property
    def split(self) -> Split:
        """All sealed rows at once, for those that can hold them."""
        return Split.read(self.stored.files[0], self.stored.schema)

    @classmethod
    def load(cls, path: Path | str) -> Holdout:
        """Verifies a whole holdout artifact (`store.protected.made_whole`).

        Raises:
            InputError: this is no holdout artifact.
            IntegrityError: a byte of it was changed, or an entity has several rows.
        """
        path = Path(path)
        manifest = verify(path, "holdout")
        schema = Schema.load(path)
        file = path / SEALED_ROWS
        stored = StoredRows((file,), schema, parquet_rows(file))
        rows = stored.rows
        if schema.entity:
            # Rows of one entity are no independent draws, and no test here is of any.
            if many := rows - len(np.unique(stored.entities()[0])):
                raise IntegrityError(
                    f"{many} sealed rows of {path} are of an entity that another row "
                    "is of; prepare the data again, which draws one row of each."
                )
            rows = rows_before(path / SAMPLING, rows)
        return cls(stored, manifest.identity, rows)


def rows_before(file: Path, drawn: int) -> int:
    """Reads how many sealed rows there were before one of each entity was drawn.

    Args:
        file: `sampling.json` of a holdout.
        drawn: rows that are left.

    Raises:
        IntegrityError: it holds something else, or fewer than were drawn.
    """
    stated = read_json(file)
    rows = stated.get("rows") if isinstance(stated, Mapping) else None
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < drawn:
        raise IntegrityError(
            f"{file} states no number of rows of which {drawn} can have been drawn."
        )
    return rows
