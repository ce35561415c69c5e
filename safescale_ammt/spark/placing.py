"""The placement of rows as Spark's joins and windows, from frame to frame.

What `data.placing` does bucket by bucket is done here of a whole frame, with the same
answers: all order is by a row's number in its table, never by where Spark holds it.
Windows are of equal rows, of an entity's rows, or of a narrow range of keys: none is
of a whole table, and Spark sorts on disk what is too much for memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from safescale_ammt.data.relations import REMOVED, SEALED_CODE, Rule
from safescale_ammt.data.splitting import words
from safescale_ammt.data.table import PlaceCounts
from safescale_ammt.spark.frames import frame_of, mapped
from safescale_ammt.spark.keys import signed, with_keys

FREE, JUDGED, COPY, REPEAT, JUDGED_REPEAT = range(5)
"""Fates of rows: drawn, sealed, also sealed, repeated, sealed and repeated."""
GONE = REMOVED + 1
"""Place of a row that nobody draws: a copy, or a repeat."""

_ROW = "at bigint, high bigint, low bigint, stratum int, entity bigint, number bigint"
_KEYED = f"{_ROW}, key bigint"

# One shuffle serves both windows: rows that are equal lie together.
_FATES = """
SELECT at, high, low, stratum, entity, number, CASE
    WHEN sealed AND number > 0 AND :once THEN :judged_repeat WHEN sealed THEN :judged
    WHEN number > 0 AND :once THEN :repeat WHEN known THEN :copy ELSE :free
  END AS fate
FROM (
  SELECT *,
    row_number() OVER (PARTITION BY high, low, sealed ORDER BY at) - 1L AS number
  FROM (SELECT *, max(sealed) OVER (PARTITION BY high, low) AS known FROM {rows}))
"""
_SHARED = """
SELECT count(*) AS shared FROM (SELECT entity FROM {rows} GROUP BY entity
  HAVING bool_or(fate = :free) AND bool_or(fate IN (:judged, :judged_repeat)))
"""
_UNITS = """
SELECT rows.entity AS at, first(words.high) AS high, 0L AS low,
  min(stratum) AS stratum, rows.entity, 0L AS number
FROM {rows} AS rows JOIN {words} AS words ON rows.entity = words.entity
GROUP BY rows.entity
"""
# Keys are uniform: their leading bits make buckets of one size, as `data.buckets` has.
# The doubles are those of `splitting.ranked_splits`, operation by operation.
_RANKED = """
WITH units AS (SELECT *, shiftright(key, :shift) AS bucket FROM {units}),
counted AS (SELECT bucket, stratum, count(*) AS n FROM units GROUP BY bucket, stratum),
ranks AS (SELECT bucket, stratum, sum(n) OVER (PARTITION BY stratum) AS size,
  sum(n) OVER (PARTITION BY stratum ORDER BY bucket) - n AS before FROM counted)
SELECT at, high, low, entity, (CAST(before + row_number() OVER (
    PARTITION BY units.bucket, units.stratum ORDER BY key, at) - 1L AS DOUBLE)
  + CAST(key & 4294967295L AS DOUBLE) / 4294967296D) / CAST(size AS DOUBLE) AS quantile
FROM units JOIN ranks ON units.bucket = ranks.bucket AND units.stratum = ranks.stratum
"""
_OF_ENTITIES = """
SELECT rows.at, rows.high, rows.low, rows.entity, units.split
FROM {rows} AS rows JOIN {units} AS units ON rows.entity = units.at
"""
_JUDGED = """
SELECT at, high, low, 0 AS stratum, entity,
  row_number() OVER (PARTITION BY high, low ORDER BY at) - 1L AS number FROM {rows}
"""
_THINNED = """
SELECT at, CASE WHEN row_number() OVER (PARTITION BY entity ORDER BY key, at) = 1
  THEN :judged ELSE :removed END AS split, false AS first FROM {rows}
"""
_FIRSTS = """
SELECT at, split, row_number() OVER (PARTITION BY high, low ORDER BY at) = 1 AS first
FROM {rows}
"""


@dataclass(frozen=True)
class Drawing:
    """Places frames of rows by a rule.

    A frame of rows has `at` (number in the table, bigint), `high` and `low` (the row's
    hash as two bigint), `stratum` (int), `sealed` (boolean) and `entity` (bigint; null
    if rows are units).

    Attributes:
        session: of Spark.
        rule: of the placement.
        bits: leading bits of a key that make its bucket, at least 1.
    """

    session: Any
    rule: Rule
    bits: int

    def fates(self, rows: Any) -> Any:
        """Tells sealed rows, copies of them, repeats and the others apart.

        Returns:
            A frame of the rows with `fate`, and `number` among the equals of a side.
        """
        fates = {"free": FREE, "judged": JUDGED, "copy": COPY, "repeat": REPEAT}
        fates |= {"judged_repeat": JUDGED_REPEAT, "once": self.rule.drop_duplicates}
        return self.session.sql(_FATES, fates, rows=rows)

    def shared(self, fates: Any) -> int:
        """Counts the entities on both sides; with one, nothing is drawn."""
        if self.rule.entities is None:
            return 0
        codes = {"free": FREE, "judged": JUDGED, "judged_repeat": JUDGED_REPEAT}
        return int(self.session.sql(_SHARED, codes, rows=fates).first()["shared"])

    def judged(self, fates: Any) -> Any:
        """Returns the rows that are sealed before anything is drawn, with `split`."""
        return fates.where(f"fate = {JUDGED}").selectExpr(
            "at", "high", "low", "entity", f"{SEALED_CODE} AS split"
        )

    def drawn(self, fates: Any) -> Any:
        """Draws splits; returns `at`, `split` and `first` of rows that were not left.

        Args:
            fates: of the rows, see `fates`.
        """
        free, entities = fates.where(f"fate = {FREE}").drop("fate"), self.rule.entities
        if entities is None:
            placed = self.cut(free)
        else:
            half = pa.array(signed(words(entities)[0]))
            known = pa.table({"entity": range(len(entities)), "high": half})
            known = frame_of(self.session, known)
            units = self.cut(self.session.sql(_UNITS, rows=free, words=known))
            placed = self.session.sql(_OF_ENTITIES, rows=free, units=units)
        placed = placed.union(self.judged(fates))
        judged = placed.where(f"split = {SEALED_CODE}")
        if entities is None:
            judged = judged.selectExpr("at", "split", "false AS first")
        else:
            judged = self.thinned(judged)
        developed = placed.where(f"split < {SEALED_CODE}")
        return self.session.sql(_FIRSTS, rows=developed).union(judged)

    def cut(self, units: Any) -> Any:
        """Cuts every stratum into splits, by the ranks of its units' keys.

        Returns:
            A frame of `at`, `high`, `low`, `entity` and `split`.
        """
        keyed = self.keyed(units, f"split {self.rule.seed}")
        ranked = self.session.sql(_RANKED, {"shift": 64 - self.bits}, units=keyed)
        cuts = [float(cut) for cut in accumulate(self.rule.fractions)][:-1]
        beyond = " + ".join(f"int(quantile >= {cut!r}D)" for cut in cuts)
        split = f"{beyond} AS split"
        return ranked.selectExpr("at", "high", "low", "entity", split)

    def thinned(self, judged: Any) -> Any:
        """Draws one sealed row of every entity; the others are removed."""
        units = self.keyed(self.session.sql(_JUDGED, rows=judged), "row of an entity")
        codes = {"judged": SEALED_CODE, "removed": REMOVED}
        return self.session.sql(_THINNED, codes, rows=units)

    def keyed(self, units: Any, purpose: str) -> Any:
        """Adds their keys of a draw to units."""
        return mapped(units, partial(with_keys, purpose=purpose), _KEYED)


def place_counts(
    summed: pa.Table, combinations: int, counted: Sequence[Any]
) -> PlaceCounts:
    """Returns how many rows went where.

    Args:
        summed: `rows` and `firsts` of each combination (`people`) and place (`split`).
        combinations: how many there are.
        counted: the `count` of each `fate`.
    """
    counts = np.zeros((combinations, GONE + 1), np.int64)
    people, split = (summed[name].to_numpy() for name in ("people", "split"))
    counts[people, split] = summed["rows"].to_numpy()
    firsts = int(summed["firsts"].to_numpy()[split < SEALED_CODE].sum())
    of_fate = {row["fate"]: row["count"] for row in counted}
    return PlaceCounts(
        counts[:, :REMOVED],
        int(counts[:, :SEALED_CODE].sum()) - firsts,
        of_fate.get(COPY, 0),
        (of_fate.get(REPEAT, 0), of_fate.get(JUDGED_REPEAT, 0)),
        int(counts[:, REMOVED].sum()),
    )
