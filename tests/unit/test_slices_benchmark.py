"""The benchmark of slices plants what it says, and counts what it says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.slice_tables import RISE, SUPPORT, Population, drawn, excess, planted
from benchmarks.slices import figures, measured
from safescale_ammt.judging.slices import members


@pytest.fixture(scope="module")
def population() -> Population:
    rng = np.random.default_rng(0)
    number = 20_000
    columns = {
        "age": rng.uniform(18, 90, number),
        "job": np.array(["a", "b", "c", "d"])[rng.integers(4, size=number)],
        "town": np.array([f"t{i}" for i in range(30)])[rng.integers(30, size=number)],
    }
    features = pa.table({n: pa.chunked_array([c]) for n, c in columns.items()})
    # Harder where one is older, and nothing else.
    wrong = rng.random(number) < columns["age"] / 400
    return Population(features, rng.integers(2, size=number), wrong, {})


def test_a_planted_slice_errs_more_by_what_is_said_and_the_rest_as_before(
    population: Population,
) -> None:
    for seed in range(20):
        own = planted(population, np.random.default_rng(seed))
        assert SUPPORT[0] <= own.inside.mean() <= SUPPORT[1]
        assert RISE[0] <= own.rise <= RISE[1]
        np.testing.assert_array_equal(
            own.inside, members(own.conditions, population.features)
        )
        base = population.wrong.astype(float)
        before = max(base[own.inside].mean(), base[~own.inside].mean())
        assert own.chance[own.inside].mean() == pytest.approx(before + own.rise)
        np.testing.assert_array_equal(own.chance[~own.inside], base[~own.inside])
        assert excess(own.chance, own.inside) >= own.rise - 1e-9


def test_a_drawn_table_has_the_rates_of_its_population(population: Population) -> None:
    own = planted(population, np.random.default_rng(1))
    index, evidence = drawn(population, own.chance, 60_000, np.random.default_rng(2))
    wrong, inside = evidence.prediction != evidence.label, own.inside[index]
    assert inside.mean() == pytest.approx(own.inside.mean(), abs=0.01)
    expected = own.chance[own.inside].mean()
    assert wrong[inside].mean() == pytest.approx(expected, abs=0.03)


def test_a_planted_slice_is_found_and_a_null_has_none(population: Population) -> None:
    kinds = (("planted", 2), ("null", 2))
    raw = list(measured(population, kinds, 0, ["ours", "unconfirmed"]))
    ours = [row for row in raw if row["method"] == "ours"]
    assert [row["kind"] for row in ours] == ["planted"] * 2 + ["null"] * 2
    assert all(row["overlap"] >= 0.5 for row in ours[:2])
    assert [row["false"] for row in ours] == [0] * 4
    # In a null every slice that is told is false, to the last one.
    other = [row for row in raw if row["kind"] == "null"]
    assert all(row["false"] == row["told"] for row in other)
    rows = {row["what"]: row for row in figures(raw)}
    assert rows["ours: planted slices found"]["value"] == 1
    assert rows["ours: false discovery rate, null tables"]["goal"] == 0.1
    unproven = rows["unconfirmed: false discovery rate, null tables"]
    assert unproven["value"] == 1
    assert unproven["goal"] is None
