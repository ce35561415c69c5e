"""Raw rows as typed feature columns, by one code path for training and prediction."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.image_entries import as_images
from safescale_ammt.data.schema import Feature, ImageFeature, Schema
from safescale_ammt.errors import DataError
from safescale_ammt.files.regular import open_given
from safescale_ammt.reading.byte_streams import EncodingError, read_whole
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.date_forms import instants
from safescale_ammt.reading.dialect import DELIMITERS
from safescale_ammt.reading.image_cells import Contents
from safescale_ammt.reading.image_sources import given_images
from safescale_ammt.reading.images import ImageLayout
from safescale_ammt.reading.number_forms import NumberForm
from safescale_ammt.reading.readings import Form, read_as
from safescale_ammt.reading.sources import parse_bytes, read_table
from safescale_ammt.reading.spelling import spelled_as, without_marks
from safescale_ammt.reading.spool import Spool

# Absent columns that a sentence names; an application may lack hundreds.
_MOST_NAMED = 10

Read = TypeVar("Read")
LARGEST = 1e150
"""Largest magnitude of a number: its square is finite, and so is a variance."""


def as_levels(column: Column, missing: Collection[str]) -> pa.StringArray:
    """Returns a categorical feature column: text, null where missing."""
    absent = pc.is_in(column.values, value_set=pa.array(list(missing), pa.string()))
    texts = pc.if_else(absent, pa.scalar(None, pa.string()), column.values)
    return texts.take(pa.array(column.codes))


FirstRow = Callable[[NDArray[np.bool_]], str]
"""Names the first row of the entries of a column in a mask (n,), for a sentence."""


def as_numbers(
    column: Column, name: str, missing: Collection[str], first_row: FirstRow
) -> pa.DoubleArray:
    """Returns a numeric feature column: float64, null where missing.

    Args:
        column: texts.
        name: column name, for the sentence.
        missing: spellings of a missing value.
        first_row: names the first of some rows.

    Raises:
        DataError: a text that is no number, or a number that is not finite or
            beyond `LARGEST`.
    """
    numbers = column.numbers(missing)
    if numbers is None:
        wrong = column.non_numbers(missing)
        rows = column.rows(wrong)
        others = f", the first of {rows}" if rows > 1 else ""
        raise DataError(
            f"Numeric column {name!r} has a text that is no number at "
            f"{first_row(wrong)}{others}; declare the column categorical or add the "
            "text to data.missing."
        )
    absent = column.among(missing)
    # "nan" and "inf" are numbers to Arrow's parser; one of them in a row would make
    # every mean of its column, and so every input, useless. So would the largest
    # doubles, with which some programs mark a gap.
    useless = ~absent & ~(np.abs(numbers) <= LARGEST)
    if useless.any():
        raise DataError(
            f"Numeric column {name!r} has {column.rows(useless)} NaN, infinite or huge "
            f"(beyond {LARGEST:g}) values, the first at {first_row(useless)}; a "
            "missing value has one of the spellings in data.missing."
        )
    return pa.array(numbers, mask=absent)


def as_form(
    column: Column,
    name: str,
    form: Form,
    missing: Collection[str],
    first_row: FirstRow,
    *,
    border: int = 0,
) -> pa.Array:
    """Returns a feature column that is read by a form: float64 or timestamp (n,).

    Args:
        column: texts.
        name: column name, for the sentence.
        form: of the development rows.
        missing: spellings of a missing value.
        first_row: names the first of some rows.
        border: entries before it are of another source than the others.

    Raises:
        DataError: a text of another form, or one that may be of another.
    """
    if isinstance(form, NumberForm):
        source = np.arange(len(column)) < border
        for side in (source, ~source):
            refuse_unsure(column, name, form, side, first_row)
    read, wrong = read_as(column, form, missing)
    if wrong.any():
        raise DataError(
            f"Column {name!r} has {column.rows(wrong)} values of another form than "
            f"{form}, the first at {first_row(wrong)}; write them so, "
            "name what is a missing value in data.missing, or declare the column's "
            "form (data.numbers, data.dates) or categorical."
        )
    if isinstance(form, NumberForm):
        return as_numbers(read, name, missing, first_row)
    return instants(as_levels(read, missing))


def refuse_unsure(
    column: Column,
    name: str,
    form: NumberForm,
    side: NDArray[np.bool_],
    first_row: FirstRow,
) -> None:
    """Refuses rows of one source of which some may have a decimal point: `1.234`.

    Raises:
        DataError: such rows.
    """
    part = column.take(side)
    unsure = np.asarray(form.unsure(part.values), bool)[part.codes]
    if unsure.any():
        those = side.copy()
        those[side] = unsure
        raise DataError(
            f"Column {name!r} has {part.rows(unsure)} values of which nobody knows "
            "whether their point parts thousands, the first at "
            f"{first_row(those)}: other values there have a "
            f"decimal point, and the column is read as {form}; write them all so."
        )


def read_raw(schema: Schema, source: str | Path | bytes) -> pa.Table:
    """Reads raw rows and returns the schema's feature columns, typed.

    See `raw_table` and `typed_features`.
    """
    return typed_features(schema, raw_table(schema, source))


def raw_table(
    schema: Schema,
    source: str | Path | bytes,
    keep: tuple[str, ...] = (),
    origin: str = "the given rows",
) -> RawTable:
    """Reads raw rows for a prediction: label and sensitive columns are optional.

    A file has a header, or, without one, all the schema's columns in their order
    (with or without the label).

    Args:
        schema: the model's schema.
        source: a path, a URI, or the bytes of a CSV or Parquet file.
        keep: columns that are wanted as the file has them.
        origin: what bytes are called in a sentence.

    Raises:
        DataError: the rows are unreadable.
    """
    if schema.image:
        return image_spool(schema, source, origin).table()
    layout = raw_layout(schema, keep)
    return in_encoding(schema, layout, lambda layout: table_of(source, layout, origin))


def image_spool(schema: Schema, source: str | Path | bytes, origin: str) -> Spool:
    """Reads images for a prediction, of any form.

    Args:
        schema: the model's schema.
        source: a path or URI of a file or folder, or the bytes of a file.
        origin: what bytes are called in a sentence.

    Raises:
        DataError: there are no images.
    """
    dialect = schema.dialect
    layout = ImageLayout(
        "", images=dialect.get("images", ""), channels=dialect.get("channels", "last")
    )
    return given_images(source, origin, layout)


def raw_layout(schema: Schema, keep: tuple[str, ...] = ()) -> Layout:
    """Returns how rows for a prediction are read.

    Args:
        schema: the model's schema.
        keep: columns that are wanted as the file has them.
    """
    numeric = {f.name for f in schema.features if f.kind == "numeric"}
    unlabelled = tuple(name for name in schema.columns if name != schema.label)
    # The file's dialect is found out anew; what the config declared for training
    # decides only where the file leaves it open.
    declared = schema.dialect.get("delimiter", "")
    decimal = schema.dialect.get("decimal", "")
    return Layout(
        comment=schema.comment,
        missing=schema.missing,
        chosen=frozenset((*schema.columns, *keep)),
        texts=frozenset((*schema.columns, *keep)) - (numeric - set(schema.readings)),
        orders=(schema.columns, unlabelled),
        delimiters=tuple(dict.fromkeys((*DELIMITERS, declared or ","))),
        decimal=decimal if declared == "," else "",
        decimal_apart=decimal,
        keep=keep,
    )


def in_encoding(schema: Schema, layout: Layout, read: Callable[[Layout], Read]) -> Read:
    """Reads rows as UTF-8 or, if they are not, in the encoding of the training rows.

    Raises:
        EncodingError: they are in neither.
    """
    try:
        return read(layout)
    except EncodingError:
        # UTF-8 first, which no other text is by chance; then what trained the model.
        encoding = schema.dialect.get("encoding", "")
        if not encoding:
            raise
        return read(replace(layout, encoding=encoding))


def typed_features(schema: Schema, table: RawTable) -> pa.Table:
    """Returns the schema's feature columns of a raw table, typed.

    Raises:
        DataError: a needed column is missing, or a numeric column holds a text.
    """
    check_columns(schema, table)

    def first_row(mask: NDArray[np.bool_]) -> str:
        return f"data row {table.start + int(np.argmax(mask)) + 1} of {table.origin}"

    typed = {
        feature.name: typed_feature(
            schema, feature, table.columns[feature.name], first_row, table.contents
        )
        for feature in schema.features
    }
    return pa.table(typed)


def check_columns(schema: Schema, table: RawTable) -> None:
    """Refuses rows without a column that the model needs.

    Raises:
        DataError: such rows.
    """
    absent = [name for name in schema.names if name not in table.columns]
    if absent:
        head = f"the column {absent[0]!r}, which the model needs"
        if len(absent) > 1:
            named = ", ".join(map(repr, absent[:_MOST_NAMED]))
            more = len(absent) - _MOST_NAMED
            head = (
                f"{len(absent)} of the {len(schema.names)} columns that the model "
                f"needs: {named}" + (f" and {more} more" if more > 0 else "")
            )
        near = (table.near(name, schema.columns) for name in absent)
        raise DataError(f"{table.origin} lacks {head}{next(filter(None, near), '')}.")


def typed_feature(
    schema: Schema,
    feature: Feature,
    column: Column,
    first_row: FirstRow,
    contents: Contents,
) -> pa.Array:
    """Returns one feature column of raw rows, typed as the schema says.

    The schema decides which column is numeric, not the rows at hand: a batch whose
    texts all happen to be numbers has the same inputs as any other.

    Args:
        schema: the model's schema.
        feature: one of its features.
        column: texts.
        first_row: names the first of some rows.
        contents: bytes of the images that cells stand for.

    Raises:
        DataError: a text that is no number or date of the feature's form, or an image
            of another size.
    """
    if isinstance(feature, ImageFeature):
        return as_images(column, contents, feature, first_row)
    name, missing, form = feature.name, schema.missing, schema.form(feature.name)
    if form:
        column = spelled_as(column, "time" if feature.kind == "date" else "text")
        return as_form(column, name, form, missing, first_row)
    if feature.kind == "numeric":
        return as_numbers(spelled_as(column, "number"), name, missing, first_row)
    # By the kind that the development table had: one row may not decide it.
    column = spelled_as(column, schema.spellings.get(name, "text"))
    return as_levels(without_marks(column), missing)


def table_of(source: str | Path | bytes, layout: Layout, origin: str) -> RawTable:
    """Reads rows from wherever they lie.

    Raises:
        DataError: the rows are unreadable.
    """
    if isinstance(source, bytes):
        return parse_bytes(source, origin, layout)
    if "://" in str(source):
        return read_table(str(source), layout)
    path = Path(source)
    try:
        with open_given(path) as file:
            data = read_whole(file, str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    return parse_bytes(data, str(path), layout)
