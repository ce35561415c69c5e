"""The dataset and the holdout: typed splits in Parquet, verified when read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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
    read_parquet,
)
from safescale_ammt.files.regular import Readable
from safescale_ammt.files.shards import shard_name, shards_of
from safescale_ammt.store.shards import Shards

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
    def read(cls, path: Path | Readable, schema: Schema) -> Split:
        """Reads a split's Parquet file.

        Raises:
            DataError: its columns or group values are not those of the schema, or it
                is no whole Parquet file.
        """
        return cls.of(read_parquet(path), schema, Readable.of(path).name)

    @classmethod
    def batches(cls, path: Path | Readable, schema: Schema) -> Iterator[Split]:
        """Reads a split's Parquet file batch by batch, all but the row hashes.

        Raises:
            DataError: as `read`.
        """
        columns = [name for name in stored_columns(schema) if name != ROW_COLUMN]
        for table in parquet_batches(path, columns, BATCH_ROWS):
            yield cls.of(table, schema, Readable.of(path).name, hashed=False)

    @classmethod
    def of(
        cls, table: pa.Table, schema: Schema, path: str, *, hashed: bool = True
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


def write_split(
    parts: Iterable[Split],
    path: Path | BinaryIO,
    schema: Schema,
    shard_rows: int | None = None,
) -> None:
    """Writes the Parquet files of a split, a row group at a time.

    Args:
        parts: the rows; all parts but the last have `ROW_GROUP` of them, or, of
            smaller shards, all of a shard.
        path: of the first file, others stand beside it (`files.shards`); or the one
            file, open.
        schema: of the rows.
        shard_rows: rows of a file; None = all are in one.
    """
    writer, rows, number = None, 0, 0
    try:
        for part in parts:
            if writer and rows == shard_rows and isinstance(path, Path):
                writer.close()
                writer, rows, number = None, 0, number + 1
                path = path.with_name(shard_name(path.stem.split("-")[0], number))
            table = part.table(schema)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, ROW_GROUP)
            rows += len(part)
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


def _codes(path: str, column: pa.Array, values: tuple[str, ...]) -> NDArray[np.int64]:
    indices = pc.index_in(column, value_set=pa.array(values, pa.string()))
    if indices.null_count:
        raise DataError(f"{path} has a group value that its schema does not know.")
    return np.asarray(indices.to_numpy()).astype(np.int64)


class StoredSplits(Mapping[str, Split]):
    """The development splits of a dataset artifact, each read when it is asked for."""

    def __init__(self, shards: Shards, schema: Schema) -> None:
        self.shards, self._schema = shards, schema
        self._read: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._read:
            files = self.shards.of(name)
            table = pa.concat_tables(list(map(read_parquet, files)))
            self._read[name] = Split.of(table, self._schema, files[0].name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


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
    def load(
        cls,
        path: Path | str,
        environ: Mapping[str, str] = os.environ,
        beside: Path | None = None,
    ) -> Dataset:
        """Verifies a dataset artifact; its rows are read when they are asked for.

        Args:
            path: of the artifact.
            environ: names the store of rows that lie apart, if any do.
            beside: as in `store.shards.Shards`.

        Raises:
            InputError: this is no dataset artifact.
            IntegrityError: a byte of it was changed.
        """
        # Verified before a byte is parsed: nothing later has to doubt the files.
        manifest = verify(path, "dataset")
        return cls.of(Shards(Path(path), manifest, environ, beside))

    @classmethod
    def of(cls, shards: Shards) -> Dataset:
        """Takes the files of a dataset artifact that was verified."""
        schema, counts = Schema.load(shards.folder), Counts.load(shards.folder)
        splits = StoredSplits(shards, schema)
        return cls(schema, splits, counts, shards.manifest.identity)

    def rows(self, split: str) -> int:
        """Returns the rows of a split without reading them."""
        if not isinstance(self.splits, StoredSplits):
            return len(self.splits[split])
        return self.counts.split(split).rows

    def batches(self, split: str) -> Iterator[Split]:
        """Yields a split in batches of at most `BATCH_ROWS`, in the order of its rows.

        Raises:
            DataError: the columns or group values of a file are not those of the
                schema, or the split has not the rows that its counts say.
            InputError, IntegrityError, StorageError: rows that lie apart cannot be had,
                or not as they were.
        """
        if not isinstance(self.splits, StoredSplits):
            yield self.splits[split]
            return
        rows, files = 0, self.splits.shards.of(split)
        for file in files:
            for batch in Split.batches(file, self.schema):
                rows += len(batch)
                yield batch
        check_rows(files[0].name, rows, self.rows(split))

    def apart(self, split: str) -> bool:
        """Says whether rows of a split lie in the store of data."""
        if not isinstance(self.splits, StoredSplits):
            return False
        shards = self.splits.shards
        return any(map(shards.apart, shards_of(split, shards.manifest.files)))

    @property
    def beside(self) -> Path | None:
        """What its reader writes; as in `store.shards.Shards`."""
        if not isinstance(self.splits, StoredSplits):
            return None
        return self.splits.shards.beside

    def class_shares(self) -> tuple[float, ...]:
        """Returns each class's share of the training rows of an artifact, by code.

        Of a dataset with groups the counts tell; else the labels are read.
        """
        counted = self.counts.split("train").groups
        rows = np.zeros(len(self.schema.classes), np.int64)
        for group in list(counted)[:1]:
            rows = self.counts.table("train", group)[2].sum(axis=0)
        if not counted and isinstance(self.splits, StoredSplits):
            files = self.splits.shards.of("train")
            for file in files:
                for table in parquet_batches(file, [_LABEL], BATCH_ROWS):
                    rows += np.bincount(table[_LABEL].to_numpy(), minlength=len(rows))
            check_rows(files[0].name, int(rows.sum()), self.rows("train"))
        return tuple((rows / max(1, rows.sum())).tolist())


def check_rows(what: str, found: int, stated: int) -> None:
    """Compares the rows of a split with what its dataset counts.

    Raises:
        DataError: they are more or fewer.
    """
    if found != stated:
        raise DataError(
            f"The split that begins with {what} has {found:,} rows, and counts.json of "
            f"its dataset says {stated:,}; prepare the data anew."
        )
