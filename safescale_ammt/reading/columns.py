"""Columns of text as codes into distinct values: small, and quick to change.

A raw table is read as text first, whatever it holds. A column is kept as one
int32 code per row and its distinct spellings, so that a cell costs 4 bytes and
every check (strip, missing, number) looks at each spelling once, not at each row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.errors import DataError, nearest
from safescale_ammt.reading.image_cells import Contents


@dataclass(frozen=True)
class Column:
    """One text column.

    Attributes:
        codes: int32 (n,), position in `values` of each row's text.
        values: the distinct texts, white space stripped.
        weights: int64 (n,), the rows that each entry stands for; None = one each.
    """

    codes: NDArray[np.int32]
    values: pa.StringArray
    weights: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, chunked: pa.ChunkedArray, *, distinct: bool = False) -> Column:
        """Builds a column of a text or dictionary array; null reads as "".

        Args:
            chunked: the texts.
            distinct: no dictionary has a text twice: what is trimmed already is not
                compared again.
        """
        if not pa.types.is_dictionary(chunked.type):
            chunked = pc.dictionary_encode(pc.cast(chunked, pa.string()))
        # Every chunk has a dictionary of its own until they are unified.
        merged = chunked.unify_dictionaries().combine_chunks()
        if isinstance(merged, pa.ChunkedArray):
            # An array without a chunk stays one, and has no dictionary.
            return cls(np.zeros(0, np.int32), pa.array([], pa.string()))
        texts, codes = pc.cast(merged.dictionary, pa.string()), merged.indices
        if codes.null_count:
            texts = pa.concat_arrays([texts, pa.array([""])])
            codes = pc.fill_null(codes, len(texts) - 1)
            distinct = False
        column, trimmed = cls(_int32(codes), texts), pc.utf8_trim_whitespace(texts)
        return column if distinct and trimmed.equals(texts) else column.mapped(trimmed)

    @classmethod
    def decoded(cls, array: pa.DictionaryArray) -> Column:
        """Makes a column of what `coded` gives."""
        codes = array.indices.to_numpy().astype(np.int32, copy=False)
        return cls(codes, array.dictionary)

    @classmethod
    def joined(cls, parts: Sequence[Column]) -> Column:
        """Puts the rows of columns one after another."""
        if len(parts) == 1:
            return parts[0]
        arrays = [
            pa.DictionaryArray.from_arrays(pa.array(part.codes), part.values)
            for part in parts
        ]
        merged = pa.chunked_array(arrays).unify_dictionaries().combine_chunks()
        return cls(_int32(merged.indices), merged.dictionary)

    def __len__(self) -> int:
        """Returns the number of entries."""
        return len(self.codes)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The rows of each value, int64 (values,)."""
        sums = np.bincount(self.codes, self.weights, minlength=len(self.values))
        return sums.astype(np.int64)

    @property
    def stands_for(self) -> NDArray[np.int64]:
        """The rows that each entry stands for, int64 (n,)."""
        one = np.ones(len(self.codes), np.int64)
        return one if self.weights is None else self.weights

    def rows(self, mask: NDArray[np.bool_]) -> int:
        """Returns the number of rows that the entries in a mask (n,) stand for."""
        return int((mask if self.weights is None else self.weights[mask]).sum())

    def weighed(self, weights: NDArray[np.int64]) -> Column:
        """Returns the entries that stand for any row, for so many (n,)."""
        whole = replace(self, weights=weights)
        # Each value has an entry: where all stay, nothing is looked up.
        return whole if (weights > 0).all() else whole.take(weights > 0)

    def coded(self) -> pa.DictionaryArray:
        """Returns the column as Arrow's array, its codes as narrow as they may be."""
        width = np.min_scalar_type(max(0, len(self.values) - 1))
        # Wider than two bytes they stay as they are.
        codes = self.codes.astype(width) if width.itemsize < 4 else self.codes
        return pa.DictionaryArray.from_arrays(pa.array(codes), self.values)

    def mapped(self, texts: pa.StringArray) -> Column:
        """Replaces the i-th distinct value by `texts[i]`; equal ones become one."""
        # Codes may be compared (entities, groups) only while equal texts share one.
        merged = pc.dictionary_encode(texts)
        codes = _int32(merged.indices)[self.codes]
        return Column(codes, merged.dictionary, self.weights)

    def renamed(self, names: Mapping[str, str], other: str | None = None) -> Column:
        """Maps values by name; one that is not named stays, or becomes `other`."""
        texts = [
            names.get(v, v if other is None else other) for v in self.values.to_pylist()
        ]
        return self.mapped(pa.array(texts, pa.string()))

    def take(self, rows: NDArray[Any] | slice) -> Column:
        """Returns the chosen rows (indices, mask, slice) with the values they use."""
        codes = self.codes[rows]
        # A value that only other rows have would count as a class or a level here.
        used = np.bincount(codes, minlength=len(self.values)) > 0
        new_code = np.cumsum(used, dtype=np.int32) - np.int32(1)
        weights = None if self.weights is None else self.weights[rows]
        return Column(new_code[codes], self.values.filter(pa.array(used)), weights)

    def extended(self, other: Column) -> Column:
        """Appends another column's rows."""
        codes = np.concatenate([self.codes, other.codes + np.int32(len(self.values))])
        weights = (
            None
            if self.weights is None or other.weights is None
            else np.concatenate([self.weights, other.weights])
        )
        both = Column(codes, pa.concat_arrays([self.values, other.values]), weights)
        return both.mapped(both.values)

    def among(self, texts: Collection[str]) -> NDArray[np.bool_]:
        """Returns a mask (n,) of the rows whose text is one of `texts`."""
        inside = pc.is_in(self.values, value_set=pa.array(list(texts), pa.string()))
        return np.asarray(inside, dtype=bool)[self.codes]

    def texts(self) -> pa.StringArray:
        """Returns the text of every row."""
        return self.values.take(pa.array(self.codes))

    def ranked(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Returns the distinct values in sorted order and codes (n,) into them."""
        # Dictionary codes follow the order of the rows; class and group codes must not,
        # and Python's order of texts (code points) knows no locale.
        order = sorted(range(len(self.values)), key=self.values.to_pylist().__getitem__)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return tuple(self.values[i].as_py() for i in order), rank[self.codes]

    def numbers(self, missing: Collection[str]) -> NDArray[np.float64] | None:
        """Returns float64 (n,) with NaN for missing, or None if one is no number."""
        absent = pc.is_in(self.values, value_set=pa.array(list(missing), pa.string()))
        try:
            parsed = pc.cast(pc.if_else(absent, None, self.values), pa.float64())
        except pa.ArrowInvalid:
            return None
        return np.asarray(parsed.to_numpy(zero_copy_only=False))[self.codes]

    def non_numbers(self, missing: Collection[str]) -> NDArray[np.bool_]:
        """Returns a mask (n,) of rows whose text is neither missing nor a number."""
        wrong = [
            text not in missing and not is_number(text)
            for text in self.values.to_pylist()
        ]
        return np.array(wrong, np.bool_)[self.codes]


def is_number(text: str) -> bool:
    """Says whether a text reads as a number, by the parser that columns use."""
    # Python reads "1_000" as a number and Arrow does not: one parser decides for both.
    try:
        pc.cast(pa.array([text], pa.string()), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _int32(array: pa.Array) -> NDArray[np.int32]:
    return np.asarray(array.to_numpy(zero_copy_only=False)).astype(np.int32, copy=False)


@dataclass(frozen=True)
class RawTable:
    """A raw table: text columns in source order, and where they came from.

    Attributes:
        columns: by name, in source order.
        rows: number of rows.
        origin: the URI, for sentences.
        digests: sha256 of the raw bytes by object name.
        notes: what was found out about how files are written -> number of files.
        names_are_safe: names come from a schema; else the first row may be a
            person's, and no sentence shows it.
        kept: columns of `Layout.keep` in the types of Parquet files that agree on
            them; a text file has none.
        commas: names of columns in whose files a decimal comma has become a point.
        unclear: those whose commas may be decimal signs or part thousands.
        start: rows of the source before the first one here, for sentences.
        contents: bytes of the images that cells stand for.
    """

    columns: Mapping[str, Column]
    rows: int
    origin: str
    digests: Mapping[str, str]
    notes: Mapping[str, int] = field(default_factory=dict)
    names_are_safe: bool = False
    kept: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)
    commas: frozenset[str] = frozenset()
    unclear: frozenset[str] = frozenset()
    start: int = 0
    contents: Contents = field(default_factory=dict)

    def column(self, name: str, role: str, others: Collection[str] = ()) -> Column:
        """Returns one column.

        Args:
            name: of the column.
            role: key of the config that names it, for the sentence.
            others: all names that the config has.

        Raises:
            DataError: no such column.
        """
        if name in self.columns:
            return self.columns[name]
        near = self.near(name, others)
        if self.names_are_safe:
            found = f"it has {', '.join(self.columns)}{near}"
        else:
            named = len(set(others) & set(self.columns))
            found = f"the config names {named or 'none'} of its {len(self.columns)}" + (
                near
                or "; if the file has no header, data.columns names its columns, and "
                "data.delimiter says what parts them"
            )
        raise DataError(f"{self.origin} has no column {name!r} ({role}): {found}.")

    def near(self, name: str, others: Collection[str] = ()) -> str:
        """Returns the part of a sentence that tells which column a name may mean.

        By its position where the first line may be a person's; "" if none is near. A
        column that is one of the other names is meant by itself.
        """
        near = nearest(name, [c for c in self.columns if c not in others])
        if not near:
            return ""
        if self.names_are_safe:
            return f"; the nearest is {near!r}"
        place = list(self.columns).index(near) + 1
        return f", and column {place} is spelled nearly like {name!r}"

    @property
    def nbytes(self) -> int:
        """Bytes of codes and values."""
        columns = self.columns.values()
        return sum(c.codes.nbytes + int(c.values.nbytes) for c in columns)

    def take(self, rows: NDArray[Any] | slice) -> RawTable:
        """Returns the chosen rows (indices, mask or slice)."""
        columns = {name: c.take(rows) for name, c in self.columns.items()}
        # Indexing gives the number of rows for all three.
        count = len(np.arange(self.rows)[rows])
        return replace(self, columns=columns, rows=count)
