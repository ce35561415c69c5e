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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW, arrow_rows, row_hashes
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.json_text import LARGEST
from safescale_ammt.files.parquet import fitting, read_parquet
from safescale_ammt.files.regular import read_regular
from safescale_ammt.reading.cells import Cells, Words, cells_of, row_sums
from safescale_ammt.reading.readings import learn_readings, read_columns
from safescale_ammt.reading.spelling import Kinds

KEYS = "keys.parquet"
PARTS = "parts.parquet"
# As many columns as a table may have (10,000) make 41 MB of keys.
_LARGEST = 2 * LARGEST
KEPT = 256
"""Most keys of a part."""
MOST_PAIRED = 24
"""Tables of more columns have no parts without two of them: there are too many."""
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
        sizes = [len(keys) for keys in self.whole.values()]
        kinds = np.repeat(np.array([*self.whole], object), sizes)
        keys = arrow_rows(np.concatenate([*self.whole.values()]))
        table = pa.table({"kind": pa.array(kinds, pa.string()), "key": keys})
        pq.write_table(table, folder / KEYS, compression="zstd")
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
        table = read_parquet(folder / KEYS)
        gaps = sum(column.null_count for column in table.columns)
        if table.schema != _KEYS or gaps:
            raise IntegrityError(f"{folder / KEYS} holds no keys of rows.")
        keys = np.frombuffer(b"".join(table["key"].to_pylist()), ROW)
        kinds = np.array(table["kind"].to_pylist(), str)
        whole = {str(kind): keys[kinds == kind] for kind in np.unique(kinds)}
        parts = Parts.from_bytes(
            read_regular(folder / PARTS, _LARGEST), str(folder / PARTS)
        )
        # Rows without keys are nobody's, and would never be known again.
        entity = ["entity"] * bool(Schema.load(folder).entity)
        if lost := sorted({"varying", "file", *entity} - whole.keys()):
            raise IntegrityError(f"{folder / KEYS} holds no keys of kind {lost[0]!r}.")
        return cls(whole, parts)


def written_cells(config: DataConfig, joined: Joined, kinds: Kinds) -> dict[str, Cells]:
    """Returns the cells of all rows as the files spell them, the label too.

    A row is the same whatever its numbers and dates look like, so they are read; of
    the config only what settles how they are written has a part in it.
    """
    columns = {**joined.table.columns, config.label: joined.label}
    table = replace(joined.table, columns=columns)
    plain = DataConfig(
        numbers=config.numbers,
        dates=config.dates,
        decimal=config.decimal,
        missing=(*DataConfig().missing, *config.missing),
    )
    source = table.take(np.arange(joined.border))
    forms = learn_readings(plain, source, kinds).forms
    return cells_of(read_columns(table, forms, plain.missing).columns)


def row_keys(
    config: DataConfig,
    cells: Mapping[str, Cells],
    sealed: NDArray[np.bool_],
    development: NDArray[np.bool_],
    digests: Iterable[str],
) -> RowKeys:
    """Returns what the sealed rows of a table are known by.

    Args:
        config: names the entity, the ids and the label.
        cells: of every column as the files spell them, the label too.
        sealed: mask (n,).
        development: mask (n,) of all others that stayed.
        digests: `sha256:...` of the files that the sealed rows come from.
    """
    rows = np.concatenate([np.flatnonzero(sealed), np.flatnonzero(development)])
    count = int(sealed.sum())
    varying = {name: c for name, c in cells.items() if not c.constant}
    files = b"".join(bytes.fromhex(d.removeprefix("sha256:"))[:16] for d in digests)
    every = row_hashes(varying)
    _, same, times = np.unique(
        every.view(np.uint64)[::2], return_inverse=True, return_counts=True
    )
    whole = {
        "varying": every[sealed],
        "file": np.frombuffer(files, ROW),
    }
    if config.entity:
        # The label is part of the name: what was seen of these people is their label.
        name = f"entity {config.entity} {config.label}"
        whole["entity"] = row_hashes({name: cells[config.entity]})[sealed]
    # A sequence of ids begins anew in other data, perhaps.
    ids = [
        cells[name].named(f"id {name} {config.label}")[cells[name].codes[rows], 0]
        for name in config.ids
        if not cells[name].counter
    ]
    made = (sketch(keys, count) for keys in chain(parts_of(cells, rows), ids))
    sketches = tuple(part for part in made if len(part.keys))
    # Equal rows that are copies of one record are no people whom chance made equal.
    twins = float((times[same[sealed]] > 1).mean() * (not config.drop_duplicates))
    return RowKeys(
        {kind: np.unique(keys) for kind, keys in whole.items()},
        Parts(count, len(rows) - count, twins, sketches),
    )


def parts_of(cells: Mapping[str, Cells], rows: NDArray[np.int64]) -> Iterator[Words]:
    """Yields the keys (m,) of every part of some rows.

    A column that is constant, or only numbers the rows, is in no part: it tells
    nothing, or joins rows that have nothing to do with each other.
    """
    used = {name: c for name, c in cells.items() if not (c.constant or c.counter)}
    codes = [c.codes[rows] for c in used.values()]
    for names in (True, False):
        words = [
            (c.named(name) if names else c.words)[:, 0] for name, c in used.items()
        ]
        yield from without_few(list(zip(words, codes, strict=True)))
        for kind in ("numbers", "texts"):
            some = [
                np.where(getattr(c, kind), w, np.uint64(0))
                for c, w in zip(used.values(), words, strict=True)
            ]
            yield row_sums(zip(some, codes, strict=True))


def without_few(columns: Sequence[tuple[Words, NDArray[np.int32]]]) -> Iterator[Words]:
    """Yields the sums of all columns, and without one or two of at least three each."""
    total, count = row_sums(columns), len(columns)
    yield total

    @lru_cache(MOST_PAIRED)
    def cells_at(i: int) -> Words:
        words, codes = columns[i]
        return words[codes]

    for i in range(count if count >= 3 else 0):
        rest = total - cells_at(i)
        yield rest
        for j in range(i if 6 <= count <= MOST_PAIRED else 0):
            yield rest - cells_at(j)


def sketch(keys: Words, sealed: int) -> Part:
    """Keeps the least keys (n,) of a part; the first `sealed` ones are of sealed rows.

    Chance is the share of the sealed rows whose key another row has, sealed or not.
    """
    # Below it lie twice as many as are kept; of few rows, all.
    near = keys <= np.uint64(min(2**64 - 1, 2**64 * 2 * KEPT // sealed))
    own, others = keys[:sealed][near[:sealed]], keys[sealed:][near[sealed:]]
    kept, times = np.unique(own, return_counts=True)
    kept, times = kept[:KEPT], times[:KEPT]
    met = (times > 1) | np.isin(kept, others)
    # Of a part of few distinct keys no key may lie there: it tells nothing.
    chance = times[met].sum() / times.sum() if len(kept) else 1.0
    return Part(float(chance), kept)
