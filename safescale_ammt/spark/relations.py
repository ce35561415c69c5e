"""Relations of rows in frames of Spark; the answers are those of `data.buckets`.

They are the same whatever the number of Spark's partitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.relations import RowFacts, Times
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.spark.keys import signed, unsigned

_PART = 1 << 20
FACTS = pa.schema(
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


def times_of(session: Any, rows: Any) -> Iterator[Times]:
    """Counts the rows of every distinct key, in parts of no order.

    Args:
        session: of Spark Connect.
        rows: a frame of `key` (bigint) and `asked` (boolean).
    """
    # Few pairs of counts differ, however many keys there are.
    for row in session.sql(_TIMES, rows=rows).toArrow().to_pylist():
        for start in range(0, row["keys"], _PART):
            some = min(_PART, row["keys"] - start)
            yield np.full(some, row["times"]), np.full(some, row["asked"])


def hashes_of(found: pa.Table) -> NDArray[np.void]:
    """Returns the hashes V16 (n,) of which a table has `high` and `low`."""
    halves = [unsigned(found[name].to_numpy()) for name in ("high", "low")]
    return np.ascontiguousarray(np.stack(halves, axis=1)).view(ROW)[:, 0]


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
    table = pa.table([at, high, low, stratum, batch.sealed, entity], FACTS)
    return table if batch.absent is None else table.filter(pa.array(~batch.absent))
