"""Typed rows of Spark in their splits; see `data.table.PlacedTable`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.buckets import Buckets
from safescale_ammt.data.dataset import Split, write_split
from safescale_ammt.data.entry_cells import Written
from safescale_ammt.data.key_parts import PartColumns, PartKeys, Sketches, whole_keys
from safescale_ammt.data.narrowing import code_counts
from safescale_ammt.data.relations import (
    ALL_SPLITS,
    SEALED_CODE,
    Times,
)
from safescale_ammt.data.row_keys import RowKeys
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.data.table import Filling
from safescale_ammt.files.artifacts import Draft
from safescale_ammt.files.parquet import ROW_GROUP
from safescale_ammt.files.shards import shard_name
from safescale_ammt.spark.faults import Batches
from safescale_ammt.spark.frames import checkpointed, mapped, ordered_parts
from safescale_ammt.spark.raw_cells import RawCells
from safescale_ammt.spark.relations import hashes_of, times_of
from safescale_ammt.spark.shards import ShardWriting, regrouped
from safescale_ammt.spark.typed_rows import KEYED, RowTyping, text_keys

_MET = """
SELECT sum(asked) AS met FROM (
  SELECT count(*) AS times, count_if(split = :sealed) AS asked FROM {rows}
  GROUP BY high) WHERE times > 1
"""


@dataclass(frozen=True)
class SparkPlaced:
    """Typed rows of Spark.

    Attributes:
        session: of Spark Connect.
        frame: the placed rows: `at`, `sealed`, `people`, `entity`, `high`, `low`,
            `split`, `first` and texts.
        raw: how their cells are read.
        written: the cells of entries.
        filling: what makes rows typed.
        sizes: rows of each of `ALL_SPLITS`.
        numbers: of entities within each split, by their codes.
        store: URI of the store of data.
    """

    session: Any
    frame: Any
    raw: RawCells
    written: Written
    filling: Filling
    sizes: Sequence[int]
    numbers: Mapping[int, NDArray[np.int64]]
    store: str

    @cached_property
    def typing(self) -> RowTyping:
        """How rows become those of splits."""
        filling, of = self.filling, self.filling.composition
        return RowTyping(
            self.raw,
            {name: entries.kind for name, entries in filling.typed.items()},
            {n: form for n, form in filling.forms.items() if n in filling.typed},
            tuple(filling.missing),
            of.label,
            {name: codes for name, (_, codes) in of.groups.items()},
        )

    def code_counts(self, schema: Schema) -> list[NDArray[np.int64]]:
        """Counts the train rows of each code and class of every part of the inputs."""
        counting = partial(code_sums, typing=self.typing, schema=schema)
        train = self.frame.where("split = 0")
        sums = mapped(train, counting, "part int, counts binary").toArrow()
        counts: dict[int, NDArray[np.int64]] = {}
        for row in sums.to_pylist():
            found = np.frombuffer(row["counts"], np.int64)
            counts[row["part"]] = counts.get(row["part"], 0) + found
        classes = len(schema.classes)
        return [counts[i].reshape(-1, classes) for i in sorted(counts)]

    def split(self, name: str) -> Split:
        """Returns a split in memory."""
        code = ALL_SPLITS.index(name)
        found = self._collected(self.typing, self.frame.where(f"split = {code}"))
        return self._split(found, code)

    def drawn(self, most: int) -> dict[str, Split]:
        """Draws about so many development rows, in memory, by split; all if fewer."""
        share, typing = most / sum(self.sizes[:SEALED_CODE]), self.typing
        if share < 1:
            typing = replace(typing, most=int(share * 2**64))
        rows = self.frame.where(f"split < {SEALED_CODE}")
        found = self._collected(typing, rows)
        split = found["split"].to_numpy()
        tables = [found.filter(pa.array(split == code)) for code in range(len(SPLITS))]
        if share < 1:
            # The rows of an entity tell of each other wherever they are.
            return dict(zip(SPLITS, map(typing.split, tables), strict=True))
        return {SPLITS[i]: self._split(table, i) for i, table in enumerate(tables)}

    def write_sealed(self, path: Path, schema: Schema) -> None:
        """Writes the Parquet file of the sealed rows, which come here for it."""
        rows = self.frame.where(f"split = {SEALED_CODE}")
        # Typed once, and looked at range by range.
        typed = checkpointed(mapped(rows, self.typing.rows, self.typing.kinds))
        tables = ordered_parts(self.session, typed, ROW_GROUP)
        parts = regrouped(tables, ROW_GROUP)
        write_split((self._split(part, SEALED_CODE) for part in parts), path, schema)

    def write_shards(self, draft: Draft, schema: Schema, shard_rows: int) -> None:
        """Lets workers write the shards of the development splits into the store."""
        writing = ShardWriting(self.typing, schema, self.store, shard_rows)
        rows = self.frame.where(f"split < {SEALED_CODE}")
        numbers = {i: n for i, n in self.numbers.items() if i < SEALED_CODE}
        shards = writing.written(self.session, rows, self.sizes, numbers)
        for (code, number), entry in shards.items():
            draft.apart[shard_name(SPLITS[code], number)] = entry

    def times(self, *, beside: Sequence[NDArray[np.int64]] = ()) -> Iterator[Times]:
        """Counts rows by their inputs; asked about are those of development."""
        keys = partial(self.typing.input_keys, beside=beside)
        rows = self.frame.where(f"split <= {SEALED_CODE}")
        return times_of(self.session, mapped(rows, keys, KEYED))

    def whole_times(self) -> Iterator[Times]:
        """Counts rows by all of their cells; asked about are those of development."""
        rows = self.frame.where(f"split <= {SEALED_CODE}")
        keyed = rows.selectExpr("high AS key", f"split < {SEALED_CODE} AS asked")
        return times_of(self.session, keyed)

    def text_times(self, names: Sequence[str]) -> Iterator[Times]:
        """Counts development rows that no earlier one equals by texts of columns."""
        keys = partial(text_keys, raw=self.raw, names=tuple(names))
        firsts = self.frame.where(f"first AND split < {SEALED_CODE}")
        return times_of(self.session, mapped(firsts, keys, KEYED))

    def keys(self, config: DataConfig, digests: Sequence[str]) -> RowKeys:
        """Returns what the sealed rows are known by."""
        sealed = self.frame.where(f"split = {SEALED_CODE}")
        hashes = hashes_of(sealed.select("high", "low").distinct().toArrow())
        # All rows have the cells of constants, and are equal without them.
        halves = np.stack(words(hashes), axis=1) - self.written.shift
        varying = np.ascontiguousarray(halves).view(ROW)[:, 0]
        distinct, mine = Buckets(len(varying)).distinct([varying]), None
        if self.filling.entity:
            _, codes = self.filling.entity
            known = np.diff(self.numbers[SEALED_CODE], prepend=-1) > 0
            mine = known[codes]
        whole = whole_keys(config, self.written, distinct, mine, digests)
        met = self.session.sql(_MET, {"sealed": SEALED_CODE}, rows=self.frame).first()
        columns = PartColumns.of(config, self.written)
        rows = self.frame.where(f"split <= {SEALED_CODE}")
        sketches = Sketching(self.raw, columns, tuple(self.sizes)).of(rows)
        return RowKeys(whole, sketches.parts(config, met["met"] or 0))

    def _collected(self, typing: RowTyping, rows: Any) -> pa.Table:
        return mapped(rows, typing.rows, typing.kinds).orderBy("at").toArrow()

    def _split(self, table: pa.Table, code: int) -> Split:
        """Makes rows of a split, with their entities' numbers in it."""
        numbers = self.numbers.get(code)
        entity = None if numbers is None else numbers[table["entity"].to_numpy()]
        return self.typing.split(table, entity)


@dataclass(frozen=True)
class Sketching:
    """How workers find the least keys of parts of rows.

    Attributes:
        raw: how cells are read.
        columns: that have a part in keys.
        sizes: rows of each of `ALL_SPLITS`.
    """

    raw: RawCells
    columns: PartColumns
    sizes: tuple[int, ...]

    def of(self, rows: Any) -> Sketches:
        """Gathers the least keys of parts of the rows of a frame."""
        found = mapped(rows, self.near, "part int, own binary, others binary").toArrow()
        sketches = Sketches(self.sizes)
        for row in sorted(found.to_pylist(), key=lambda row: int(row["part"])):
            if row["part"] == len(sketches.near):
                sketches.near.append(([], []))
            for side, name in zip(
                sketches.near[row["part"]], ("own", "others"), strict=True
            ):
                side.append(np.frombuffer(row[name], np.uint64))
        return sketches

    def near(self, batches: Batches) -> Batches:
        """Yields the least keys of each part among the rows of a task."""
        sketches = Sketches(self.sizes)
        for batch, sealed in self.raw.sides(batches):
            cells, codes = self.raw.entry_cells(batch, sealed=sealed)
            parts = PartKeys.of(self.columns, cells)
            mine = batch["split"].to_numpy() == SEALED_CODE
            sketches.see(parts.keys(codes), mine)
        for part, sides in enumerate(sketches.near):
            own, others = (np.concatenate([*keys]).tobytes() for keys in sides)
            columns = {"own": [own], "others": [others]}
            table = {"part": pa.array([part], pa.int32()), **columns}
            yield pa.RecordBatch.from_pydict(table)


def code_sums(batches: Batches, typing: RowTyping, schema: Schema) -> Batches:
    """Counts, in a worker, the codes and classes of train rows; see `code_counts`."""

    def splits() -> Iterator[Split]:
        for batch in typing.rows(batches):
            yield typing.split(pa.Table.from_batches([batch]))

    for part, counts in enumerate(code_counts(schema, splits())):
        columns = {"part": pa.array([part], pa.int32()), "counts": [counts.tobytes()]}
        yield pa.RecordBatch.from_pydict(columns)
