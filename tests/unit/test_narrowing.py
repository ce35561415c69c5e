"""Very many inputs: each column keeps what it is worth, ordinary tables keep all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_schema import SCHEMA
from training_world import prepared

from safescale_ammt.data import narrowing
from safescale_ammt.data.coding import encode, width
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.data.encoding import learn_categorical, learn_numeric
from safescale_ammt.data.narrowing import code_counts, narrowed, worth
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    NumericFeature,
    Schema,
)
from safescale_ammt.data.splitting import ROW
from safescale_ammt.reading.columns import Column

ROWS = 4000


def world(seed: int = 0) -> tuple[Schema, Split]:
    """A telling number, a telling text, and ten columns of noise."""
    rng = np.random.default_rng(seed)
    told, level = rng.normal(size=ROWS), rng.integers(0, 20, ROWS)
    # Not monotone: only fine pieces tell of it.
    chance = 0.5 + 0.3 * np.sign(np.sin(6 * told)) + 0.15 * np.sign(level % 5 - 1.5)
    label = (rng.random(ROWS) < chance).astype(np.int64)
    columns = {"told": told, **{f"n{i}": rng.normal(size=ROWS) for i in range(9)}}
    columns["gain"] = np.where(rng.random(ROWS) < 0.8, 0, rng.integers(1, 30, ROWS))
    features = tuple(learn_numeric(n, v.astype(float), 25) for n, v in columns.items())
    texts = pa.array([f"level {i}" for i in level])
    text = learn_categorical("text", Column.of(pa.chunked_array([texts])), (), 64)
    schema = dataclasses.replace(SCHEMA, features=(*features, text))
    table = pa.table(
        {**{n: v.astype(float) for n, v in columns.items()}, "text": texts}
    )
    return schema, Split(table, label, {}, np.zeros(ROWS, ROW))


def widths(schema: Schema) -> dict[str, int]:
    return {
        f.name: width(dataclasses.replace(schema, features=(f,)))
        for f in schema.features
    }


def counts_of(*parts: Split):
    """Counts the codes of some train rows, once they are asked for."""
    return lambda schema: code_counts(schema, parts)


def test_what_tells_of_the_label_keeps_its_inputs_and_noise_does_not() -> None:
    schema, train = world()
    small = narrowed(schema, counts_of(train), 90)
    assert width(small) <= 90 < width(schema)
    before, after = widths(schema), widths(small)
    assert after["told"] == before["told"] == 24
    assert after["text"] == before["text"] == 20
    assert max(after[f"n{i}"] for i in range(9)) < 6
    assert encode(small, train.features).shape == (ROWS, width(small))


def test_batches_and_the_order_of_rows_change_nothing() -> None:
    schema, train = world()
    whole = narrowed(schema, counts_of(train), 90)
    order = np.random.default_rng(1).permutation(ROWS)
    parts = [train.take(order[i : i + 700]) for i in range(0, ROWS, 700)]
    assert narrowed(schema, counts_of(*parts), 90).digest == whole.digest


def test_a_table_that_has_room_is_not_even_read() -> None:
    schema, _ = world()

    def unread(schema: Schema) -> list[np.ndarray]:
        raise AssertionError

    assert narrowed(schema, unread, width(schema)) is schema
    assert narrowed(schema, unread) is schema


def test_every_column_keeps_something_however_little_room_there_is() -> None:
    schema, train = world()
    least = narrowed(schema, counts_of(train), 1)
    assert min(widths(least).values()) >= 1
    forms = {f.name: f for f in least.features}
    assert all(len(f.edges) == 2 for f in forms.values() if f.kind == "numeric")
    assert len(forms["gain"].spikes) == 1
    assert forms["gain"].spikes == (0.0,)


def test_a_level_that_is_pooled_stays_known_by_name() -> None:
    schema, train = world()
    text = narrowed(schema, counts_of(train), 1).features[-1]
    assert isinstance(text, CategoricalFeature)
    assert len(text.levels) == 1
    assert text.pooled
    assert text.known == schema.features[-1].known  # type: ignore[union-attr]
    assert set(text.frequency) == set(schema.features[-1].levels)  # type: ignore[union-attr]


def test_parts_of_dates_are_narrowed_one_by_one() -> None:
    edges = tuple(float(i) for i in range(20))
    number = NumericFeature("elapsed", True, 3.0, 3.0, 1.0, edges, (1.0, 3.0))
    month = CategoricalFeature("month", False, ("1", "2"), False, {})
    date = DateFeature("when", False, (number, month))
    schema = dataclasses.replace(SCHEMA, features=(date,))
    days = pa.array([i * 86_400_000_000 for i in range(40)], pa.timestamp("us"))
    label = np.arange(40) % 2
    train = Split(pa.table({"when": days}), label, {}, np.zeros(40, ROW))
    (narrow,) = narrowed(schema, counts_of(train), 4).features
    assert isinstance(narrow, DateFeature)
    assert [part.name for part in narrow.parts] == ["elapsed", "month"]
    assert narrow.parts[0].edges == (0.0, 19.0)  # type: ignore[union-attr]
    # Two levels cost less than one and its pool.
    assert narrow.parts[1] == month


def test_the_worth_of_a_table_is_g_less_its_degrees_of_freedom() -> None:
    assert worth(np.array([[50, 50], [50, 50], [0, 0]])) == -1
    expected = 4 * (30 * np.log(30 / 20) + 10 * np.log(10 / 20)) - 1
    assert worth(np.array([[30, 10], [10, 30]])) == pytest.approx(expected)
    assert worth(np.zeros((3, 2), int)) == 0


def test_preparing_a_wide_table_writes_the_narrow_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Dataset.load(prepared(tmp_path / "plain", rows=600)).schema
    monkeypatch.setattr(narrowing, "MOST_INPUTS", 20)
    narrow = Dataset.load(prepared(tmp_path / "narrow", rows=600)).schema
    assert width(narrow) <= 20 < width(plain)
    assert narrow.names == plain.names
