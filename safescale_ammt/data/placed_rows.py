"""Rows in their places: typed feature columns, labels, groups and hashes of each split.

They are made of codes when they are asked for, so many at a time, and never all at
once but where somebody asks for a split in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.dataset import Split, write_split
from safescale_ammt.data.input_keys import InputKeys, Keys, joint_words
from safescale_ammt.data.key_parts import row_keys
from safescale_ammt.data.narrowing import code_counts
from safescale_ammt.data.relations import (
    ALL_SPLITS,
    SEALED,
    SEALED_CODE,
    Keyed,
    Times,
)
from safescale_ammt.data.row_keys import RowKeys
from safescale_ammt.data.rows_here import RowsHere
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.data.splitting import drawn_keys, words
from safescale_ammt.data.table import Filling
from safescale_ammt.files.artifacts import Draft
from safescale_ammt.files.parquet import ROW_GROUP
from safescale_ammt.files.shards import shard_name


@dataclass(frozen=True)
class PlacedRows:
    """Typed rows of this machine, see `table.PlacedTable`.

    Attributes:
        here: the rows and their places.
        filling: what makes them typed.
        shelf: for words of entries.
    """

    here: RowsHere
    filling: Filling
    shelf: Shelf

    def code_counts(self, schema: Schema) -> list[NDArray[np.int64]]:
        """Counts the train rows of each code and class of every part of the inputs."""
        return code_counts(schema, self.parts("train"))

    def times(self, *, beside: Sequence[NDArray[np.int64]] = ()) -> Iterator[Times]:
        """Counts rows by their inputs; asked about are those of development."""
        values = {name: typed.load for name, typed in self.filling.typed.items()}
        inputs = InputKeys.of(self.here.coded, values, self.shelf)
        if not beside:
            return self._developed(inputs)
        beside_words = joint_words(beside)
        return self._developed(
            lambda i: inputs(i) + beside_words[self.here.people[i]()]
        )

    def whole_times(self) -> Iterator[Times]:
        """Counts rows by all of their cells; asked about are those of development."""
        return self._developed(lambda i: words(self.here.hashes[i]())[0])

    def text_times(self, names: Sequence[str]) -> Iterator[Times]:
        """Counts development rows that no earlier one equals by texts of columns."""
        columns, coded = self.filling.columns, self.here.coded
        texts = {name: (lambda n=name: columns[n].codes) for name in names}
        keys = InputKeys.of(coded, texts, self.shelf)

        def firsts() -> Iterator[Keyed]:
            for batch in coded.batches:
                found = keys(batch)[self.here.placed.first[coded.slice(batch)]]
                yield found, np.ones(len(found), np.bool_)

        return self.here.relations.times(firsts())

    def keys(self, config: DataConfig, digests: Sequence[str]) -> RowKeys:
        """Returns what the sealed rows are known by."""
        return row_keys(config, self.here, self.filling.entity, digests)

    def _developed(self, keys: Keys) -> Iterator[Times]:
        """Counts rows by their keys; asked about are those of development."""
        places = map(self.here.places, self.here.coded.batches)
        return self.here.relations.times(
            (keys(i)[place <= SEALED_CODE], place[place <= SEALED_CODE] < SEALED_CODE)
            for i, place in enumerate(places)
        )

    def parts(self, name: str, most: int = ROW_GROUP) -> Iterator[Split]:
        """Yields the rows of a split in the order of the table, `most` at a time."""
        code, held, count = ALL_SPLITS.index(name), list[list[NDArray[Any]]](), 0
        numbers = self._entity_numbers(code)
        for batch in self.here.coded.batches:
            rows = np.flatnonzero(self.here.places(batch) == code)
            while len(rows):
                some, rows = rows[: most - count], rows[most - count :]
                held.append(self._picked(batch, some))
                count += len(some)
                if count == most:
                    yield self._made(held, numbers)
                    held, count = [], 0
        if count:
            yield self._made(held, numbers)

    def split(self, name: str) -> Split:
        """Returns a split in memory."""
        return next(self.parts(name, self.here.coded.rows))

    def drawn(self, most: int) -> dict[str, Split]:
        """Draws about so many development rows, in memory, by split; all if fewer.

        Each by itself, by its hash and position: equal rows are drawn apart.
        """
        here, coded = self.here, self.here.coded
        share = most / sum(here.placed.sizes[:SEALED_CODE])
        if share >= 1:
            return {name: self.split(name) for name in SPLITS}
        held: dict[int, list[list[NDArray[Any]]]] = {i: [] for i in range(len(SPLITS))}
        for batch in coded.batches:
            place = np.arange(*coded.slice(batch).indices(coded.rows))
            keys = drawn_keys(here.hashes[batch](), "audit", place)
            drawn = keys < np.uint64(int(share * 2**64))
            for code, rows in held.items():
                some = np.flatnonzero(drawn & (here.places(batch) == code))
                rows.append(self._picked(batch, some))
        # The rows of an entity tell of each other wherever they are: no number is used.
        return {SPLITS[code]: self._made(rows, None) for code, rows in held.items()}

    def write_sealed(self, path: Path, schema: Schema) -> None:
        """Writes the Parquet file of the sealed rows."""
        write_split(self.parts(SEALED), path, schema)

    def write_shards(self, draft: Draft, schema: Schema, shard_rows: int) -> None:
        """Writes the shards of the development splits into an artifact."""
        for name in SPLITS:
            parts = self.parts(name, min(ROW_GROUP, shard_rows))
            path = draft.folder / shard_name(name, 0)
            write_split(parts, path, schema, shard_rows)

    def _picked(self, batch: int, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Returns codes of features, combination, entity and hashes of some rows."""
        here, coded, entity = self.here, self.here.coded, self.filling.entity
        columns = [coded.codes(name, batch)[rows] for name in self.filling.typed]
        columns.append(here.people[batch]()[rows])
        if entity:
            columns.append(coded.codes(entity[0], batch)[rows])
        return [*columns, here.hashes[batch]()[rows]]

    def _made(
        self, held: list[list[NDArray[Any]]], numbers: NDArray[np.int64] | None
    ) -> Split:
        columns = [np.concatenate(parts) for parts in zip(*held, strict=True)]
        typed, composition = self.filling.typed, self.filling.composition
        features = {
            name: entries.array(codes)
            for (name, entries), codes in zip(typed.items(), columns, strict=False)
        }
        combination, last = columns[len(features)], columns[-2]
        groups = composition.groups.items()
        return Split(
            pa.table(features),
            composition.label[combination],
            {group: codes[combination] for group, (_, codes) in groups},
            columns[-1],
            None if numbers is None else numbers[last],
        )

    def _entity_numbers(self, code: int) -> NDArray[np.int64] | None:
        """Numbers the entities of one split, by entry of their column.

        Renumbered: a number of the whole table would tell of rows elsewhere.
        """
        if self.filling.entity is None:
            return None
        name, codes = self.filling.entity
        here = np.zeros(int(codes.max()) + 1, np.bool_)
        for batch in self.here.coded.batches:
            rows = self.here.places(batch) == code
            here[codes[self.here.coded.codes(name, batch)[rows]]] = True
        return (np.cumsum(here) - 1)[codes]
