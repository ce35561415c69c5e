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
from collections.abc import Callable, Iterator
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
BATCH = 8192
"""Rows that are Python's objects at once."""
_PACKED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": partial(pa.CompressedOutputStream, compression="gzip"),
    ".zst": partial(pa.CompressedOutputStream, compression="zstd"),
    ".bz2": partial(bz2.open, mode="wb"),
    ".xz": partial(lzma.open, mode="wb"),
}
"""Ending -> what packs a file; the endings that `reading` unpacks."""
_NUMBERS = (pa.types.is_float64, pa.types.is_integer)
"""Types that a CSV file spells as Python does."""
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
    table = spelled(table)
    # Python quotes the line end that it writes, and not the other one.
    texts = [c for c in table.columns if pa.types.is_string(c.type)]
    odd = any(pc.any(pc.match_substring(column, "\r")).as_py() for column in texts)
    # Standard output belongs to others too: a wrapper of it would be closed with it.
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL,
    )
    writer.writerow(table.column_names)
    for part in batches(table):
        # Of a float that is its `repr`, the shortest text that reads back as the very
        # same one: whoever compares with evidence compares exactly.
        writer.writerows(zip(*(c.to_pylist() for c in part.columns), strict=True))
        stream.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()


def write_tsv(table: pa.Table, stream: BinaryIO) -> None:
    """Writes what `write_csv` writes, with tabs."""
    write_csv(table, stream, "\t")


def write_jsonl(table: pa.Table, stream: BinaryIO) -> None:
    """Writes one JSON object per row: texts, whole numbers, booleans, the score."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name != "score" and not any(fits(column.type) for fits in _JSON_TYPES):
            texts = pc.if_else(column.is_null(), None, texts_of(column, name))
            table = table.set_column(table.column_names.index(name), name, texts)
    for part in batches(table):
        lines = (json.dumps(facts, ensure_ascii=False) for facts in part.to_pylist())
        stream.writelines(f"{line}\n".encode() for line in lines)


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


def spelled(table: pa.Table) -> pa.Table:
    """Returns a table with the texts of all columns but those of numbers."""
    columns = zip(table.column_names, table.columns, strict=True)
    return pa.table(
        {
            name: column
            if any(fits(column.type) for fits in _NUMBERS)
            else texts_of(column, name)
            for name, column in columns
        }
    )


def texts_of(column: pa.ChunkedArray, name: str) -> pa.StringArray:
    """Returns the texts of a column, "" where it is missing."""
    if pa.types.is_string(column.type):
        return pc.fill_null(column, "").combine_chunks()
    return Column.of(as_texts(column, name, "the predictions")).texts()


def batches(table: pa.Table) -> Iterator[pa.Table]:
    """Yields a table in slices; the first one also of a table without rows."""
    for at in range(0, max(table.num_rows, 1), BATCH):
        yield table.slice(at, BATCH)
