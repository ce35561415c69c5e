"""Rows in their places: typed feature columns, labels, groups and hashes of each split.

They are made of codes when they are asked for, so many at a time, and never all at
once but where somebody asks for a split in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.coded_rows import CodedRows
from safescale_ammt.data.composition import Composition
from safescale_ammt.data.counts import Counts, tally
from safescale_ammt.data.dataset import Split, write_split
from safescale_ammt.data.disclosure import shown_counts
from safescale_ammt.data.entry_cells import Hashes
from safescale_ammt.data.relations import ALL_SPLITS, SEALED, SEALED_CODE, Placed
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.data.splitting import drawn_keys
from safescale_ammt.files.parquet import ROW_GROUP

_GAP = np.iinfo(np.int64).min


@dataclass(frozen=True)
class TypedEntries:
    """The entries of one feature column, typed.

    Attributes:
        kind: float64, timestamp or string.
        load: gives the values (entries,): NaN or the least number for a gap, or codes.
        texts: what codes stand for; None of numbers and times.
    """

    kind: pa.DataType
    load: Callable[[], NDArray[Any]]
    texts: pa.StringArray | None = None

    @classmethod
    def of(cls, entries: pa.Array, shelf: Shelf) -> TypedEntries:
        """Keeps typed entries; a text is kept once."""
        if pa.types.is_string(entries.type):
            coded = entries.dictionary_encode("encode")
            codes = shelf.keep(coded.indices.to_numpy())
            return cls(entries.type, codes, coded.dictionary)
        if pa.types.is_timestamp(entries.type):
            values = entries.cast(pa.int64()).fill_null(_GAP).to_numpy()
        else:
            values = entries.to_numpy(zero_copy_only=False)
        return cls(entries.type, shelf.keep(values))

    @property
    def gaps(self) -> NDArray[np.bool_]:
        """A mask (entries,) of those without a value."""
        values = self.load()
        if self.texts is not None:
            missing = self.texts.is_null().to_numpy(zero_copy_only=False)
            return np.asarray(missing[values], np.bool_)
        gaps = np.isnan(values) if values.dtype.kind == "f" else values == _GAP
        return np.asarray(gaps, np.bool_)

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the rows of each value, of those of each entry (entries,)."""
        used = np.flatnonzero(rows)
        _, codes = np.unique(self.load()[used], return_inverse=True)
        return np.bincount(codes, rows[used]).astype(np.int64)

    def array(self, entries: NDArray[Any] | None = None) -> pa.Array:
        """Returns the values of some entries, or of all; null for a gap."""
        values = self.load() if entries is None else self.load()[entries]
        if self.texts is not None:
            return self.texts.take(pa.array(values))
        if values.dtype.kind == "f":
            return pa.array(values, from_pandas=True)
        return pa.array(values, mask=values == _GAP).cast(self.kind)


@dataclass(frozen=True)
class PlacedRows:
    """All rows and their places.

    Attributes:
        coded: codes of the rows.
        placement: of the rows.
        typed: the feature columns in schema order.
        composition: classes and groups of the rows.
        hashes: of the rows, as the files spell them.
        entity: column that says who a row is about, and the code of each of its
            entries; None without one.
    """

    coded: CodedRows
    placement: Placed
    typed: Mapping[str, TypedEntries]
    composition: Composition
    hashes: Hashes
    entity: tuple[str, NDArray[np.int64]] | None = None

    def places(self, batch: int) -> NDArray[np.uint8]:
        """Returns the places (n,) of the rows of a batch."""
        return self.placement.split[self.coded.slice(batch)]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each combination of class and groups by split, int64 (k, splits)."""
        return self.composition.split_counts(self.placement)

    def told(self, positive: str) -> Counts:
        """Counts the rows of every split; of the sealed one what may be told."""
        of, classes = self.composition, len(self.composition.classes)
        stays = of.label >= 0
        label, counts = of.label[stays], self.counts[stays]
        groups = {name: (v, codes[stays]) for name, (v, codes) in of.groups.items()}
        told = {
            name: tally(label, groups, classes, weights=counts[:, i])
            for i, name in enumerate(SPLITS)
        }
        # With development rows: their combinations of groups narrow down hidden counts.
        sealed = counts[:, SEALED_CODE]
        weights = np.concatenate([counts.sum(axis=1) - sealed, sealed])
        used = weights > 0
        twice = {
            name: (values, np.tile(codes, 2)[used])
            for name, (values, codes) in groups.items()
        }
        told[SEALED] = shown_counts(
            np.tile(label, 2)[used],
            twice,
            classes,
            np.repeat([False, True], len(label))[used],
            weights[used],
        )
        return Counts(of.classes, positive, told)

    def size(self, name: str) -> int:
        """Returns the number of rows of a split."""
        return self.placement.sizes[ALL_SPLITS.index(name)]

    def parts(self, name: str, most: int = ROW_GROUP) -> Iterator[Split]:
        """Yields the rows of a split in the order of the table, `most` at a time."""
        code, held, count = ALL_SPLITS.index(name), list[list[NDArray[Any]]](), 0
        numbers = self._entity_numbers(code)
        for batch in self.coded.batches:
            rows = np.flatnonzero(self.places(batch) == code)
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
        return next(self.parts(name, self.coded.rows))

    def drawn(self, most: int) -> dict[str, Split]:
        """Draws about so many development rows, in memory, by split; all if fewer.

        Each by itself, by its hash and position: equal rows are drawn apart.
        """
        share = most / sum(self.placement.sizes[:SEALED_CODE])
        if share >= 1:
            return {name: self.split(name) for name in SPLITS}
        held: dict[int, list[list[NDArray[Any]]]] = {i: [] for i in range(len(SPLITS))}
        for batch in self.coded.batches:
            place = np.arange(*self.coded.slice(batch).indices(self.coded.rows))
            keys = drawn_keys(self.hashes(batch), "audit", place)
            drawn = keys < np.uint64(int(share * 2**64))
            for code, rows in held.items():
                some = np.flatnonzero(drawn & (self.places(batch) == code))
                rows.append(self._picked(batch, some))
        # The rows of an entity tell of each other wherever they are: no number is used.
        return {SPLITS[code]: self._made(rows, None) for code, rows in held.items()}

    def write(
        self, name: str, path: Path, schema: Schema, shard_rows: int | None = None
    ) -> None:
        """Writes the Parquet files of a split; see `write_split`."""
        most = min(ROW_GROUP, shard_rows or ROW_GROUP)
        write_split(self.parts(name, most), path, schema, shard_rows)

    def _picked(self, batch: int, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Returns codes of features, combination, entity and hashes of some rows."""
        columns = [self.coded.codes(name, batch)[rows] for name in self.typed]
        columns.append(self.composition.of_rows(batch)[rows])
        if self.entity:
            columns.append(self.coded.codes(self.entity[0], batch)[rows])
        return [*columns, self.hashes(batch)[rows]]

    def _made(
        self, held: list[list[NDArray[Any]]], numbers: NDArray[np.int64] | None
    ) -> Split:
        columns = [np.concatenate(parts) for parts in zip(*held, strict=True)]
        features = {
            name: typed.array(codes)
            for (name, typed), codes in zip(self.typed.items(), columns, strict=False)
        }
        combination, last = columns[len(features)], columns[-2]
        groups = self.composition.groups.items()
        return Split(
            pa.table(features),
            self.composition.label[combination],
            {group: codes[combination] for group, (_, codes) in groups},
            columns[-1],
            None if numbers is None else numbers[last],
        )

    def _entity_numbers(self, code: int) -> NDArray[np.int64] | None:
        """Numbers the entities of one split, by entry of their column.

        Renumbered: a number of the whole table would tell of rows elsewhere.
        """
        if self.entity is None:
            return None
        name, codes = self.entity
        here = np.zeros(int(codes.max()) + 1, np.bool_)
        for batch in self.coded.batches:
            rows = self.places(batch) == code
            here[codes[self.coded.codes(name, batch)[rows]]] = True
        return (np.cumsum(here) - 1)[codes]
