"""The rows of a table in frames of Spark; see `data.table`.

A frame of raw rows has `at` (number in the table, those of the source first), `sealed`
and the texts `c0`, `c1` and so on. Of rows the driver holds nothing; of entries, all.

    raw rows --place--> read, hashed, with combination and entity --+--> placed rows
                                   |                                |
                                   +-- Drawing: split, first -------+
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.buckets import BUCKET_ROWS
from safescale_ammt.data.entry_cells import Written
from safescale_ammt.data.relations import REMOVED, SEALED_CODE, Rule
from safescale_ammt.data.table import Entity, Filling, Left, PlaceCounts
from safescale_ammt.errors import IntegrityError
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.spark.entries import entries_of
from safescale_ammt.spark.frames import checkpointed, frame_of, mapped
from safescale_ammt.spark.keys import signed
from safescale_ammt.spark.placed import SparkPlaced
from safescale_ammt.spark.placing import GONE, Drawing, place_counts
from safescale_ammt.spark.raw_cells import RawCells
from safescale_ammt.spark.reading import SparkRows

# Columns whose texts are counted at once.
_TOGETHER = 32

_KEPT = """
SELECT rows.* FROM {rows} AS rows LEFT ANTI JOIN {gone} AS gone
ON rows.sealed = gone.sealed AND rows.{name} = gone.text
"""
_FIRST = """
SELECT min(at) AS at FROM {rows} AS rows LEFT SEMI JOIN {some} AS some
ON rows.sealed = some.sealed AND rows.{name} = some.text
"""
_COUNTED = """
SELECT name, sealed, text, split, count(*) AS rows
FROM (SELECT sealed, split, {cells} FROM {{rows}}) GROUP BY name, sealed, text, split
"""
_COMBINED = """
SELECT {names}, sealed, count(*) AS rows, min(at) AS at FROM {{rows}}
GROUP BY {names}, sealed ORDER BY at
"""
# Combinations are few: Spark sends them to the rows. Entities may be many.
_JOINED = """
SELECT /*+ BROADCAST(few) */ rows.at, rows.sealed, few.people, few.stratum,
  {entity} AS entity, few.changed_high, few.changed_low, {texts}
FROM {{rows}} AS rows JOIN {{few}} AS few ON rows.sealed = few.sealed AND {on} {who}
"""
_WHO = """
JOIN {{who}} AS who ON rows.sealed = who.sealed AND rows.{name} = who.text
"""
_PLACED = """
SELECT rows.at, rows.sealed, rows.people, rows.entity, rows.high, rows.low, {texts},
  coalesce(drawn.split, {gone}) AS split, coalesce(drawn.first, false) AS first
FROM {{rows}} AS rows LEFT JOIN {{drawn}} AS drawn ON rows.at = drawn.at
"""
_SUMMED = """
SELECT people, split, count(*) AS rows, count_if(first) AS firsts FROM {rows}
GROUP BY people, split
"""


class SparkTable:
    """A table in Spark, see `data.table.Table`.

    Args:
        session: of Spark Connect.
        sides: the source, and a sealed file.
        missing: spellings of a missing value.
        store: URI of the store of data, which workers have to reach.
        bucket_rows: rows of a range of keys, about; no answer depends on it.

    Attributes:
        tables: of each side its entries.
    """

    def __init__(
        self,
        session: Any,
        sides: Sequence[SparkRows],
        missing: Sequence[str],
        store: str,
        bucket_rows: int = BUCKET_ROWS,
    ) -> None:
        self._session, self._sides, self._missing = session, sides, tuple(missing)
        self._bucket_rows, self._store = bucket_rows, store
        # Read and parsed once: all that follows looks at what Spark keeps.
        self._frames = [checkpointed(side.frame) for side in sides]
        self.tables: Sequence[RawTable] = [
            entries_of(session, side, frame)
            for side, frame in zip(sides, self._frames, strict=True)
        ]
        self._counts: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._combined: pa.Table | None = None
        self._cells: RawCells | None = None
        self._written: Written | None = None
        self._sizes = [0]

    @property
    def border(self) -> int:
        """Rows of the source, which come first."""
        return self._sides[0].rows

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(side.rows for side in self._sides)

    @cached_property
    def _names(self) -> list[str]:
        return [*self._sides[0].outline.columns]

    @cached_property
    def _raw(self) -> Any:
        """All rows, the columns of a sealed file in the source's order."""
        start, whole = 0, None
        for number, side in enumerate(self._sides):
            place = {name: i for i, name in enumerate(side.outline.columns)}
            texts = [f"c{place[name]} AS c{i}" for i, name in enumerate(self._names)]
            frame = self._frames[number].selectExpr(
                f"at + {start}L AS at", f"{number > 0} AS sealed", *texts
            )
            whole = frame if whole is None else whole.unionAll(frame)
            start += side.rows
        return whole

    def entries(self, name: str) -> int:
        """Returns how many entries of a column are of the source; they come first."""
        return len(self.tables[0].columns[name])

    def kept(self, name: str, left: Left) -> NDArray[np.int64]:
        """Counts the rows of each entry (entries,) of a column that stay."""
        rows = self._stays(left).selectExpr("*", "0 AS split")
        return self._entry_counts("kept", rows, name, 1)[:, 0]

    def first_row(
        self, name: str, entries: NDArray[np.bool_], left: Left | None
    ) -> int:
        """Returns the position of the first row that has one of some entries."""
        rows = self._raw if left is None else self._stays(left)
        some = self._texts(name, np.flatnonzero(entries))
        sql = _FIRST.replace("{name}", self._column(name))
        return int(self._session.sql(sql, rows=rows, some=some).first()["at"])

    def combine(
        self, columns: Sequence[tuple[str, NDArray[np.int64]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts which codes rows have together."""
        names = [self._column(name) for name, _ in columns]
        sql = _COMBINED.format(names=", ".join(names))
        found = self._session.sql(sql, rows=self._raw).toArrow()
        codes = [
            of[self._entries(name, found[self._column(name)], found["sealed"])]
            for name, of in columns
        ]
        numbers: dict[tuple[int, ...], int] = {}
        each = zip(*(column.tolist() for column in codes), strict=True)
        people = [numbers.setdefault(c, len(numbers)) for c in each]
        counts = np.bincount(people, found["rows"].to_numpy()).astype(np.int64)
        self._combined = found.select([*names, "sealed"]).append_column(
            "people", pa.array(people, pa.int64())
        )
        return np.array(list(numbers)), counts

    def place(
        self,
        written: Written,
        strata: NDArray[np.int64],
        stays: NDArray[np.bool_],
        entity: Entity | None,
        rule: Rule,
    ) -> PlaceCounts:
        """Places every row; a development row that is also sealed is removed."""
        self._written, rows = written, self._read(written, strata, stays, entity)
        self._raw = rows
        self._frames.clear()
        facts = rows.selectExpr(
            *("at", "same_high AS high", "same_low AS low"),
            *("stratum", "sealed", "entity"),
        )
        bits = max(1, (max(0, self.rows - 1) // self._bucket_rows).bit_length())
        drawing = Drawing(self._session, rule, bits)
        fates = checkpointed(drawing.fates(facts))
        counted = fates.groupBy("fate").count().collect()
        if shared := drawing.shared(fates):
            return PlaceCounts(
                np.zeros((len(strata), REMOVED), np.int64), shared=shared
            )
        texts = ", ".join(f"rows.c{i}" for i in range(len(self._names)))
        sql = _PLACED.format(texts=texts, gone=GONE)
        drawn = drawing.drawn(fates)
        self._placed = checkpointed(self._session.sql(sql, rows=rows, drawn=drawn))
        # Spark lets go of what nobody refers to.
        self._raw = self._placed
        summed = self._session.sql(_SUMMED, rows=self._placed).toArrow()
        found = place_counts(summed, len(strata), counted)
        self._sizes = found.sizes
        return found

    def placed(self, name: str) -> NDArray[np.int64]:
        """Counts the rows of each entry by place, int64 (entries, REMOVED + 1)."""
        # A row that nobody draws is removed, as one that a draw removes.
        rows = self._placed.selectExpr(
            "sealed",
            f"least(split, {REMOVED}) AS split",
            *(f"c{i}" for i in range(len(self._names))),
        )
        return self._entry_counts("placed", rows, name, REMOVED + 1)

    def filled(self, filling: Filling) -> SparkPlaced:
        """Returns the placed rows with types."""
        assert self._cells
        assert self._written
        numbers = {}
        if filling.entity:
            name, codes = filling.entity
            for split, rows in enumerate(self.placed(name).T[: SEALED_CODE + 1]):
                # Renumbered: a number of the whole table would tell of rows elsewhere.
                here = np.zeros(int(codes.max()) + 1, np.bool_)
                here[codes[rows > 0]] = True
                numbers[split] = np.cumsum(here) - 1
        return SparkPlaced(
            self._session,
            self._placed,
            self._cells,
            self._written,
            filling,
            self._sizes,
            numbers,
            self._store,
        )

    def _column(self, name: str) -> str:
        return f"c{self._names.index(name)}"

    def _texts(self, name: str, entries: NDArray[np.int64], **more: Any) -> Any:
        """Returns a frame of entries by side and text, with further columns."""
        columns = [table.columns[name].values for table in self.tables]
        texts = pa.concat_arrays(columns).take(pa.array(entries))
        sealed = pa.array(entries >= self.entries(name))
        return frame_of(
            self._session, pa.table({"sealed": sealed, "text": texts, **more})
        )

    def _stays(self, left: Left) -> Any:
        """Returns the raw rows that are not left out."""
        sql = _KEPT.replace("{name}", self._column(left.name))
        texts = self._texts(left.name, np.flatnonzero(left.entries))
        return self._session.sql(sql, rows=self._raw, gone=texts)

    def _entries(
        self, name: str, texts: pa.ChunkedArray, sealed: pa.ChunkedArray
    ) -> NDArray[np.int64]:
        """Returns the entry (n,) of each text of a side.

        Raises:
            IntegrityError: a text that nobody has counted.
        """
        found = np.full(len(texts), -1)
        side = sealed.to_numpy()
        for number, table in enumerate(self.tables):
            mine, values = side == bool(number), table.columns[name].values
            index = pc.index_in(texts.filter(pa.array(mine)), value_set=values)
            found[mine] = pc.fill_null(index, -1).to_numpy()
            found[mine & (found >= 0)] += self.entries(name) * number
        if (found < 0).any():
            raise IntegrityError(
                f"The rows of {self.tables[0].origin} changed while Spark read them; "
                "start anew."
            )
        return found

    def _entry_counts(
        self, what: str, rows: Any, name: str, kinds: int
    ) -> NDArray[np.int64]:
        """Counts the rows of each entry by split, (entries, kinds)."""
        if (what, name) not in self._counts:
            first = self._names.index(name) // _TOGETHER * _TOGETHER
            some = dict(enumerate(self._names[first : first + _TOGETHER], first))
            cells = ", ".join(f"{i}, c{i}" for i in some)
            stacked = f"stack({len(some)}, {cells}) AS (name, text)"
            sql = _COUNTED.format(cells=stacked)
            found = self._session.sql(sql, rows=rows).toArrow()
            column = found["name"].to_numpy()
            for i, each in some.items():
                mine = found.filter(pa.array(column == i))
                entry = self._entries(each, mine["text"], mine["sealed"])
                of_all = sum(len(table.columns[each]) for table in self.tables)
                counts = np.zeros((of_all, kinds), np.int64)
                counts[entry, mine["split"].to_numpy()] = mine["rows"].to_numpy()
                self._counts[what, each] = counts
        # Whoever asks keeps it.
        return self._counts.pop((what, name))

    def _read(
        self,
        written: Written,
        strata: NDArray[np.int64],
        stays: NDArray[np.bool_],
        entity: Entity | None,
    ) -> Any:
        """Reads and hashes the rows that stay; returns the frame, which Spark keeps."""
        assert self._combined
        combined, label = self._combined, self._column(written.label)
        people = combined["people"].to_numpy()
        entry = self._entries(written.label, combined[label], combined["sealed"])
        change = np.zeros((len(people), 2), np.uint64)
        if written.change is not None:
            change = written.change[entry]
        few = combined.append_column(
            "stratum", pa.array(strata[people].astype(np.int32))
        )
        for half, word in zip(("high", "low"), change.T, strict=True):
            few = few.append_column(f"changed_{half}", pa.array(signed(word)))
        few = few.filter(pa.array(stays[people]))
        names = [n for n in few.column_names if n.startswith("c") and n[1:].isdigit()]
        frames = {"few": frame_of(self._session, few)}
        who, code = "", "CAST(NULL AS bigint)"
        if entity:
            who, code = _WHO.format(name=self._column(entity[0])), "who.code"
            every, codes = np.arange(len(entity[1])), pa.array(entity[1])
            frames["who"] = self._texts(entity[0], every, code=codes)
        texts = [f"c{i}" for i in range(len(self._names))]
        sql = _JOINED.format(
            entity=code,
            texts=", ".join(f"rows.{text}" for text in texts),
            on=" AND ".join(f"rows.{name} = few.{name}" for name in names),
            who=who,
        )
        joined = self._session.sql(sql, rows=self._raw, **frames)
        self._cells = RawCells.of(self.tables, written, self._missing)
        kinds = [
            *("at bigint", "sealed boolean", "people bigint", "stratum int"),
            *("entity bigint", *(f"{text} string" for text in texts)),
            *("high bigint", "same_high bigint", "low bigint", "same_low bigint"),
        ]
        return checkpointed(mapped(joined, self._cells.hashed, ", ".join(kinds)))
