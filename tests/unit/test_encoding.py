"""Encodings: learnt on train, and equal for equal rows whatever stands beside."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schema import SCHEMA

from safescale_ammt.data.coding import encode, width
from safescale_ammt.data.encoding import MOST_SPIKES, learn_categorical, learn_numeric
from safescale_ammt.data.feature_codes import Numeric
from safescale_ammt.data.raw_rows import read_raw
from safescale_ammt.data.schema import (
    CategoricalFeature,
    Feature,
    NumericFeature,
    Schema,
)
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column

NUMERICS: tuple[Numeric, ...] = ("ple", "standard")


def schema_of(*features: Feature) -> Schema:
    return dataclasses.replace(SCHEMA, features=features)


def column_of(texts: list[str]) -> Column:
    return Column.of(pa.chunked_array([pa.array(texts, pa.string())]))


def levels_of(texts: list[str], most: int = 64) -> CategoricalFeature:
    return learn_categorical("c", column_of(texts), ("", "?"), most)


def test_a_number_fills_the_pieces_below_it() -> None:
    feature = NumericFeature("x", False, 0, 0, 1, (0.0, 1.0, 3.0, 7.0), ())
    table = pa.table({"x": [-5.0, 0.5, 2.0, 7.0, 99.0]})
    expected = [[0, 0, 0], [0.5, 0, 0], [1, 0.5, 0], [1, 1, 1], [1, 1, 1]]
    np.testing.assert_array_equal(encode(schema_of(feature), table), expected)


def test_edges_are_the_quantiles_of_train() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    feature = learn_numeric("x", values, 25)
    np.testing.assert_allclose(
        feature.edges, np.quantile(values, np.linspace(0, 1, 25)), rtol=1e-12
    )
    assert feature.spikes == ()
    assert not feature.has_missing


def test_frequent_values_of_a_zero_inflated_column_get_indicators() -> None:
    values = np.concatenate([np.zeros(900), np.full(60, 7.0), np.arange(100, 140)])
    feature = learn_numeric("x", values, 25)
    assert feature.spikes == (0.0, 7.0)
    table = pa.table({"x": [0.0, 7.0, 8.0]})
    encoded = encode(schema_of(feature), table)
    np.testing.assert_array_equal(encoded[:, -2:], [[1, 0], [0, 1], [0, 0]])


def test_the_number_of_indicators_is_bounded() -> None:
    values = np.concatenate([np.zeros(3000), np.repeat(np.arange(1.0, 101.0), 20)])
    assert len(learn_numeric("x", values, 25).spikes) == MOST_SPIKES


def test_a_yes_no_number_needs_no_indicators() -> None:
    assert learn_numeric("x", np.repeat([0.0, 1.0], [900, 100]), 25).spikes == ()


def test_a_missing_number_is_the_median_with_an_indicator() -> None:
    feature = learn_numeric("x", np.array([1.0, 2.0, 9.0, np.nan]), 25)
    assert feature.has_missing
    assert feature.median == 2.0
    table = pa.table({"x": pa.array([None, 2.0])})
    for numeric in NUMERICS:
        missing, present = encode(schema_of(feature), table, numeric)
        np.testing.assert_array_equal(missing[:-1], present[:-1])
        assert (missing[-1], present[-1]) == (1, 0)


def test_a_number_never_missing_in_train_is_imputed_without_an_indicator() -> None:
    feature = learn_numeric("x", np.array([1.0, 2.0, 9.0]), 25)
    encoded = encode(schema_of(feature), pa.table({"x": pa.array([None, 2.0])}))
    np.testing.assert_array_equal(encoded[0], encoded[1])


def test_a_column_that_train_never_saw_or_saw_constant_is_harmless() -> None:
    for values in (np.full(5, np.nan), np.full(5, 3.0), np.zeros(0)):
        schema = schema_of(learn_numeric("x", values, 25))
        encoded = encode(schema, pa.table({"x": [1.0, 3.0]}), "standard")
        assert np.isfinite(encoded).all()
        assert encode(schema, pa.table({"x": [1.0, 3.0]})).shape[0] == 2


def test_standard_numbers_have_mean_zero_and_spread_one_on_train() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=1000)
    schema = schema_of(learn_numeric("x", values, 25))
    encoded = encode(schema, pa.table({"x": values}), "standard")
    assert encoded.shape == (1000, 1)
    assert abs(encoded.mean()) < 1e-6
    assert abs(encoded.std() - 1) < 1e-6


def test_levels_missing_and_rare_ones_have_their_own_columns() -> None:
    feature = levels_of(["a"] * 5 + ["b"] * 4 + ["rare"] + ["?"] * 2)
    assert feature.levels == ("a", "b")
    assert feature.pooled
    assert feature.has_missing
    table = pa.table({"c": pa.array(["a", "b", "rare", "never seen", None])})
    np.testing.assert_array_equal(
        encode(schema_of(feature), table),
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    )


def test_an_unseen_level_of_an_unpooled_column_is_all_zero() -> None:
    feature = levels_of(["a"] * 5 + ["b"] * 4)
    table = pa.table({"c": pa.array(["never seen", None])})
    np.testing.assert_array_equal(encode(schema_of(feature), table), np.zeros((2, 2)))


def test_many_levels_are_pooled_but_keep_their_frequency() -> None:
    texts = [f"l{i}" for i in range(200) for _ in range(i + 2)]
    feature = levels_of(texts, most=50)
    assert len(feature.levels) == 50
    assert "l199" in feature.levels
    assert "l0" not in feature.levels
    table = pa.table({"c": ["l0", "l199", "never seen"]})
    encoded = encode(schema_of(feature), table)
    assert encoded.shape == (3, 52)
    assert 0 < encoded[0, -1] < encoded[1, -1] < 1
    assert encoded[2, -1] == 0
    np.testing.assert_array_equal(encoded[:, 50], [1, 0, 1])


def test_frequency_ties_are_cut_the_same_way_in_every_row_order() -> None:
    texts = ["d", "a", "c", "b"] * 3
    assert levels_of(texts, 2).levels == levels_of(texts[::-1], 2).levels == ("a", "b")


def test_no_rows_encode_to_no_rows() -> None:
    table = pa.table(
        {"age": pa.array([], pa.float64()), "city": pa.array([], pa.string())}
    )
    assert encode(SCHEMA, table).shape == (0, width(SCHEMA))


def test_a_dictionary_column_and_an_empty_one_encode_like_text() -> None:
    texts = ["oslo", None, "elsewhere"]
    plain = pa.table({"age": pa.array([None] * 3, pa.float64()), "city": texts})
    coded = pa.table(
        {"age": pa.array([None] * 3), "city": pa.array(texts).dictionary_encode()}
    )
    np.testing.assert_array_equal(encode(SCHEMA, plain), encode(SCHEMA, coded))


def test_a_missing_feature_column_is_named() -> None:
    with pytest.raises(DataError, match="no column 'city'"):
        encode(SCHEMA, pa.table({"age": [1.0]}))


def test_encodings_are_contiguous_float32() -> None:
    table = pa.table({"age": [20.0, None], "city": ["oslo", "bonn"]})
    for numeric in NUMERICS:
        encoded = encode(SCHEMA, table, numeric)
        assert encoded.dtype == np.float32
        assert encoded.flags.c_contiguous
        assert encoded.shape == (2, width(SCHEMA, numeric))


cells = st.tuples(
    st.none() | st.floats(-1e6, 1e6) | st.sampled_from([0.0, 18.0, 30.0]),
    st.none() | st.sampled_from(["oslo", "rome", "bonn", "elsewhere"]),
)


@given(rows=st.lists(cells, min_size=1, max_size=40), data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_row_encodes_to_the_same_bits_in_every_batch(
    rows: list[tuple[float | None, str | None]], data: st.DataObject
) -> None:
    table = pa.table(
        {
            "age": pa.array([age for age, _ in rows], pa.float64()),
            "city": pa.array([city for _, city in rows], pa.string()),
        }
    )
    chosen = data.draw(st.permutations(range(len(rows))))[
        : data.draw(st.integers(1, 9))
    ]
    for numeric in NUMERICS:
        whole = encode(SCHEMA, table, numeric)
        part = encode(SCHEMA, table.take(pa.array(chosen, pa.int64())), numeric)
        assert part.tobytes() == np.ascontiguousarray(whole[chosen]).tobytes()


RAW = b"age,city,gender,id,approved\n20,oslo,f,1,yes\n?,rome,m,2,no\n"


def test_raw_rows_are_read_with_and_without_label_and_sensitive_columns() -> None:
    bare = b"city,age\noslo,20\nrome,?\n"
    for data in (RAW, bare):
        table = read_raw(SCHEMA, data)
        assert table.to_pydict() == {"age": [20.0, None], "city": ["oslo", "rome"]}


def test_raw_rows_without_a_header_stand_in_schema_order() -> None:
    labelled = RAW.split(b"\n", 1)[1]
    bare = b"|note\n20,oslo,f,1\n,rome,m,2\n"
    for data in (labelled, bare):
        assert read_raw(SCHEMA, data)["age"].to_pylist() == [20.0, None]


def test_raw_rows_come_from_paths_and_uris(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(RAW)
    for source in (path, str(path), path.as_uri()):
        assert read_raw(SCHEMA, source).num_rows == 2


def test_raw_rows_that_lack_a_needed_column_are_refused() -> None:
    with pytest.raises(DataError, match=r"lacks the column 'city', which the model"):
        read_raw(SCHEMA, b"age,gender\n20,f\n")
    with pytest.raises(DataError, match=r"lacks 2 of the 2 .*: 'age', 'city'"):
        read_raw(SCHEMA, b"gender,note\nf,x\n")


def test_a_text_where_a_number_is_expected_names_its_row() -> None:
    with pytest.raises(DataError, match=r"'age' has a text .* at data row 2"):
        read_raw(SCHEMA, b"age,city\n20,oslo\nold,rome\n")


@pytest.mark.parametrize(
    "values", [[-2e-309, 2.0, 0.0], [1e150, -1e150, 3.0], [1e-160, 0.0, 3e-160]]
)
def test_the_smallest_and_the_largest_numbers_encode_finitely(
    values: list[float],
) -> None:
    learnt = learn_numeric("age", np.array(values * 40), 25)
    schema = dataclasses.replace(SCHEMA, features=(learnt,))
    for numeric in NUMERICS:
        encoded = encode(schema, pa.table({"age": [*values, 1e150, -1e150]}), numeric)
        assert np.isfinite(encoded).all()


@pytest.mark.parametrize(
    "text", ["inf", "-Infinity", "1e999", "1.7976931348623157e308"]
)
def test_an_infinite_or_huge_number_names_its_row(text: str) -> None:
    with pytest.raises(DataError, match="values, the first at data row 1"):
        read_raw(SCHEMA, f"age,city\n{text},oslo\n".encode())


def test_raw_rows_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_raw(SCHEMA, tmp_path / "absent.csv")
    with pytest.raises(DataError, match="empty"):
        read_raw(SCHEMA, b"")
