"""Typed columns as text: what a Parquet file says, as a CSV file would say it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.errors import DataError
from safescale_ammt.reading.number_forms import marked_codes

_CODED = pa.dictionary(pa.int32(), pa.string())
# Of these types no two values have one text.
_TOLD_APART = (
    *(pa.bool_(), pa.float32(), pa.float64()),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
)
# What Arrow writes in place of a time outside the years 1 to 9999.
_NO_TIME = "<value out of range"


def as_texts(column: pa.ChunkedArray, name: str, origin: str) -> pa.ChunkedArray:
    """Spells a typed column; a NaN is a gap, as CSV writers take it.

    Args:
        column: booleans, numbers, times or texts, or a dictionary of such values.
        name: of the column, for the sentence.
        origin: of the file, for the sentence.

    Returns:
        Dictionary-coded text; null stays null.

    Raises:
        DataError: a value that has no text.
    """
    texts = coded_texts(column, name, origin)
    check_times(times_outside(column.type, texts), name, origin)
    return texts


def coded_texts(column: pa.ChunkedArray, name: str, origin: str) -> pa.ChunkedArray:
    """Spells a column as `as_texts` does; times outside the years have a text of Arrow.

    Raises:
        DataError: a value that has no text.
    """
    kind = column.type
    try:
        # Texts are never written out: a column of one long text would take it in every
        # row. Of all else the distinct values are spelled, which are fewer than rows.
        coded = pa.chunked_array([_coded(chunk) for chunk in column.chunks], _CODED)
    except pa.ArrowException:
        # Arrow's own message may quote a value: it is not passed on.
        raise DataError(
            f"Column {name!r} of {origin} holds {kind}, and a value of it has "
            "no spelling as text; write the column as numbers or text."
        ) from None
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    # A form that the development rows have for texts reads 1.234 as 1,234 perhaps.
    fractions = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return marked_codes(coded) if fractions else coded


def times_outside(kind: pa.DataType, texts: pa.ChunkedArray) -> int:
    """Counts the rows of a column of some type whose time Arrow cannot spell."""
    if not pa.types.is_timestamp(kind):
        return 0
    outside = (
        pc.sum(pc.starts_with(c.dictionary, _NO_TIME).take(c.indices)).as_py() or 0
        for c in texts.chunks
    )
    return sum(outside)


def check_times(outside: int, name: str, origin: str) -> None:
    """Refuses a column with times outside the years that have a text.

    Raises:
        DataError: there are some.
    """
    if outside:
        raise DataError(
            f"Column {name!r} of {origin} has {outside} times outside the years "
            "1 to 9999; write them as missing."
        )


def _coded(values: pa.Array) -> pa.DictionaryArray:
    """Spells the few distinct values that rows have, in the order of the rows."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        # A category without a row would be a class or a level without one.
        used = pc.unique(values.indices).drop_null()
        codes, distinct = pc.index_in(values.indices, used), values.dictionary
        texts = _texts(distinct.take(used))
        # No reader of Parquet looks whether a text is one.
        texts.validate(full=True)
    elif pa.types.is_decimal(kind) or (
        pa.types.is_primitive(kind) and not pa.types.is_float16(kind)
    ):
        coded = pc.dictionary_encode(values)
        codes, texts = coded.indices, _texts(coded.dictionary)
    else:
        return pc.dictionary_encode(_texts(values))
    if texts.null_count or not (kind in _TOLD_APART or pa.types.is_decimal(kind)):
        # A NaN has no text, as a gap has none; two values of a writer may have one.
        spelled = pc.dictionary_encode(texts)
        codes, texts = spelled.indices.take(codes), spelled.dictionary
    return pa.DictionaryArray.from_arrays(codes, texts)


def _texts(values: pa.Array) -> pa.StringArray:
    kind = values.type
    if pa.types.is_float16(kind):
        # Arrow spells a half as the double it equals, 0.0999755859375 for 0.1.
        coded = pc.dictionary_encode(pc.cast(values, pa.float32()))
        halves = coded.dictionary.to_numpy().astype(np.float16)
        words = pa.array([None if np.isnan(h) else str(h) for h in halves], pa.string())
        return words.take(coded.indices)
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
    if pa.types.is_timestamp(kind) and kind.tz:
        # The same instants: the zone is how a reader likes to see them.
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    return pc.cast(values, pa.string())
