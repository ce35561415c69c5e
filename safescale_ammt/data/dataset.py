"""The dataset and the holdout: typed splits in Parquet, verified when read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.counts import Counts
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW, arrow_rows, one_of_each
from safescale_ammt.errors import DataError
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.parquet import (
    ROW_GROUP,
    fixed_bytes,
    parquet_batches,
    parquet_rows,
    read_parquet,
)

BATCH_ROWS = 1 << 17
"""Most rows of a batch."""
# Columns of ours beside the raw ones; a raw name never begins with an underscore.
_LABEL = "_label"
ROW_COLUMN = "_row"
ENTITY_COLUMN = "_entity"
_GROUP = "_group:"


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        features: raw feature columns in schema order: float64 for numeric, string
            for categorical, timestamp for dates, null for missing.
        label: class codes, int64 (n,).
        groups: group name -> int64 (n,) codes into `schema.groups[name]`.
        rows: raw-row hashes, V16 (n,); `row_hex` spells them. None are in a
            batch.
        entity: number within the split of each row's entity, int64 (n,); None if rows
            have none. A number and not a name: it tells of nobody.
    """

    features: pa.Table
    label: NDArray[np.int64]
    groups: Mapping[str, NDArray[np.int64]]
    rows: NDArray[np.void]
    entity: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.label)

    def take(self, rows: NDArray[Any]) -> Split:
        """Returns the chosen rows (indices or mask), in that order."""
        # A mask becomes indices too: Arrow's `take` knows no masks.
        index = np.arange(len(self))[rows]
        groups = {name: codes[index] for name, codes in self.groups.items()}
        features = self.features.take(pa.array(index))
        entity = None if self.entity is None else self.entity[index]
        rows = self.rows[index] if len(self.rows) else self.rows
        return Split(features, self.label[index], groups, rows, entity)

    def thinned(self) -> Split:
        """Returns one row of each entity, drawn by the rows; all if there are none."""
        if self.entity is None:
            return self
        return self.take(one_of_each(self.entity, self.rows))

    def table(self, schema: Schema) -> pa.Table:
        """Returns the split as its Parquet file has it."""
        columns = dict(zip(schema.names, self.features.columns, strict=True))
        columns[_LABEL] = pa.array(self.label)
        columns[ROW_COLUMN] = arrow_rows(self.rows)
        if self.entity is not None:
            columns[ENTITY_COLUMN] = pa.array(self.entity)
        for name, codes in self.groups.items():
            values = pa.array(schema.groups[name], pa.string())
            columns[_GROUP + name] = values.take(pa.array(codes))
        return pa.table(columns)

    def write(self, path: Path, schema: Schema) -> None:
        """Writes the split's Parquet file."""
        write_split([self], path, schema)

    @classmethod
    def read(cls, path: Path, schema: Schema) -> Split:
        """Reads a split's Parquet file.

        Raises:
            DataError: its columns or group values are not those of the schema, or it
                is no whole Parquet file.
        """
        return cls.of(read_parquet(path), schema, path)

    @classmethod
    def batches(cls, path: Path, schema: Schema) -> Iterator[Split]:
        """Reads a split's Parquet file batch by batch, all but the row hashes.

        Raises:
            DataError: as `read`.
        """
        columns = [name for name in stored_columns(schema) if name != ROW_COLUMN]
        for table in parquet_batches(path, columns, BATCH_ROWS):
            yield cls.of(table, schema, path, hashed=False)

    @classmethod
    def of(
        cls, table: pa.Table, schema: Schema, path: Path, *, hashed: bool = True
    ) -> Split:
        """Makes a split of the columns of its file, with or without the row hashes.

        Raises:
            DataError: they are not those of the schema.
        """
        expected = [n for n in stored_columns(schema) if hashed or n != ROW_COLUMN]
        if table.column_names != expected:
            raise DataError(
                f"{path} has the columns {', '.join(table.column_names)}, its schema "
                f"says {', '.join(expected)}."
            )
        kinds = {_LABEL: pa.int64()}
        if hashed:
            kinds[ROW_COLUMN] = pa.binary(ROW.itemsize)
        found = {name: table.schema.field(name).type for name in kinds}
        if found != kinds or any(table[name].null_count for name in kinds):
            raise DataError(f"{path} has labels or row hashes of another type.")
        codes = {
            name: _codes(path, table[_GROUP + name], values)
            for name, values in schema.groups.items()
        }
        rows = fixed_bytes(table[ROW_COLUMN], ROW) if hashed else np.empty(0, ROW)
        label = table[_LABEL].to_numpy().astype(np.int64)
        features = table.select(list(schema.names))
        entity = table[ENTITY_COLUMN].to_numpy() if schema.entity else None
        return cls(features, label, codes, rows, entity)


def write_split(parts: Iterable[Split], path: Path, schema: Schema) -> None:
    """Writes a split's Parquet file, a row group at a time.

    Args:
        parts: the rows; all parts but the last have `ROW_GROUP` of them.
        path: of the file.
        schema: of the rows.
    """
    writer = None
    try:
        for part in parts:
            table = part.table(schema)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, ROW_GROUP)
    finally:
        if writer:
            writer.close()


def stored_columns(schema: Schema) -> list[str]:
    """Returns the columns of a split's file, in their order."""
    groups = [_GROUP + name for name in schema.groups]
    return [
        *schema.names,
        _LABEL,
        ROW_COLUMN,
        *[ENTITY_COLUMN] * bool(schema.entity),
        *groups,
    ]


def _codes(path: Path, column: pa.Array, values: tuple[str, ...]) -> NDArray[np.int64]:
    indices = pc.index_in(column, value_set=pa.array(values, pa.string()))
    if indices.null_count:
        raise DataError(f"{path} has a group value that its schema does not know.")
    return np.asarray(indices.to_numpy()).astype(np.int64)


def class_shares(dataset: Path | str, schema: Schema) -> tuple[float, ...]:
    """Returns each class's share of the training rows of a dataset, by code.

    Only their labels are read; the folder's digests are the caller's to verify.
    """
    rows = np.zeros(len(schema.classes), np.int64)
    for table in parquet_batches(Path(dataset) / "train.parquet", [_LABEL], BATCH_ROWS):
        rows += np.bincount(table[_LABEL].to_numpy(), minlength=len(rows))
    return tuple((rows / max(1, rows.sum())).tolist())


class StoredSplits(Mapping[str, Split]):
    """The development splits of a dataset artifact, each read when it is asked for."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self._folder, self._schema = folder, schema
        self._read: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._read:
            self._read[name] = Split.read(self.file(name), self._schema)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)

    def file(self, name: str) -> Path:
        """Returns the file of a split."""
        return self._folder / f"{name}.parquet"


@dataclass(frozen=True)
class Dataset:
    """All that development sees: five splits, and counts of the sealed one.

    Attributes:
        schema: columns, classes, groups and encodings.
        splits: the five development splits by name.
        counts: of all six splits.
        identity: identity digest of the artifact.
    """

    schema: Schema
    splits: Mapping[str, Split]
    counts: Counts
    identity: str

    @classmethod
    def load(cls, path: Path | str) -> Dataset:
        """Verifies a dataset artifact; its rows are read when they are asked for.

        Raises:
            InputError: this is no dataset artifact.
            IntegrityError: a byte of it was changed.
        """
        path = Path(path)
        # Verified before a byte is parsed: nothing later has to doubt the files.
        manifest = verify(path, "dataset")
        schema = Schema.load(path)
        splits = StoredSplits(path, schema)
        return cls(schema, splits, Counts.load(path), manifest.identity)

    def rows(self, split: str) -> int:
        """Returns the rows of a split without reading them."""
        if not isinstance(self.splits, StoredSplits):
            return len(self.splits[split])
        return parquet_rows(self.splits.file(split))

    def batches(self, split: str) -> Iterator[Split]:
        """Yields a split in batches of at most `BATCH_ROWS`, in the order of its rows.

        Raises:
            DataError: the file's columns or group values are not those of the schema.
        """
        if isinstance(self.splits, StoredSplits):
            yield from Split.batches(self.splits.file(split), self.schema)
        else:
            yield self.splits[split]
