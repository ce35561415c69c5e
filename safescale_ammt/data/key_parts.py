"""The keys that the sealed rows of a table are known by; see `data.row_keys`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.coded_rows import CodedRows
from safescale_ammt.data.entry_cells import EntryCells, Hashes
from safescale_ammt.data.joining import Joined
from safescale_ammt.data.relations import SEALED_CODE, Placed, Relations
from safescale_ammt.data.row_keys import Parts, RowKeys, nearest, sketched
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.reading.cells import Words

MOST_PAIRED = 24
"""Tables of more columns have no parts without two of them: there are too many."""
# Cells whose words are in memory at once.
_CELLS = 1 << 24


def row_keys(
    config: DataConfig,
    joined: Joined,
    cells: Mapping[str, EntryCells],
    *,
    hashes: Hashes,
    placement: Placed,
    digests: Iterable[str],
    relations: Relations,
) -> RowKeys:
    """Returns what the sealed rows of a table are known by.

    Args:
        config: names the entity, the ids and the label.
        joined: all rows.
        cells: of every column as the files spell them, the label too.
        hashes: of the rows by these cells.
        placement: of the rows.
        digests: `sha256:...` of the files that the sealed rows come from.
        relations: of rows.
    """
    coded, count = joined.coded, placement.sizes[SEALED_CODE]
    # All rows have the cells of these columns, and are equal without them if they are.
    constants = [c.constant for c in cells.values() if c.constant is not None]
    shift = reduce(add, constants, np.zeros(2, np.uint64))

    def sealed(batch: int) -> NDArray[np.bool_]:
        return np.equal(placement.split[coded.slice(batch)], SEALED_CODE)

    def varying() -> Iterator[NDArray[np.void]]:
        for batch in coded.batches:
            rows = hashes(batch)[sealed(batch)]
            yield (np.stack(words(rows), axis=1) - shift).view(ROW)[:, 0]

    files = b"".join(bytes.fromhex(d.removeprefix("sha256:"))[:16] for d in digests)
    whole = {
        "varying": relations.distinct(varying()),
        "file": np.unique(np.frombuffer(files, ROW)),
    }
    if config.entity:
        # The label is part of the name: what was seen of these people is their label.
        named = cells[config.entity].renamed(f"entity {config.entity} {config.label}")
        mine = np.zeros(len(named), np.bool_)
        for batch in coded.batches:
            mine[coded.codes(config.entity, batch)[sealed(batch)]] = True
        whole["entity"] = np.unique(named[mine].view(ROW)[:, 0])
    stays = ((joined.stays(i), words(hashes(i))[0], sealed(i)) for i in coded.batches)
    met = sum(
        int(asked[times > 1].sum())
        for times, asked in relations.times((w[s], mine[s]) for s, w, mine in stays)
    )
    # Equal rows that are copies of one record are no people whom chance made equal.
    twins = met / count * (not config.drop_duplicates)
    sketches = Sketches(config, coded, cells, count)
    for batch in coded.batches:
        sketches.see(batch, placement.split[coded.slice(batch)])
    parts = tuple(part for part in map(sketched, *sketches.near) if len(part.keys))
    return RowKeys(whole, Parts(count, sum(placement.sizes) - count, twins, parts))


class Sketches:
    """The least keys of every part, gathered batch by batch.

    A column that is constant, or only numbers the rows, is in no part: it tells
    nothing, or joins rows that have nothing to do with each other.

    Attributes:
        near: of every part the least keys of sealed rows; the same of all others.
    """

    def __init__(
        self,
        config: DataConfig,
        coded: CodedRows,
        cells: Mapping[str, EntryCells],
        sealed: int,
    ) -> None:
        self._coded, self._nearest = coded, nearest(sealed)
        self._cells = {
            name: c for name, c in cells.items() if c.constant is None and not c.counter
        }
        # A sequence of ids begins anew in other data, perhaps.
        self._ids = {
            name: cells[name].renamed(f"id {name} {config.label}")[:, 0]
            for name in config.ids
            if not cells[name].counter
        }
        self._near: list[tuple[list[Words], list[Words]]] = []

    @property
    def near(self) -> tuple[list[Words], list[Words]]:
        """The keys so far."""
        none, sides = np.zeros(0, np.uint64), zip(*self._near, strict=True)
        own, others = (
            [np.concatenate([none, *keys]) for keys in side] for side in sides
        )
        return own, others

    def see(self, batch: int, split: NDArray[np.uint8]) -> None:
        """Takes the keys of a batch's rows, of which these are the places."""
        chosen = np.flatnonzero(split <= SEALED_CODE)
        # The cells of all columns are held at once.
        most = max(1, _CELLS // len(self._cells))
        for start in range(0, len(chosen), most):
            rows = chosen[start : start + most]
            sealed = split[rows] == SEALED_CODE
            for i, keys in enumerate(self._keys(batch, rows)):
                if i == len(self._near):
                    self._near.append(([], []))
                at = np.flatnonzero(keys <= self._nearest)
                if len(at):
                    own, others = self._near[i]
                    own.append(keys[at[sealed[at]]])
                    others.append(keys[at[~sealed[at]]])

    def _keys(self, batch: int, rows: NDArray[np.int64]) -> Iterator[Words]:
        """Yields the keys (n,) of every part of some rows of a batch."""
        codes = {
            name: self._coded.codes(name, batch)[rows]
            for name in (*self._cells, *self._ids)
        }
        for named in (True, False):
            words_of = [
                (c.named if named else c.words)()[:, 0][codes[name]]
                for name, c in self._cells.items()
            ]
            yield from without_few(words_of)
            for kind in ("numbers", "texts"):
                total = np.zeros(len(rows), np.uint64)
                for (name, c), column in zip(
                    self._cells.items(), words_of, strict=True
                ):
                    mask = getattr(c, kind)()
                    if mask.all():
                        total += column
                    elif mask.any():
                        total += np.where(mask[codes[name]], column, np.uint64(0))
                yield total
        for name, table in self._ids.items():
            yield table[codes[name]]


def without_few(columns: Sequence[Words]) -> Iterator[Words]:
    """Yields the sums of all columns, and without one or two of at least three each."""
    total, count = reduce(add, columns), len(columns)
    yield total
    for i in range(count if count >= 3 else 0):
        rest = total - columns[i]
        yield rest
        for j in range(i if 6 <= count <= MOST_PAIRED else 0):
            yield rest - columns[j]
