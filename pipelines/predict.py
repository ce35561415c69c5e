"""Answers for raw rows, by exactly the code that was judged."""

from __future__ import annotations

import csv
import uuid
from pathlib import Path

import click

from safescale_ammt.errors import InputError
from safescale_ammt.files.artifacts import verify


def write_predictions(folder: Path, rows: str | Path, output: Path) -> int:
    """Scores raw rows and writes a CSV with `row, prediction, score`.

    Values that the model does not know are counted on stderr, a line per column.

    Args:
        folder: a bundle or a model artifact; verified first.
        rows: path or URI of a CSV or Parquet file with the raw columns.
        output: file to write, aside and then moved; rows count from 0.

    Returns:
        The number of rows.

    Raises:
        InputError: the folder holds no model, the rows do not fit its schema, or most
            values of a column are unknown to the model.
        IntegrityError: a byte of the model is not what was judged.
    """
    from safescale_ammt.data.raw_rows import read_raw
    from safescale_ammt.data.schema import Schema
    from safescale_ammt.data.unseen import refuse_mostly_unseen, unseen_inputs
    from safescale_ammt.model.predictor import Predictor

    # Before a byte of it is read: answers are by what was judged, or there are none.
    kind = verify(folder).kind
    model = folder / "model" if kind == "bundle" else folder
    if kind not in ("bundle", "model"):
        raise InputError(f"{folder} is a {kind} artifact; give a bundle or a model.")
    schema = Schema.load(model)
    features = read_raw(schema, rows)
    found = unseen_inputs(schema, features)
    refuse_mostly_unseen(found, str(rows), "the rows the model was trained on")
    for unseen in found:
        click.echo(f"In {rows} {unseen}; they count as rare values.", err=True)
    score, prediction = Predictor.load(model).predict_table(features)
    # `repr` is the shortest text that reads back as the very same float: whoever
    # compares with the evidence of a verdict compares exactly.
    answers = (
        (row, schema.classes[code], repr(float(value)))
        for row, (code, value) in enumerate(zip(prediction, score, strict=True))
    )
    # Aside and then moved: half a file of predictions looks like a whole one.
    aside = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "prediction", "score"))
            writer.writerows(answers)
        aside.replace(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}).") from None
    finally:
        aside.unlink(missing_ok=True)
    return len(score)
