"""The keys that the sealed rows of a table are known by; see `data.row_keys`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.entry_cells import EntryCells, Written
from safescale_ammt.data.relations import SEALED_CODE, Keyed
from safescale_ammt.data.row_keys import Parts, RowKeys, nearest, sketched
from safescale_ammt.data.rows_here import RowsHere
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.data.table import Entity
from safescale_ammt.reading.cells import Words

MOST_PAIRED = 24
"""Tables of more columns have no parts without two of them: there are too many."""
# Cells whose words are in memory at once.
_CELLS = 1 << 24


def row_keys(
    config: DataConfig, here: RowsHere, entity: Entity | None, digests: Sequence[str]
) -> RowKeys:
    """Returns what the sealed rows of a table are known by.

    Args:
        config: names the ids and the label.
        here: the rows.
        entity: who they are about.
        digests: `sha256:...` of the files that the sealed rows come from.
    """
    coded, written, places = here.coded, here.written, here.places

    def varying() -> Iterator[NDArray[np.void]]:
        for batch in coded.batches:
            rows = here.hashes[batch]()[places(batch) == SEALED_CODE]
            # All rows have the cells of constants, and are equal without them.
            yield (np.stack(words(rows), axis=1) - written.shift).view(ROW)[:, 0]

    def asked() -> Iterator[Keyed]:
        for batch in coded.batches:
            stays = here.stays[here.people[batch]()]
            yield (
                words(here.hashes[batch]())[0][stays],
                places(batch)[stays] == SEALED_CODE,
            )

    def sealed(batch: int) -> NDArray[np.uint8]:
        return np.equal(places(batch), SEALED_CODE).astype(np.uint8)

    distinct = here.relations.distinct(varying())
    mine = coded.count(entity[0], sealed, 2)[:, 1] > 0 if entity else None
    whole = whole_keys(config, written, distinct, mine, digests)
    met = sum(int(mine[n > 1].sum()) for n, mine in here.relations.times(asked()))
    parts = PartKeys.of(PartColumns.of(config, written), written.cells)
    sketches = Sketches(here.placed.sizes)
    for batch in coded.batches:
        chosen = np.flatnonzero(places(batch) <= SEALED_CODE)
        # The cells of all columns are held at once.
        most = max(1, _CELLS // len(parts.cells))
        for start in range(0, len(chosen), most):
            rows = chosen[start : start + most]
            codes = {name: coded.codes(name, batch)[rows] for name in parts.names}
            sketches.see(parts.keys(codes), places(batch)[rows] == SEALED_CODE)
    return RowKeys(whole, sketches.parts(config, met))


def whole_keys(
    config: DataConfig,
    written: Written,
    varying: NDArray[np.void],
    mine: NDArray[np.bool_] | None,
    digests: Sequence[str],
) -> dict[str, NDArray[np.void]]:
    """Returns the keys of which one in common shows the same data, by kind.

    Args:
        config: names the entity and the label.
        written: cells of the rows.
        varying: the distinct hashes of sealed rows without constants, sorted.
        mine: entries of the entity's column that sealed rows have; None without one.
        digests: `sha256:...` of the files that the sealed rows come from.
    """
    files = b"".join(bytes.fromhex(d.removeprefix("sha256:"))[:16] for d in digests)
    whole = {"varying": varying, "file": np.unique(np.frombuffer(files, ROW))}
    if mine is not None:
        # The label is part of the name: what was seen of these people is their label.
        name = f"entity {config.entity} {config.label}"
        named = written.cells[config.entity].renamed(name)
        whole["entity"] = np.unique(named[mine].view(ROW)[:, 0])
    return whole


@dataclass(frozen=True)
class PartColumns:
    """Which columns have a part in keys of parts of rows.

    A column that is constant, or only numbers the rows, is in no part: it tells
    nothing, or joins rows that have nothing to do with each other.

    Attributes:
        names: of the columns of parts.
        ids: names of columns that name a row.
        label: its name.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    label: str

    @classmethod
    def of(cls, config: DataConfig, written: Written) -> PartColumns:
        """Chooses the columns by the cells of all rows."""
        cells = written.cells
        names = [n for n, c in cells.items() if c.constant is None and not c.counter]
        # A sequence of ids begins anew in other data, perhaps.
        ids = [name for name in config.ids if not cells[name].counter]
        return cls(tuple(names), tuple(ids), config.label)


@dataclass(frozen=True)
class PartKeys:
    """What keys of parts of rows are made of.

    Attributes:
        cells: of the columns of parts.
        ids: words (values,) of columns that name a row.
    """

    cells: Mapping[str, EntryCells]
    ids: Mapping[str, Words]

    @classmethod
    def of(cls, columns: PartColumns, cells: Mapping[str, EntryCells]) -> PartKeys:
        """Makes them of cells of all columns."""
        return cls(
            {name: cells[name] for name in columns.names},
            {
                name: cells[name].renamed(f"id {name} {columns.label}")[:, 0]
                for name in columns.ids
            },
        )

    @property
    def names(self) -> set[str]:
        """Names of the columns whose codes are needed."""
        return {*self.cells, *self.ids}

    def keys(self, codes: Mapping[str, NDArray[Any]]) -> Iterator[Words]:
        """Yields the keys (n,) of every part of some rows.

        Args:
            codes: of the rows (n,), by column.
        """
        for named in (True, False):
            words_of = [
                (c.named if named else c.words)()[:, 0][codes[name]]
                for name, c in self.cells.items()
            ]
            yield from without_few(words_of)
            for kind in ("numbers", "texts"):
                total = np.zeros_like(words_of[0])
                for (name, c), column in zip(self.cells.items(), words_of, strict=True):
                    mask = getattr(c, kind)()
                    if mask.all():
                        total += column
                    elif mask.any():
                        total += np.where(mask[codes[name]], column, np.uint64(0))
                yield total
        for name, table in self.ids.items():
            yield table[codes[name]]


class Sketches:
    """The least keys of every part, gathered batch by batch.

    Args:
        sizes: rows of each of `ALL_SPLITS`.

    Attributes:
        near: of every part the least keys of sealed rows, and those of all others.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes, self._nearest = sizes, nearest(sizes[SEALED_CODE])
        self.near: list[tuple[list[Words], list[Words]]] = []

    def see(self, parts: Iterable[Words], sealed: NDArray[np.bool_]) -> None:
        """Takes the keys (n,) of each part of some rows, of which some are sealed."""
        for i, keys in enumerate(parts):
            if i == len(self.near):
                self.near.append(([], []))
            at = np.flatnonzero(keys <= self._nearest)
            if len(at):
                own, others = self.near[i]
                own.append(keys[at[sealed[at]]])
                others.append(keys[at[~sealed[at]]])

    def parts(self, config: DataConfig, met: int) -> Parts:
        """Returns the least keys.

        Args:
            config: says whether equal rows are copies.
            met: sealed rows that are equal to another row of the table.
        """
        none, count = np.zeros(0, np.uint64), self._sizes[SEALED_CODE]
        # Equal rows that are copies of one record are no people whom chance made equal.
        twins = met / count * (not config.drop_duplicates)
        sides = (map(np.concatenate, ([none, *o], [none, *x])) for o, x in self.near)
        parts = tuple(part for both in sides if len((part := sketched(*both)).keys))
        return Parts(count, sum(self._sizes) - count, twins, parts)


def without_few(columns: Sequence[Words]) -> Iterator[Words]:
    """Yields the sums of all columns, and without one or two of at least three each."""
    total, count = reduce(add, columns), len(columns)
    yield total
    for i in range(count if count >= 3 else 0):
        rest = total - columns[i]
        yield rest
        for j in range(i if 6 <= count <= MOST_PAIRED else 0):
            yield rest - columns[j]
