"""Arrow tables as frames of Spark, and functions of their batches in its workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from safescale_ammt.spark.faults import Batches, guarded

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

    `persist` would not do: where such a frame is named in SQL, Spark 4.3 does not know
    functions of Python again, and runs them anew (findings/spark-persist-in-sql.sh).
    An executor that is lost takes its part along, and the run ends. On disk rows are
    as they are sent, a third of what they are in memory (`spark.rdd.compress`).
    """
    from pyspark.storagelevel import StorageLevel

    return frame.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY)
