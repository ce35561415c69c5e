"""Rows to predict in batches: typed, and refused, as one table of them would be."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_tables import save

from safescale_ammt.data.raw_batches import raw_spool, typed_batches
from safescale_ammt.data.raw_rows import raw_table, typed_features
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    NumericFeature,
    Schema,
)
from safescale_ammt.errors import DataError
from safescale_ammt.reading import parquet_reader, scratch, spool

NUMBER = NumericFeature("n", False, 0.0, 0.0, 1.0, (), ())
SCHEMA = Schema(
    features=(
        NUMBER,
        replace(NUMBER, name="price"),
        CategoricalFeature("city", False, ("oslo", "rome"), True, {}),
        DateFeature("day", False, (replace(NUMBER, name="elapsed"),)),
    ),
    label="y",
    classes=("no", "yes"),
    positive="yes",
    sensitive=(),
    groups={},
    merges={},
    crosses={},
    drop=(),
    entity="",
    columns=("id", "n", "price", "city", "day", "y"),
    missing=("", "?"),
    label_map={},
    comment="",
    readings={"price": {"decimal": ",", "unit": ""}},
    ids=("id",),
)
HEAD = "id;n;price;city;day\n"
CITIES = ("oslo", "rome", "Zürich", "?")


@pytest.fixture(autouse=True)
def small_batches() -> Iterator[None]:
    with (
        patch.object(spool, "BATCH_ROWS", 8),
        patch.object(parquet_reader, "BATCH_ROWS", 8),
        patch.object(scratch, "IN_MEMORY", 0),
    ):
        yield


def lines(rows: int, **odd: dict[int, str]) -> str:
    """Writes rows as in Germany; `odd` has other texts by column and row."""
    text = HEAD
    for i in range(rows):
        row = {
            "id": f"A{i}",
            "n": f"{i},5",
            "price": f"{i + 1}.000,25",
            "city": CITIES[i % 4],
            "day": f"2020-01-{i % 28 + 1:02}",
        }
        row |= {name: texts[i] for name, texts in odd.items() if i in texts}
        text += ";".join(row.values()) + "\n"
    return text


def in_batches(
    schema: Schema, source: str | Path | bytes | BinaryIO, folder: Path
) -> tuple[pa.Table, list[str], list[str]]:
    """Returns features, ids as text and ids as they are kept, of all batches."""
    features, texts, kept = [], [], []
    rows = raw_spool(schema, source, folder, ("id",), "the rows")
    for batch, typed in typed_batches(schema, rows):
        assert batch.rows == typed.num_rows <= 8
        features.append(typed)
        texts += batch.columns["id"].texts().to_pylist()
        kept += [c for n in batch.kept for c in batch.kept[n].to_pylist()]
    return pa.concat_tables(features).combine_chunks(), texts, kept


def test_batches_have_the_features_and_ids_of_the_whole_table(tmp_path: Path) -> None:
    data = lines(50).encode()
    table = raw_table(SCHEMA, data, ("id",))

    for source in (
        save(tmp_path / "x.csv", data),
        tmp_path / "x.csv",
        data,
        io.BytesIO(data),
    ):
        features, ids, _ = in_batches(SCHEMA, source, tmp_path)
        assert features.equals(typed_features(SCHEMA, table))
        assert ids == [f"A{i}" for i in range(50)]
    assert sorted(os.listdir(tmp_path)) == ["x.csv"]  # noqa: PTH208


def test_ids_of_parquet_keep_their_type_in_every_batch(tmp_path: Path) -> None:
    columns = {
        "id": pa.array(range(50), pa.int16()),
        "n": [1.5] * 50,
        "price": [1.234] * 50,
        "city": ["rome"] * 50,
        "day": ["2020-01-02"] * 50,
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=20)
    data = (tmp_path / "x.parquet").read_bytes()

    features, _, kept = in_batches(SCHEMA, tmp_path / "x.parquet", tmp_path)

    assert kept == [*range(50)]
    assert features.equals(typed_features(SCHEMA, raw_table(SCHEMA, data)))
    assert features["price"].to_pylist() == [1.234] * 50


@pytest.mark.parametrize(
    "odd",
    [
        {"n": {30: "x", 41: "y"}},
        {"n": {12: "1e200"}, "day": {3: "soon"}},
        {"day": {45: "soon"}, "price": {49: "many"}},
        # Nobody knows whether the first is a thousand: the last tells of programs.
        {"price": {2: "1.234", 48: "0.5"}},
    ],
)
def test_what_is_wrong_in_some_batch_is_told_of_all_rows(
    tmp_path: Path, odd: dict[str, dict[int, str]]
) -> None:
    data = lines(50, **odd).encode()
    with pytest.raises(DataError) as whole:
        typed_features(SCHEMA, raw_table(SCHEMA, data, origin="the rows"))

    with pytest.raises(DataError) as caught:
        in_batches(SCHEMA, data, tmp_path)
    assert str(caught.value) == str(whole.value)


@pytest.mark.parametrize("give", [bytes, io.BytesIO])
def test_the_encoding_of_the_training_rows_is_tried_for_what_is_no_utf_8(
    tmp_path: Path, give: Callable[[bytes], bytes | BinaryIO]
) -> None:
    data = lines(50).encode("cp1252")
    schema = replace(SCHEMA, dialect={"encoding": "cp1252"})

    features, _, _ = in_batches(schema, give(data), tmp_path)

    assert "Zürich" in features["city"].to_pylist()
    with pytest.raises(DataError, match="is not UTF-8 at byte"):
        in_batches(SCHEMA, give(data), tmp_path)


def test_a_pipe_is_read_once_and_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as end:
        end.write(lines(50).encode())
    with os.fdopen(read, "rb") as pipe:
        features, _, _ = in_batches(SCHEMA, pipe, tmp_path)
    assert features.num_rows == 50

    with pytest.raises(DataError, match=r"none\.csv cannot be read"):
        in_batches(SCHEMA, tmp_path / "none.csv", tmp_path)
    with pytest.raises(DataError, match=r"lacks the column 'day', which the model"):
        in_batches(SCHEMA, b"id;n;price;city\nA;1;2;oslo\n", tmp_path)
