"""Predictions as a file, in the form that its name's ending asks for.

    .csv  .tsv  .jsonl  .parquet     each also packed: .csv.gz, .tsv.zst,
                                     .jsonl.bz2, .parquet.xz
    -                                CSV on standard output

Every form holds the same values: a score is written in the fewest digits that read
back as the very same float.
"""

from __future__ import annotations

import bz2
import csv
import io
import json
import lzma
import sys
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safescale_ammt.errors import InputError
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.typed_texts import as_texts

STDOUT = Path("-")
_PACKED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": partial(pa.CompressedOutputStream, compression="gzip"),
    ".zst": partial(pa.CompressedOutputStream, compression="zstd"),
    ".bz2": partial(bz2.open, mode="wb"),
    ".xz": partial(lzma.open, mode="wb"),
}
"""Ending -> what packs a file; the endings that `reading` unpacks."""
_JSON_TYPES = (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean)
Writer = Callable[[pa.Table, BinaryIO], None]


def put_answers(table: pa.Table, output: Path) -> None:
    """Writes a table aside and moves it into place, or onto standard output.

    Raises:
        InputError: the file cannot be written, or its ending is unknown.
    """
    write, pack = form_of(output)
    if output == STDOUT:
        try:
            write(table, sys.stdout.buffer)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # A reader that has seen enough is no fault.
        except OSError as error:
            raise InputError(
                f"Standard output cannot be written ({error.strerror})."
            ) from None
        return
    # Aside and then moved: half a file of predictions looks like a whole one.
    aside = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with (
            aside.open("wb") as file,
            pack(file) if pack else nullcontext(file) as stream,
        ):
            write(table, stream)
        aside.replace(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}).") from None
    finally:
        aside.unlink(missing_ok=True)


def form_of(output: Path) -> tuple[Writer, Callable[[BinaryIO], Any] | None]:
    """Returns what writes a file of this name, and what packs it (None = nothing).

    Raises:
        InputError: the ending names no form.
    """
    if output == STDOUT:
        return write_csv, None
    name = output.name.lower()
    pack = _PACKED.get(Path(name).suffix)
    plain = Path(name).stem if pack else name
    for ending, write in WRITERS.items():
        if plain.endswith(ending):
            return write, pack
    raise InputError(
        f"The ending of {output} names no form of a table: expected "
        f"{', '.join(WRITERS)}, alone or with {' or '.join(_PACKED)}, or - for CSV on "
        "standard output."
    )


def write_csv(table: pa.Table, stream: BinaryIO, delimiter: str = ",") -> None:
    """Writes a header and one line per row, in UTF-8."""
    texts = [texts_of(column, name).to_pylist() for name, column in _columns(table)]
    # Python quotes the line end that it writes, and not the other one.
    odd = any("\r" in text for column in texts for text in column)
    # Not closed with the text: standard output belongs to others too.
    text = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL,
    )
    writer.writerow(table.column_names)
    writer.writerows(zip(*texts, strict=True))
    text.detach()


def write_tsv(table: pa.Table, stream: BinaryIO) -> None:
    """Writes what `write_csv` writes, with tabs."""
    write_csv(table, stream, "\t")


def write_jsonl(table: pa.Table, stream: BinaryIO) -> None:
    """Writes one JSON object per row: texts, whole numbers, booleans, the score."""
    values = []
    for name, column in _columns(table):
        as_is = name == "score" or any(fits(column.type) for fits in _JSON_TYPES)
        missing = column.is_null().to_pylist()
        plain = (column if as_is else texts_of(column, name)).to_pylist()
        values.append(
            [None if m else value for value, m in zip(plain, missing, strict=True)]
        )
    for row in zip(*values, strict=True):
        facts = dict(zip(table.column_names, row, strict=True))
        stream.write(json.dumps(facts, ensure_ascii=False).encode() + b"\n")


def write_parquet(table: pa.Table, stream: BinaryIO) -> None:
    """Writes a Parquet file, ids in the types that they came in."""
    pq.write_table(table, stream)


WRITERS: dict[str, Writer] = {
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}
"""Ending -> what writes such a file."""


def texts_of(column: pa.ChunkedArray, name: str) -> pa.StringArray:
    """Returns the texts of a column, "" where it is missing."""
    if pa.types.is_float64(column.type):
        # The shortest text that reads back as the very same float: whoever compares
        # with the evidence of a verdict compares exactly.
        return pa.array([repr(value) for value in column.to_pylist()])
    if pa.types.is_string(column.type):
        return pc.fill_null(column, "").combine_chunks()
    return Column.of(as_texts(column, name, "the predictions")).texts()


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))
