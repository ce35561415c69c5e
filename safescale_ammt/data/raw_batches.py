"""Raw rows for a prediction in batches: as a whole table is read, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.raw_rows import (
    check_columns,
    image_spool,
    in_encoding,
    raw_layout,
    typed_feature,
    typed_features,
)
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import DataError
from safescale_ammt.files.regular import open_given
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.number_forms import NumberForm
from safescale_ammt.reading.scratch import Scratch
from safescale_ammt.reading.sources import ALL, spool_stream, spool_table
from safescale_ammt.reading.spool import Spool


def raw_spool(
    schema: Schema,
    source: str | Path | bytes | BinaryIO,
    scratch: Path,
    keep: tuple[str, ...] = (),
    origin: str = "the given rows",
) -> Spool:
    """Reads raw rows for a prediction once; as `raw_table` does, whatever their number.

    Args:
        schema: the model's schema.
        source: a path, a URI, bytes, or an open stream, of a CSV or Parquet file.
        scratch: a private folder that outlives the spool.
        keep: columns that are wanted as the file has them.
        origin: what bytes and a stream are called in a sentence.

    Raises:
        DataError: the rows are unreadable.
        StorageError: the scratch folder's disk is full.
    """
    if schema.image:
        given = source if isinstance(source, (str, Path, bytes)) else source.read()
        return image_spool(schema, given, origin)
    layout = raw_layout(schema, keep)
    if isinstance(source, (str, Path)) and "://" in str(source):
        return in_encoding(
            schema,
            layout,
            lambda layout: spool_table(str(source), layout, ALL, scratch),
        )
    if isinstance(source, (str, Path)):
        try:
            with open_given(Path(source)) as file:
                return raw_spool(schema, file, scratch, keep, str(source))
        except OSError as error:
            raise DataError(f"{source} cannot be read ({error.strerror}).") from None
    if isinstance(source, bytes):
        return raw_spool(schema, io.BytesIO(source), scratch, keep, origin)
    if not schema.dialect.get("encoding"):
        # Nothing is read twice: what comes through a pipe comes once.
        return spool_stream(source, origin, layout, scratch)

    def reread(layout: Layout) -> Spool:
        copy.seek(0)
        return spool_stream(copy, origin, layout, scratch)

    with Scratch(scratch).copied(source, origin) as (copy, _):
        return in_encoding(schema, layout, reread)


def typed_batches(schema: Schema, spool: Spool) -> Iterator[tuple[RawTable, pa.Table]]:
    """Yields the batches of a spool, and the schema's feature columns of each, typed.

    What is refused, and by which sentence, is as in `typed_features` of all rows.

    Raises:
        DataError: a needed column is missing, or a numeric column holds a text.
    """
    check_columns(schema, spool.outline)
    # Whether a point parts thousands is told by rows of any batch.
    commas = [
        feature.name
        for feature in schema.features
        if isinstance(form := schema.form(feature.name), NumberForm)
        and form.decimal == ","
    ]
    try:
        check_whole(schema, spool, commas)
        for batch in spool.batches():
            features = typed_features(schema, batch)
            yield batch, features
    except DataError:
        # Its sentence counts the rows of a batch, or speaks of a later column than the
        # first that all rows have something wrong in.
        check_whole(schema, spool, schema.names)
        raise


def check_whole(schema: Schema, spool: Spool, names: Collection[str]) -> None:
    """Types columns of all rows, of which one at a time has to fit in memory.

    Raises:
        DataError: a text that is no number or date of the feature's form.
    """

    def first_row(mask: NDArray[np.bool_]) -> str:
        return f"data row {int(np.argmax(mask)) + 1} of {spool.origin}"

    for feature in schema.features:
        if feature.name in names:
            column = spool.table([feature.name]).columns[feature.name]
            typed_feature(schema, feature, column, first_row, spool.contents)
