"""Reads the bytes of one Parquet file, or says why not without a value of it."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq

from safescale_ammt.errors import DataError

# What pyarrow says and no row can be in. Its numbers may be values: they are hidden.
_SAFE_REASONS = re.compile(
    r"(Integer value [-\d]+ not in range"
    r"|Unexpected end of stream"
    r"|Corrupt \w+ compressed data"
    r"|could not verify page integrity"
    r"|Unknown encoding type"
    r"|Not yet implemented: [A-Za-z ]{1,60}"
    r"|Nested data conversions not implemented)"
)


def parse_parquet(data: bytes, origin: str) -> pa.Table:
    """Parses a Parquet file.

    Args:
        data: the whole file: the list of its columns is a footer at the end.
        origin: the file, for the sentence.

    Raises:
        DataError: the footer is not there, or pyarrow refuses what it describes.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError):
        raise DataError(
            f"{origin} is not a whole Parquet file ({len(data)} bytes)."
        ) from None
    try:
        return file.read()
    except (pa.ArrowException, OSError) as error:
        said = _SAFE_REASONS.search(str(error))
        reason = re.sub(r"-?\d+", "...", said.group()) if said else ""
        raise DataError(
            f"{origin} is a whole Parquet file that pyarrow {pa.__version__} refuses "
            f"({type(error).__name__}{': ' if reason else ''}{reason}); write it anew "
            "with plain text in place of dictionaries (categories)."
        ) from None
