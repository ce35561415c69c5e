"""Arrow tables as frames of Spark, and functions of their batches in its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from safescale_ammt.spark.faults import Batches, guarded

# Positions of a range: rows are counted by ranges to find where parts end.
_RANGE_BITS = 20
_RANGES = """
SELECT shiftright(at, :bits) AS part, count(*) AS rows FROM {rows}
GROUP BY part ORDER BY part
"""
_TYPES = {
    pa.int64(): "bigint",
    pa.int32(): "int",
    pa.bool_(): "boolean",
    pa.string(): "string",
}


def frame_of(session: Any, table: pa.Table) -> Any:
    """Hands a table to Spark by declared types; it may have no row.

    Args:
        session: of Spark Connect.
        table: whole numbers, booleans and texts.
    """
    # Spark looks at rows for the types, but where there is none.
    kinds = (f"{field.name} {_TYPES[field.type]}" for field in table.schema)
    return session.createDataFrame(table if len(table) else [], ", ".join(kinds))


def mapped(frame: Any, function: Callable[[Batches], Batches], kinds: str) -> Any:
    """Runs a function of batches in Spark's workers, which tell a fault in a sentence.

    Args:
        frame: of rows.
        function: from batches to batches.
        kinds: the columns that it gives, as Spark declares them.
    """
    return frame.mapInArrow(guarded(function), kinds)


def checkpointed(frame: Any) -> Any:
    """Lets Spark work out a frame now, and keep it until nobody here refers to it.

    `persist` would not do: Spark 4.3 forgets what it keeps of a frame as soon as SQL
    is given it by name (findings/spark-persist-in-sql.sh).
    An executor that is lost takes its part along, and the run ends. On disk rows are
    as they are sent, a third of what they are in memory (`spark.rdd.compress`).
    """
    from pyspark.storagelevel import StorageLevel

    return frame.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY)


def ordered_parts(session: Any, frame: Any, most: int) -> Iterator[pa.Table]:
    """Yields the rows of a frame in order, some ranges of positions at a time.

    Args:
        session: of Spark Connect.
        frame: with `at`, which Spark keeps.
        most: rows of a part, unless one range has more.
    """
    ranges = session.sql(_RANGES, {"bits": _RANGE_BITS}, rows=frame).toArrow()
    bounds, held = [0], 0
    for row in ranges.to_pylist():
        if held and held + row["rows"] > most:
            bounds.append(row["part"] << _RANGE_BITS)
            held = 0
        held += row["rows"]
    for start, end in zip(bounds, [*bounds[1:], 1 << 62], strict=True):
        yield frame.where(f"at >= {start} AND at < {end}").orderBy("at").toArrow()
