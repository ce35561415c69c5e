"""The entries of a feature column, typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.shelf import Shelf

_GAP = np.iinfo(np.int64).min


@dataclass(frozen=True)
class TypedEntries:
    """The entries of one feature column, typed.

    Attributes:
        kind: float64, timestamp, string or, of images, bytes.
        load: gives the values (entries,): NaN or the least number for a gap, or codes.
        texts: what codes stand for, images too; None of numbers and times.
    """

    kind: pa.DataType
    load: Callable[[], NDArray[Any]]
    texts: pa.Array | None = None

    @classmethod
    def of(cls, entries: pa.Array, shelf: Shelf) -> TypedEntries:
        """Keeps typed entries; a text is kept once."""
        if pa.types.is_string(entries.type) or pa.types.is_fixed_size_binary(
            entries.type
        ):
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
