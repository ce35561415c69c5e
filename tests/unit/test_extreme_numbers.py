"""Numbers as large and as small as floats get: every figure of them is a number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import config, loans, save, spell
from test_audit import schema_of, splits_of

from safescale_ammt.data.associations import bin_codes, binned, edges_of
from safescale_ammt.data.audit import audit
from safescale_ammt.data.bias_tests import Repeats
from safescale_ammt.data.encoding import learn_numeric
from safescale_ammt.data.feature_codes import Deviation, Pieces
from safescale_ammt.data.moments import mean_and_spread
from safescale_ammt.data.raw_rows import LARGEST
from safescale_ammt.data.references import References

LEAST = 5e-324
ENDS = (LARGEST, -LARGEST, 1e149, 1e120, -1e120, 1.0, 0.0, -0.0)
SMALL = (LEAST, -LEAST, 1e-310, 2.2250738585072014e-308, 1e-200, -1e-160)
NUMBERS = st.sampled_from((*ENDS, *SMALL)) | st.floats(-LARGEST, LARGEST)
COLUMNS = st.lists(NUMBERS, min_size=2, max_size=40).map(np.array)
"""Numbers that a table may hold."""
WIDEST = float(np.finfo(float).max)


def numbers_in(found: Any) -> list[float]:
    """Returns every float of a JSON form."""
    if isinstance(found, dict):
        return [x for value in found.values() for x in numbers_in(value)]
    if isinstance(found, list | tuple):
        return [x for value in found for x in numbers_in(value)]
    return [found] if isinstance(found, float) else []


@given(COLUMNS)
@settings(deadline=None)
def test_what_is_learnt_of_a_column_is_finite_and_codes_it_finitely(
    x: np.ndarray,
) -> None:
    learnt = learn_numeric("x", x, 8)
    stated = (learnt.mean, learnt.std, learnt.median, *learnt.edges, *learnt.spikes)
    assert all(map(math.isfinite, stated))
    assert x.min() <= learnt.mean <= x.max()
    assert x.min() <= learnt.median <= x.max()
    assert learnt.std > 0
    asked = pa.chunked_array([[*x, LARGEST, -LARGEST, 0.0, LEAST]])
    for kind in (Pieces, Deviation):
        _, value = kind(learnt).codes(asked)
        if kind is Deviation or learnt.edges:
            assert np.isfinite(value).all()
        assert np.isfinite(kind(learnt).table).all()


@given(COLUMNS)
@settings(deadline=None)
def test_bins_are_in_the_order_of_the_numbers(x: np.ndarray) -> None:
    edges = edges_of(x, 3)
    assert np.isfinite(edges).all()
    assert (np.diff(bin_codes(np.sort(x), edges)) >= 0).all()


@given(COLUMNS, st.data())
@settings(deadline=None)
def test_two_measurements_are_compared_in_any_unit(
    x: np.ndarray, data: st.DataObject
) -> None:
    # Of a table or, where the audit is called from Python, of any number.
    wide = st.sampled_from((WIDEST, -WIDEST, 1e308, 1e200, *x.tolist())) | NUMBERS
    y = np.array(data.draw(st.lists(wide, min_size=len(x), max_size=len(x))))
    seen = Repeats.of(pa.chunked_array([x]), pa.chunked_array([y]))
    assert np.isfinite(seen.error).all()
    assert seen.error.min() >= 0
    codes = np.arange(len(x)) % 2
    if len(x) > 3:
        assert np.isfinite(seen.sizes(codes)).all()


@pytest.mark.parametrize("unit", [2.0**-1000, 2.0**-600, 2.0**400])
def test_a_unit_changes_no_figure(unit: float) -> None:
    x = np.random.default_rng(0).normal(size=500)
    y = x + np.random.default_rng(1).normal(scale=0.1, size=500)
    plain, other = (
        Repeats.of(pa.chunked_array([x * u]), pa.chunked_array([y * u]))
        for u in (1.0, unit)
    )
    assert (plain.error == other.error).all()
    assert (plain.strata == other.strata).all()
    assert (plain.distance == other.distance).all()
    mean, spread = mean_and_spread(x * unit)
    assert (mean, spread) == (x.mean() * unit, x.std() * unit)
    assert mean_and_spread(x) == (x.mean(), x.std())
    one, two = (binned(pa.chunked_array([x * u]), 7) for u in (1.0, unit))
    assert (one == two).all()


@given(st.lists(NUMBERS, min_size=40, max_size=40), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_an_audit_of_extreme_columns_holds_numbers_alone(
    values: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    schema = schema_of(["x"], [])
    x = rng.choice(values, 400)
    again = np.where(rng.random(400) < 0.5, x, rng.choice(values, 400))
    groups = {"sex": rng.integers(0, 2, 400), "tribe": rng.integers(0, 3, 400)}
    splits = splits_of(schema, {"x": x}, rng.integers(0, 2, 400), groups)
    at = 0
    for name, split in splits.items():
        more = pa.array(again[at : at + len(split)])
        at += len(split)
        features = split.features.append_column("second", more)
        splits[name] = type(split)(features, split.label, split.groups, split.rows)
    found = audit(schema, splits, seed, references=References(repeats={"x": "second"}))
    figures = numbers_in(json.loads(json.dumps(found.to_dict())))
    assert figures
    assert all(map(math.isfinite, figures))


@pytest.mark.parametrize("scale", [1e150, -1e150, 1e-170, 1e-310])
def test_a_whole_table_of_extreme_numbers_is_prepared(
    tmp_path: Path, scale: float
) -> None:
    lines = spell(loans(600)).decode().splitlines()
    rng = np.random.default_rng(0)
    first = rng.choice([-1.0, -0.5, 0.3, 1.0], 600) * scale
    second = np.where(rng.random(600) < 0.5, first, -first)
    table = [f"{lines[0]},far,again"]
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    table += [
        f"{line},{one!r},{two!r}"
        for line, (one, two) in zip(lines[1:], pairs, strict=True)
    ]
    text = "\n".join(table)
    asked = config(
        source=save(tmp_path / "t.csv", text.encode()),
        repeats={"far": "again"},
        numeric=["far"],
    )
    preparing.run(asked, tmp_path / "dataset", tmp_path / "holdout")
    for name in ("audit.json", "schema.json"):
        found = json.loads((tmp_path / "dataset" / name).read_text())
        assert all(map(math.isfinite, numbers_in(found)))
