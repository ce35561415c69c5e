"""Shards of a dataset, written by Spark's workers into the store of data.

A shard has so many rows of a split in their order, so that it is a range of positions:
where ranges end is found by counts, rows are typed, sent to the worker of their shard,
sorted there, and written as one machine writes them, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.dataset import write_split
from safescale_ammt.data.relations import SEALED_CODE
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import FileEntry
from safescale_ammt.files.parquet import ROW_GROUP, parquet_rows
from safescale_ammt.spark.faults import Batches
from safescale_ammt.spark.frames import frame_of, mapped
from safescale_ammt.spark.typed_rows import RowTyping
from safescale_ammt.store.shards import put_shard
from safescale_ammt.store.uri import open_store

Numbers = Mapping[int, NDArray[np.int64]]
Shard = tuple[int, int]
"""Code of a split, and number of the shard."""

# Positions of a range whose rows are counted together.
_BITS = 20
_PARTS = """
SELECT split, shiftright(at, :bits) AS part, count(*) AS rows FROM {rows}
GROUP BY split, part ORDER BY split, part
"""
_STARTS = """
SELECT found.split, found.at FROM (
  SELECT split, at, shiftright(at, :bits) AS part, row_number() OVER (
    PARTITION BY split, shiftright(at, :bits) ORDER BY at) - 1L AS rank FROM {rows}
  ) AS found JOIN {wanted} AS wanted ON found.split = wanted.split
  AND found.part = wanted.part AND found.rank = wanted.rank
ORDER BY found.split, found.at
"""
_NUMBERED = """
SELECT rows.* EXCEPT (entity), numbers.number AS entity FROM {rows} AS rows
JOIN {numbers} AS numbers ON rows.split = numbers.split AND rows.entity = numbers.entity
"""
_WRITTEN = "split int, shard int, rows bigint, digest string, size bigint"


@dataclass(frozen=True)
class ShardWriting:
    """How shards are written.

    Attributes:
        typing: of the rows.
        schema: of their files.
        store: URI of the store of data.
        shard_rows: rows of a shard, all but the last of a split.
    """

    typing: RowTyping
    schema: Schema
    store: str
    shard_rows: int

    def written(
        self, session: Any, rows: Any, sizes: Sequence[int], numbers: Numbers
    ) -> dict[Shard, FileEntry]:
        """Writes the shards of all development splits.

        Args:
            session: of Spark Connect.
            rows: the placed rows of development, a frame.
            sizes: rows of each split.
            numbers: of entities within each split, by their codes; empty without.

        Raises:
            StorageError: the store does not take them.
            IntegrityError: other rows were written than were placed.
        """
        if numbers:
            known = numbers_table(numbers)
            rows = session.sql(_NUMBERED, rows=rows, numbers=frame_of(session, known))
        starts = self.starts(session, rows, sizes)
        typed = mapped(
            rows,
            partial(self.sharded, starts=starts),
            f"{self.typing.kinds}, shard int",
        )
        shards = sum(len(each) + 1 for each in starts.values())
        mine = typed.repartition(shards, "split", "shard")
        mine = mine.sortWithinPartitions("split", "shard", "at")
        found, entries = mapped(mine, self.write, _WRITTEN).toArrow(), {}
        counts = np.zeros(SEALED_CODE, np.int64)
        for row in found.to_pylist():
            entry = FileEntry(row["digest"], row["size"], apart=True)
            entries[row["split"], row["shard"]] = entry
            counts[row["split"]] += row["rows"]
        if counts.tolist() != list(sizes[:SEALED_CODE]) or len(entries) != len(found):
            raise IntegrityError(
                "Spark wrote other rows than it placed; the raw files may have changed "
                "while they were read: start anew."
            )
        return dict(sorted(entries.items()))

    def starts(self, session: Any, rows: Any, sizes: Sequence[int]) -> Numbers:
        """Returns the positions of the first rows of all shards but the first."""
        if max(sizes[:SEALED_CODE]) <= self.shard_rows:
            return {code: np.zeros(0, np.int64) for code in range(SEALED_CODE)}
        parts = session.sql(_PARTS, {"bits": _BITS}, rows=rows).toArrow()
        split, part, count = (column.to_numpy() for column in parts.columns)
        wanted: list[tuple[int, int, int]] = []
        for code in range(SEALED_CODE):
            here = np.flatnonzero(split == code)
            ends = np.cumsum(count[here])
            for first in range(self.shard_rows, sizes[code], self.shard_rows):
                i = int(np.searchsorted(ends, first, side="right"))
                before = int(ends[i - 1]) if i else 0
                wanted.append((code, int(part[here[i]]), first - before))
        codes, places, ranks = zip(*wanted, strict=True)
        asked = {"split": pa.array(codes, pa.int32()), "part": places, "rank": ranks}
        frame = frame_of(session, pa.table(asked))
        found = session.sql(_STARTS, {"bits": _BITS}, rows=rows, wanted=frame).toArrow()
        split, at = (column.to_numpy() for column in found.columns)
        return {code: at[split == code] for code in range(SEALED_CODE)}

    def sharded(self, batches: Batches, starts: Numbers) -> Batches:
        """Types rows in a worker, and tells the shard of each."""
        for batch in self.typing.rows(batches):
            at, split = batch["at"].to_numpy(), batch["split"].to_numpy()
            shard = np.zeros(len(at), np.int32)
            for code, first in starts.items():
                mine = split == code
                shard[mine] = np.searchsorted(first, at[mine], side="right")
            yield batch.append_column("shard", pa.array(shard))

    def write(self, batches: Batches) -> Batches:
        """Writes the shards of one task, whose rows come shard by shard in order."""
        store = open_store(self.store)
        for (split, shard), parts in groupby(runs(batches), itemgetter(0)):
            tables = (table for _, table in parts)
            with TemporaryDirectory() as folder:
                path = Path(folder) / "shard.parquet"
                most = min(ROW_GROUP, self.shard_rows)
                splits = (
                    self.typing.split(t, t["entity"].to_numpy())
                    if self.schema.entity
                    else self.typing.split(t)
                    for t in regrouped(tables, most)
                )
                write_split(splits, path, self.schema)
                entry = put_shard(store, path)
                row = (split, shard, parquet_rows(path), entry.sha256, entry.size)
            names = ("split", "shard", "rows", "digest", "size")
            kinds = (pa.int32(), pa.int32(), pa.int64(), pa.string(), pa.int64())
            columns = [pa.array([v], k) for v, k in zip(row, kinds, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, names)


def numbers_table(numbers: Numbers) -> pa.Table:
    """Returns the numbers of entities as a table of split, code and number."""
    tables = []
    for split, of in numbers.items():
        entity = np.flatnonzero(np.diff(of, prepend=-1) > 0)
        code = pa.array(np.full(len(entity), split, np.int32))
        columns = {"split": code, "entity": entity, "number": of[entity]}
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def runs(batches: Batches) -> Iterator[tuple[Shard, pa.Table]]:
    """Yields the rows of batches that are of one shard and stand together."""
    for batch in batches:
        both = np.stack([batch["split"].to_numpy(), batch["shard"].to_numpy()])
        ends = np.flatnonzero((np.diff(both) != 0).any(axis=0)) + 1
        for start, end in zip([0, *ends], [*ends, batch.num_rows], strict=True):
            if start < end:
                split, shard = both[:, start].tolist()
                table = pa.Table.from_batches([batch.slice(start, end - start)])
                yield (split, shard), table


def regrouped(tables: Iterator[pa.Table], most: int) -> Iterator[pa.Table]:
    """Cuts and joins tables into those of so many rows, the last one of the rest."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        while rows >= most:
            whole = pa.concat_tables(held)
            yield whole.slice(0, most)
            held, rows = [whole.slice(most)], rows - most
    if rows:
        yield pa.concat_tables(held)
