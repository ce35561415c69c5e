"""Typed rows in Spark's workers, made of raw ones batch by batch.

What types and classes are was decided from entries; no row can fail to have them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.associations import value_words
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.input_keys import joint_words
from safescale_ammt.data.raw_rows import as_form, as_levels, as_numbers
from safescale_ammt.data.relations import SEALED_CODE
from safescale_ammt.data.splitting import ROW, arrow_rows, drawn_keys
from safescale_ammt.files.parquet import fixed_bytes
from safescale_ammt.reading.cells import Words
from safescale_ammt.reading.readings import Form
from safescale_ammt.spark.faults import Batches
from safescale_ammt.spark.keys import signed
from safescale_ammt.spark.raw_cells import RawCells
from safescale_ammt.spark.relations import hashes_of

KEYED = "key bigint, asked boolean"
_FIXED = "at bigint, split int, people bigint, entity bigint, row binary"
_PLAIN = {"double": "double", "string": "string"}


def unnamed(_: NDArray[np.bool_]) -> str:
    """Names no row: every text was typed before, as an entry."""
    return "a row that was read before"


@dataclass(frozen=True)
class RowTyping:
    """How rows become those of splits.

    Attributes:
        raw: how their cells are read.
        types: of the feature columns, in schema order.
        forms: by which columns of text are read.
        missing: spellings of a missing value.
        label: class code (k,) of each combination.
        groups: codes (k,) of each combination, by group.
        most: key below which a row is drawn; None = all are.
    """

    raw: RawCells
    types: Mapping[str, pa.DataType]
    forms: Mapping[str, Form]
    missing: tuple[str, ...]
    label: NDArray[np.int64]
    groups: Mapping[str, NDArray[np.int64]]
    most: int | None = None

    @cached_property
    def kinds(self) -> str:
        """The columns of `rows`, as Spark declares them: times are whole numbers."""
        plain = (_PLAIN.get(str(t), "bigint") for t in self.types.values())
        features = (f"f{i} {kind}" for i, kind in enumerate(plain))
        return ", ".join([_FIXED, *features])

    def features(self, batch: pa.RecordBatch, *, sealed: bool) -> dict[str, pa.Array]:
        """Returns the feature columns of rows of one side, typed."""
        table = self.raw.spelled(batch, self.types, sealed=sealed)
        typed = {}
        for name, kind in self.types.items():
            column = table.columns[name]
            if form := self.forms.get(name):
                cells = as_form(column, name, form, self.missing, unnamed)
            elif pa.types.is_floating(kind):
                cells = as_numbers(column, name, self.missing, unnamed)
            else:
                cells = as_levels(column, self.missing)
            typed[name] = cells.cast(kind)
        return typed

    def rows(self, batches: Batches) -> Batches:
        """Types placed rows."""
        for batch, sealed in self.raw.sides(batches):
            some, hashes = batch, hashes_of(pa.Table.from_batches([batch]))
            if self.most is not None:
                # Each by itself, by its hash and position, as `placed_rows` draws.
                keys = drawn_keys(hashes, "audit", batch["at"].to_numpy())
                drawn = keys < np.uint64(self.most)
                some, hashes = batch.filter(pa.array(drawn)), hashes[drawn]
            columns = {name: some[name] for name in ("at", "split", "people", "entity")}
            columns["row"] = arrow_rows(hashes).cast(pa.binary())
            typed = self.features(some, sealed=sealed).values()
            for i, column in enumerate(typed):
                whole = pa.types.is_timestamp(column.type)
                columns[f"f{i}"] = column.cast(pa.int64()) if whole else column
            yield pa.RecordBatch.from_pydict(columns)

    def split(self, table: pa.Table, entity: NDArray[np.int64] | None = None) -> Split:
        """Makes rows of a split of what `rows` gives.

        Args:
            table: some of it, in the order of the rows.
            entity: number (n,) within the split of who each is about.
        """
        table = table.combine_chunks()
        people = table["people"].to_numpy()
        features = {
            name: table[f"f{i}"].cast(kind)
            for i, (name, kind) in enumerate(self.types.items())
        }
        return Split(
            pa.table(features),
            self.label[people],
            {name: codes[people] for name, codes in self.groups.items()},
            fixed_bytes(table["row"].cast(pa.binary(ROW.itemsize)), ROW),
            entity,
        )

    def input_keys(
        self, batches: Batches, beside: Sequence[NDArray[np.int64]] = ()
    ) -> Batches:
        """Yields keys of rows by their inputs; asked about are those of development."""
        of_combination = joint_words(beside) if beside else None
        for batch, sealed in self.raw.sides(batches):
            keys = np.zeros(batch.num_rows, np.uint64)
            for name, column in self.features(batch, sealed=sealed).items():
                keys += typed_words(column, name)
            if of_combination is not None:
                keys += of_combination[batch["people"].to_numpy()]
            yield keyed(keys, batch)


def text_keys(batches: Batches, raw: RawCells, names: Sequence[str]) -> Batches:
    """Yields keys of rows by the texts of some columns, as they are spelled."""
    for batch, sealed in raw.sides(batches):
        keys = np.zeros(batch.num_rows, np.uint64)
        table = raw.spelled(batch, names, sealed=sealed)
        for name, column in table.columns.items():
            keys += text_words(column.values, name)[column.codes]
        yield keyed(keys, batch)


def keyed(keys: Words, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns keys of placed rows, with those of development asked about."""
    asked = batch["split"].to_numpy() < SEALED_CODE
    return pa.RecordBatch.from_pydict({"key": pa.array(signed(keys)), "asked": asked})


def typed_words(column: pa.Array, name: str) -> Words:
    """Returns words (n,) of typed values that are equal where these are."""
    if pa.types.is_string(column.type):
        coded = column.dictionary_encode("encode")
        words: Words = text_words(coded.dictionary, name)[coded.indices.to_numpy()]
        return words
    if pa.types.is_timestamp(column.type):
        least = np.iinfo(np.int64).min
        return value_words(column.cast(pa.int64()).fill_null(least).to_numpy(), name)
    return value_words(column.to_numpy(zero_copy_only=False), name)


def text_words(texts: pa.StringArray, name: str) -> Words:
    """Returns words (n,) of texts that only a column of this name has."""
    gap = b"\xff"  # No text in UTF-8 has it.
    data = [gap if text is None else text.encode() for text in texts.to_pylist()]
    heads = b"".join(hashlib.sha256(text).digest()[:8] for text in data)
    return value_words(np.frombuffer(heads, np.uint64), name)
