"""Relations of rows that a driver holds, answered by Spark.

The answers are those of `data.buckets`, whatever the number of Spark's partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.buckets import BUCKET_ROWS
from safescale_ammt.data.relations import (
    REMOVED,
    Keyed,
    Placed,
    RowFacts,
    Rule,
    Times,
)
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.spark.frames import frame_of
from safescale_ammt.spark.keys import signed, unsigned
from safescale_ammt.spark.placing import COPY, JUDGED_REPEAT, REPEAT, Drawing

_PART = 1 << 20
_FACTS = pa.schema(
    [
        *((name, pa.int64()) for name in ("at", "high", "low")),
        *(("stratum", pa.int32()), ("sealed", pa.bool_()), ("entity", pa.int64())),
    ]
)
_TIMES = """
SELECT times, asked, count(*) AS keys FROM (
  SELECT count(*) AS times, count_if(asked) AS asked FROM {rows} GROUP BY key)
GROUP BY times, asked
"""


@dataclass(frozen=True)
class SparkRelations:
    """Relations of rows, see `data.relations.Relations`.

    Attributes:
        session: of Spark Connect.
        rows: of the table, about; they say into how many ranges keys are cut.
        bucket_rows: rows of a range, about.
    """

    session: Any
    rows: int
    bucket_rows: int = BUCKET_ROWS

    def place(self, facts: Callable[[], Iterable[RowFacts]], rule: Rule) -> Placed:
        """Places every row; a development row that is also sealed is removed."""
        rows, tables = 0, [_FACTS.empty_table()]
        for batch in facts():
            tables.append(facts_table(batch, rows))
            rows += len(batch.rows)
        frame = frame_of(self.session, pa.concat_tables(tables))
        bits = max(1, (max(0, self.rows - 1) // self.bucket_rows).bit_length())
        drawing = Drawing(self.session, rule, bits)
        # Looked at thrice; whole numbers alone, which Spark keeps as they are.
        fates = drawing.fates(frame).persist()
        try:
            counted = fates.groupBy("fate").count().collect()
            shared = drawing.shared(fates)
            found = drawing.undrawn(fates) if shared else drawing.drawn(fates)
            found = found.toArrow()
        finally:
            fates.unpersist()
        counts = {row["fate"]: row["count"] for row in counted}
        split, first = np.full(rows, REMOVED, np.uint8), np.zeros(rows, np.bool_)
        at, place = found["at"].to_numpy(), found["split"].to_numpy()
        split[at], first[at] = place, found["first"].to_numpy()
        return Placed(
            split,
            first,
            counts.get(COPY, 0),
            (counts.get(REPEAT, 0), counts.get(JUDGED_REPEAT, 0)),
            int(np.count_nonzero(place == REMOVED)),
            shared,
        )

    def times(self, batches: Iterable[Keyed]) -> Iterator[Times]:
        """Counts the rows of every distinct key, in parts of no order."""
        kind = pa.schema([("key", pa.int64()), ("asked", pa.bool_())])
        tables = [kind.empty_table()]
        for keys, asked in batches:
            tables.append(pa.table([pa.array(signed(keys)), asked], kind))
        return self.times_in(frame_of(self.session, pa.concat_tables(tables)))

    def times_in(self, frame: Any) -> Iterator[Times]:
        """Counts as `times` does, of a frame with `key` and `asked`."""
        # Few pairs of counts differ, however many keys there are.
        found = self.session.sql(_TIMES, rows=frame).toArrow()
        for row in found.to_pylist():
            for start in range(0, row["keys"], _PART):
                some = min(_PART, row["keys"] - start)
                yield np.full(some, row["times"]), np.full(some, row["asked"])

    def distinct(self, batches: Iterable[NDArray[np.void]]) -> NDArray[np.void]:
        """Returns the distinct hashes V16 (k,), sorted by their bytes."""
        kind = pa.schema([("high", pa.int64()), ("low", pa.int64())])
        tables = [kind.empty_table()]
        for rows in batches:
            # By its bytes a hash is a number that begins with its first byte.
            halves = [pa.array(signed(word.byteswap())) for word in words(rows)]
            tables.append(pa.table(halves, kind))
        return self.distinct_in(frame_of(self.session, pa.concat_tables(tables)))

    def distinct_in(self, frame: Any) -> NDArray[np.void]:
        """Returns as `distinct` does, of a frame with `high` and `low` of bytes."""
        found = frame.distinct().orderBy("high", "low").toArrow()
        halves = [unsigned(found[n].to_numpy()).byteswap() for n in ("high", "low")]
        return np.stack(halves, axis=1).view(ROW)[:, 0]


def facts_table(batch: RowFacts, start: int) -> pa.Table:
    """Returns the rows of a batch that stay, as `spark.placing` wants them.

    Args:
        batch: of rows.
        start: number of its first row.
    """
    high, low = (pa.array(signed(word)) for word in words(batch.rows))
    at = pa.array(np.arange(start, start + len(batch.rows)))
    entity = batch.entity
    if entity is None:
        entity = pa.nulls(len(batch.rows), pa.int64())
    stratum = pa.array(batch.stratum.astype(np.int32))
    table = pa.table([at, high, low, stratum, batch.sealed, entity], _FACTS)
    return table if batch.absent is None else table.filter(pa.array(~batch.absent))
