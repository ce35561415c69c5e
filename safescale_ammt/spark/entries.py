"""The distinct texts of columns in Spark, with the rows that each stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.spark.reading import SparkRows

# Counted where they lie before they are shuffled: a row costs nothing, a text does.
_COUNTED = """
SELECT name, text, count(*) AS rows FROM {cells} GROUP BY name, text
ORDER BY name, min(at), text
"""


def entries_of(session: Any, rows: SparkRows, frame: Any) -> RawTable:
    """Returns the entries of every column, as `data.coded_rows` has them.

    They are in the order in which the rows have them first, and have to fit in the
    driver's memory.

    Args:
        session: of Spark Connect.
        rows: of one source.
        frame: of these rows.
    """
    names = [*rows.outline.columns]
    cells = ", ".join(f"{i}, c{i}" for i in range(len(names)))
    stacked = f"stack({len(names)}, {cells}) AS (name, text)"
    found = session.sql(_COUNTED, cells=frame.selectExpr("at", stacked)).toArrow()
    column = found["name"].to_numpy()
    ends = np.searchsorted(column, np.arange(len(names) + 1))
    columns = {}
    for name, start, end in zip(names, ends[:-1], ends[1:], strict=True):
        texts = found["text"][start:end].combine_chunks()
        weights = found["rows"][start:end].to_numpy()
        codes = np.arange(len(texts), dtype=np.int32)
        columns[name] = Column(codes, texts.cast(pa.string()), weights)
    return replace(rows.outline, columns=columns, rows=rows.rows)
