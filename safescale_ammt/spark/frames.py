"""Arrow tables as frames of Spark."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

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
