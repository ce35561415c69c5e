"""Answers for raw rows, by exactly the code that was judged."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.answers import form_of, put_answers
from pipelines.output import say
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import DataError, InputError
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import read_json
from safescale_ammt.reading.byte_streams import read_whole
from safescale_ammt.reading.columns import RawTable
from safescale_ammt.reading.image_folder import FILE

STDIN = "-"
ANSWERS = ("prediction", "score")
_TEXTS = (pa.types.is_large_string, pa.types.is_string_view)
_PLAIN = (
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_boolean,
    pa.types.is_date,
    pa.types.is_timestamp,
)
"""Types that an id keeps."""


def write_predictions(
    folder: Path, rows: str | Path, output: Path, ids: Sequence[str] = ()
) -> int:
    """Scores raw rows and writes ids (or the row's number), prediction and score.

    What the score means is said on stderr, and values that the model does not know
    are counted there, a line per column.

    Args:
        folder: a bundle or a model artifact; verified first.
        rows: path or URI of a CSV or Parquet file with the raw columns; `-` =
            standard input.
        output: file to write, in the form of its ending; `-` = standard output.
        ids: columns to keep; () = those that the schema names, as far as the rows
            have them. Without any, rows are numbered from 0.

    Returns:
        The number of rows.

    Raises:
        InputError: the folder holds no model, the rows do not fit its schema, most
            values of a column are unknown to the model or missing, or no file of that
            kind can be written.
        IntegrityError: a byte of the model is not what was judged.
    """
    from safescale_ammt.data.raw_rows import raw_table, typed_features
    from safescale_ammt.data.unseen import (
        refuse_mostly_missing,
        refuse_mostly_unseen,
        unseen_inputs,
    )
    from safescale_ammt.model.predictor import Predictor

    form_of(output)
    # Before a byte of it is read: answers are by what was judged, or there are none.
    kind = verify(folder).kind
    model = folder / "model" if kind == "bundle" else folder
    if kind not in ("bundle", "model"):
        raise InputError(f"{folder} is a {kind} artifact; give a bundle or a model.")
    schema = Schema.load(model)
    origin = str(rows) if str(rows) != STDIN else "standard input"
    source = rows if str(rows) != STDIN else read_whole(sys.stdin.buffer, origin)
    # Images of a folder are known by their paths.
    named = [FILE] if schema.image else [schema.entity, *schema.ids]
    own = tuple(dict.fromkeys(filter(None, named)))
    table = raw_table(schema, source, tuple(ids) or own, origin)
    features = typed_features(schema, table)
    kept = id_columns(table, ids or [name for name in own if name in table.columns])
    found = unseen_inputs(schema, features)
    known = "the rows the model was trained on"
    refuse_mostly_unseen(found, origin, known)
    refuse_mostly_missing(schema, features, origin, known)
    for unseen in found:
        say(f"In {origin} {unseen}; they count as rare values.", err=True)
    threshold = read_json(model / "decision.json")["threshold"]
    say(meaning_of_score(schema, threshold), err=True)
    score, prediction = Predictor.load(model).predict_table(features)
    classes = pa.array(schema.classes, pa.string())
    answers = {
        **(kept or {"row": pa.array(np.arange(len(score)))}),
        "prediction": classes.take(pa.array(prediction)),
        "score": pa.array(score),
    }
    put_answers(pa.table(answers), output)
    return len(score)


def meaning_of_score(schema: Schema, threshold: float) -> str:
    """Says in one sentence what the column `score` holds."""
    probability = "score is the model's probability that"
    if schema.positive and len(schema.classes) == 2:
        other = next(name for name in schema.classes if name != schema.positive)
        return (
            f"{probability} {schema.label} is {schema.positive}; prediction is "
            f"{schema.positive} from {threshold!r} on, else {other}."
        )
    which = schema.positive or "the predicted class"
    return (
        f"{probability} {schema.label} is {which}; prediction is the most probable of "
        f"{len(schema.classes)} classes."
    )


def id_columns(
    table: RawTable, names: Sequence[str]
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Returns columns to keep beside the answers: text, or in a Parquet file's types.

    Raises:
        DataError: there is no such column, or its name is one of the answers'.
    """
    kept = {}
    for name in names:
        if name in ANSWERS:
            raise DataError(
                f"The column {name!r} cannot be kept beside the answers, which have "
                "one of that name; rename it in the rows."
            )
        if name not in table.columns:
            raise DataError(
                f"The rows have no column {name!r}{table.near(name)}, so it cannot be "
                "kept beside the answers."
            )
        texts = table.column(name, "an id").texts()
        array = table.kept.get(name, texts)
        if pa.types.is_dictionary(array.type):
            array = pc.cast(array, array.type.value_type)
        if any(fits(array.type) for fits in _TEXTS):
            array = pc.cast(array, pa.string())
        # Bytes, decimals and what else has no plain type are read as text.
        kept[name] = array if any(fits(array.type) for fits in _PLAIN) else texts
    return kept
