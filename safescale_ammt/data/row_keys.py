"""What sealed rows are known by, when the same data come again in another dress.

A row is the sum of its cells' words (AdHash, Bellare & Micciancio 1997): no order of
columns or rows matters, and a part of a row is a difference away. Whole keys are of
all cells beside their columns' names; one in common is a row in common. Keys of parts
leave out one or two columns, or all numbers, or all texts, with names and without
them, so that what changed in few columns is found by the others. Independent people
may agree in a part, so each part says how often its rows meet by chance, and only far
more counts. Of each part the least keys are kept (a bottom-k sketch, Cohen & Kaplan
2007): two sets that share rows keep the same ones.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW, arrow_rows
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.json_text import LARGEST
from safescale_ammt.files.parquet import (
    ROW_GROUP,
    fitting,
    parquet_batches,
    read_fixed,
)
from safescale_ammt.files.regular import read_regular
from safescale_ammt.reading.cells import Words

KEYS = "keys.parquet"
PARTS = "parts.parquet"
# As many columns as a table may have (10,000) make 41 MB of keys.
_LARGEST = 2 * LARGEST
KEPT = 256
"""Most keys of a part."""
_SIDES = ("rows", "others", "twins")
_KEYS = pa.schema({"kind": pa.string(), "key": pa.binary(ROW.itemsize)})
_PARTS = pa.schema({"part": pa.int32(), "chance": pa.float64(), "key": pa.uint64()})


@dataclass(frozen=True)
class Part:
    """The least keys of some part of the rows.

    Attributes:
        chance: share of the sealed rows that meet another row by it.
        keys: uint64 (k,), distinct and sorted.
    """

    chance: float
    keys: Words

    @property
    def most_chance(self) -> float:
        """The share that so few rows may have seen too small: three more had met."""
        return self.chance + 3 / len(self.keys)


@dataclass(frozen=True)
class Parts:
    """Keys of parts of sealed rows.

    Attributes:
        rows: sealed rows.
        others: development rows, among which chance was counted.
        twins: share of the sealed rows that are equal to another row of the table.
        parts: each with keys.
    """

    rows: int
    others: int
    twins: float
    parts: tuple[Part, ...]

    def to_bytes(self) -> bytes:
        """Spells the parts as a Parquet file."""
        sizes = [len(part.keys) for part in self.parts]
        columns = [
            np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            np.repeat(np.array([part.chance for part in self.parts], float), sizes),
            np.concatenate([np.zeros(0, np.uint64), *(p.keys for p in self.parts)]),
        ]
        sides = {name: str(getattr(self, name)) for name in _SIDES}
        sink = io.BytesIO()
        table = pa.table(columns, schema=_PARTS.with_metadata(sides))
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Parts:
        """Reads what `to_bytes` wrote.

        Raises:
            IntegrityError: other bytes; the sentence names `where`.
        """
        try:
            file = fitting(io.BytesIO(data), where)
            table = file.read().select(_PARTS.names).cast(_PARTS)
            sides = file.metadata.metadata
            rows, others = (int(sides[name.encode()]) for name in _SIDES[:2])
            twins = float(sides[b"twins"])
        except (pa.ArrowException, KeyError, TypeError, ValueError):
            raise IntegrityError(f"{where} holds no keys of parts of rows.") from None
        part, chance, key = (column.to_numpy() for column in table.columns)
        # Written so that what is no number is no share either.
        shares = np.append(chance, twins)
        if min(rows, others) < 0 or not ((shares >= 0) & (shares <= 1)).all():
            raise IntegrityError(f"{where} holds counts or shares that no rows have.")
        ends = np.flatnonzero(np.diff(part)) + 1
        of_parts = zip(np.split(chance, ends), np.split(key, ends), strict=True)
        parts = (Part(float(c[0]), k) for c, k in of_parts if len(k))
        return cls(rows, others, twins, tuple(parts))


@dataclass(frozen=True)
class RowKeys:
    """What a set of sealed rows is known by, beside the hashes of whole rows.

    Attributes:
        whole: kind of key -> V16 (n,); one in common shows the same data. `varying`:
            rows without the columns in which all agree; `entity`; `file`: digests of
            the files that the sealed rows come from.
        parts: what may be met by chance too.
    """

    whole: Mapping[str, NDArray[np.void]]
    parts: Parts

    def save(self, folder: Path) -> None:
        """Writes two files into the folder of a holdout."""
        sizes = np.cumsum([len(keys) for keys in self.whole.values()])
        keys = np.concatenate([*self.whole.values()])
        kinds = pa.array([*self.whole], pa.string())
        with pq.ParquetWriter(folder / KEYS, _KEYS, compression="zstd") as writer:
            for start in range(0, len(keys), ROW_GROUP):
                some = keys[start : start + ROW_GROUP]
                place = np.arange(start, start + len(some))
                kind = kinds.take(pa.array(np.searchsorted(sizes, place, side="right")))
                columns = {"kind": kind, "key": arrow_rows(some)}
                writer.write_table(pa.table(columns), ROW_GROUP)
        (folder / PARTS).write_bytes(self.parts.to_bytes())

    @classmethod
    def load(cls, folder: Path) -> RowKeys:
        """Reads the keys of a verified holdout.

        Raises:
            InputError: an earlier version has made it, without keys.
            IntegrityError: the files hold something else, or a kind of key less than
                such rows have.
        """
        if not (folder / KEYS).is_file():
            raise InputError(
                f"{folder} holds no {KEYS}, by which the ledger knows its rows again; "
                "prepare the data anew."
            )
        whole = StoredKeys(folder / KEYS)
        parts = Parts.from_bytes(
            read_regular(folder / PARTS, _LARGEST), str(folder / PARTS)
        )
        # Rows without keys are nobody's, and would never be known again.
        entity = ["entity"] * bool(Schema.load(folder).entity)
        if lost := sorted({"varying", "file", *entity} - whole.keys()):
            raise IntegrityError(f"{folder / KEYS} holds no keys of kind {lost[0]!r}.")
        return cls(whole, parts)


class StoredKeys(Mapping[str, NDArray[np.void]]):
    """Keys of whole rows in the file of a holdout, those of a kind read when asked for.

    Raises:
        IntegrityError: the file holds something else.
    """

    def __init__(self, file: Path) -> None:
        self._file, kinds = file, set[str]()
        for table in parquet_batches(file, _KEYS.names, ROW_GROUP):
            coded = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
            found = {f.name: f.type for f in table.schema}
            found |= {name: table.schema.field(name).type.value_type for name in coded}
            gaps = sum(column.null_count for column in table.columns)
            if found != dict(zip(_KEYS.names, _KEYS.types, strict=True)) or gaps:
                raise IntegrityError(f"{file} holds no keys of rows.")
            kinds |= set(table["kind"].cast(pa.string()).unique().to_pylist())
        self._kinds = sorted(kinds)

    def __getitem__(self, kind: str) -> NDArray[np.void]:
        if kind not in self._kinds:
            raise KeyError(kind)
        return read_fixed(self._file, "key", ROW, {"kind": kind})

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


def sketch(keys: Words, sealed: int) -> Part:
    """Keeps the least keys (n,) of a part; the first ones are of the sealed rows."""
    near = keys <= nearest(sealed)
    return sketched(keys[:sealed][near[:sealed]], keys[sealed:][near[sealed:]])


def nearest(sealed: int) -> np.uint64:
    """Returns a key below which lie twice as many as are kept; of few rows, all."""
    return np.uint64(min(2**64 - 1, 2**64 * 2 * KEPT // sealed))


def sketched(own: Words, others: Words) -> Part:
    """Keeps the least of some keys of sealed rows, beside those of all other rows.

    Chance is the share of the sealed rows whose key another row has, sealed or not.
    """
    kept, times = np.unique(own, return_counts=True)
    kept, times = kept[:KEPT], times[:KEPT]
    met = (times > 1) | np.isin(kept, others)
    # Of a part of few distinct keys no key may lie there: it tells nothing.
    chance = times[met].sum() / times.sum() if len(kept) else 1.0
    return Part(float(chance), kept)
