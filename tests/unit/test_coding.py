"""Codes: what a row's inputs are, said twice, and the same in every batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schema import SCHEMA

from safescale_ammt.data.coding import Codes, Coding, encode, width
from safescale_ammt.data.feature_codes import (
    FARTHEST,
    Numeric,
    date_parts,
    feature_width,
    parts_of,
)
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    Feature,
    NumericFeature,
    Schema,
)

TEXTS = st.sampled_from(["a", "b", "c", "rare", "?", "unseen"])
NUMBERS = st.one_of(
    st.integers(-9, 9).map(float),
    st.floats(-20, 20, allow_nan=False),
    st.sampled_from([-0.0, 0.0, 1e300, -1e300, 5e-324]),
)


@st.composite
def numeric(draw: st.DrawFn, name: str) -> NumericFeature:
    edges = sorted(draw(st.sets(NUMBERS, max_size=9)))
    spikes = sorted(draw(st.sets(st.integers(-9, 9).map(float), max_size=4)))
    return NumericFeature(
        name,
        has_missing=draw(st.booleans()),
        median=draw(st.sampled_from([*spikes, 0.5, -3.0])),
        mean=draw(st.floats(-5, 5)),
        std=draw(st.floats(0.1, 5)),
        edges=tuple(edges) if len(edges) > 1 else (),
        spikes=tuple(spikes),
    )


@st.composite
def categorical(draw: st.DrawFn, name: str) -> CategoricalFeature:
    levels = sorted(draw(st.sets(st.sampled_from("abc"))))
    known = [*levels, "rare"] if draw(st.booleans()) else []
    frequency = {level: draw(st.floats(0.01, 1)) for level in known}
    return CategoricalFeature(
        name, draw(st.booleans()), tuple(levels), draw(st.booleans()), frequency
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[Schema, pa.Table]:
    """A schema of every kind of feature, and rows that it has and has not seen."""
    n = draw(st.integers(0, 12))
    date = DateFeature(
        "d",
        zoned=False,
        parts=(
            dataclasses.replace(draw(numeric("elapsed")), edges=(-5.0, 0.0, 3.5)),
            dataclasses.replace(draw(categorical("month")), levels=("1", "12")),
            draw(numeric("hour")),
        ),
    )
    features = (draw(numeric("x")), draw(categorical("c")), date, draw(numeric("y")))

    def column(values: st.SearchStrategy[Any], kind: pa.DataType) -> pa.Array:
        each = st.lists(st.one_of(st.none(), values), min_size=n, max_size=n)
        return pa.array(draw(each), kind)

    micros = st.integers(-(10**12), 10**12)
    return dataclasses.replace(SCHEMA, features=features), pa.table(
        {
            "x": column(NUMBERS, pa.float64()),
            "c": column(TEXTS, pa.string()),
            "d": column(micros, pa.timestamp("us")),
            "y": column(NUMBERS, pa.float64()),
        }
    )


def said_plainly(feature: Feature, column: Any, how: Numeric) -> list[np.ndarray]:
    """Returns a feature's inputs, each by the formula that defines it."""
    if isinstance(feature, DateFeature):
        parts = date_parts(column)
        each = (said_plainly(part, parts[part.name], how) for part in feature.parts)
        return [one for part in each for one in part]
    if isinstance(feature, CategoricalFeature):
        texts = pc.cast(column, pa.string()).to_pylist()
        known = {None, *feature.levels}
        other = np.array([t not in known for t in texts], bool)
        absent = np.array([t is None for t in texts], bool)
        found = [np.array([t == level for t in texts]) for level in feature.levels]
        if feature.pooled:
            found.append(other if feature.has_missing else other | absent)
        if feature.has_missing:
            found.append(absent)
        if feature.frequency:
            found.append(np.array([feature.frequency.get(t, 0.0) for t in texts]))
        return found
    values = [np.nan if v is None else v for v in column.to_pylist()]
    absent = np.isnan(np.array(values, float))
    x = np.where(absent, feature.median, values)
    if how == "standard":
        z = np.clip((x - feature.mean) / feature.std, -FARTHEST, FARTHEST)
        return [z, *[absent] * feature.has_missing]
    ends = zip(feature.edges[:-1], feature.edges[1:], strict=True)
    pieces = [(np.clip(x, low, high) - low) / (high - low) for low, high in ends]
    spikes = [x == spike for spike in feature.spikes]
    return [*pieces, *spikes, *[absent] * feature.has_missing]


@given(tables(), st.sampled_from(["ple", "standard"]))
@settings(deadline=None, max_examples=60)
def test_every_kind_of_feature_has_the_inputs_of_its_formula_bit_for_bit(
    case: tuple[Schema, pa.Table], how: Numeric
) -> None:
    schema, table = case
    with np.errstate(all="ignore"):
        found = [
            one
            for feature in schema.features
            for one in said_plainly(feature, table[feature.name], how)
        ]
        expected = np.stack([*found, np.zeros(len(table))], 1).astype(np.float32)
    encoded = encode(schema, table, how)
    assert encoded.shape == (len(table), width(schema, how))
    np.testing.assert_array_equal(encoded, expected[:, :-1])


@given(tables(), st.sampled_from(["ple", "standard"]), st.randoms())
@settings(deadline=None, max_examples=30)
def test_drawn_rows_of_coded_batches_have_the_bits_of_the_whole_table(
    case: tuple[Schema, pa.Table], how: Numeric, random: Any
) -> None:
    schema, table = case
    coding, cut = Coding(schema, how), random.randint(0, len(table))
    texts = table.set_column(1, "c", pc.dictionary_encode(table["c"]))
    codes = Codes.joined(
        [coding.codes(table.slice(0, cut)), coding.codes(texts.slice(cut))]
    )
    drawn = np.array([random.randrange(len(table)) for _ in range(5 * len(table))], int)
    inputs = coding.inputs(codes.take(drawn))
    whole = encode(schema, table, how)[drawn]
    np.testing.assert_array_equal(inputs.view(np.uint32), whole.view(np.uint32))
    assert codes.code.dtype == np.uint8


def test_codes_of_very_many_levels_take_two_bytes() -> None:
    levels = tuple(sorted(f"l{i}" for i in range(300)))
    feature = CategoricalFeature("c", False, levels, False, {})
    schema = dataclasses.replace(SCHEMA, features=(feature,))
    codes = Coding(schema, "ple").codes(pa.table({"c": ["l299", "l0", None]}))
    assert codes.code.dtype == np.uint16
    np.testing.assert_array_equal(
        encode(schema, pa.table({"c": ["l299"]})).argmax(1), [levels.index("l299")]
    )


@given(tables(), st.sampled_from(["ple", "standard"]))
@settings(deadline=None, max_examples=40)
def test_pairs_give_the_products_of_the_inputs(
    case: tuple[Schema, pa.Table], how: Numeric
) -> None:
    schema, table = case
    coding = Coding(schema, how)
    codes = coding.codes(table)
    matrix = np.random.default_rng(0).normal(size=(coding.width, 3))
    summed, start = matrix.copy(), 0
    for part in parts_of(schema):
        if part.kind == "numeric" and how == "ple":
            stop = start + max(len(part.edges) - 1, 0)
            summed[start:stop] = matrix[start:stop].cumsum(0)
        start += feature_width(part, how)
    column, weight = coding.pairs(codes)
    product = (weight[..., None] * summed[column]).sum(1)
    expected = coding.inputs(codes).astype(float) @ matrix
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-6)
