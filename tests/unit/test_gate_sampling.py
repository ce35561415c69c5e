"""The error of the gate over ways in which rows repeat, and the bench that shows it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.gate_populations import (
    GAPS,
    LOW,
    People,
    cells,
    copied,
    entities,
    other_column,
    uneven,
)
from benchmarks.gate_sampling import (
    ALPHA,
    agrees,
    below,
    formerly_judged,
    hashed,
    judged,
    prepared_hashes,
    rates,
)
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.two_rates import shows_below
from safescale_ammt.data.splitting import row_hex

DRAWS = {
    "cells": (cells, 500),
    "no two equal": (cells, 0),
    "entities": (entities, 5),
    "uneven": (uneven, 10),
    "other column": (other_column, 4),
    "copies": (copied, 9),
}
REPLICATES = 40


def people(name: str, seed: int = 0, base: float = 0.5) -> People:
    draw, value = DRAWS[name]
    return draw(np.random.default_rng(seed), base, value)


@cache
def measured(name: str) -> dict[str, Any]:
    draw, value = DRAWS[name]
    return rates(draw, value, 0.5, replicates=REPLICATES, seed=0, whole_way=0)


@pytest.mark.parametrize("name", ["cells", "uneven"])
def test_a_broken_promise_passes_at_most_as_often_as_alpha_says(name: str) -> None:
    most = ALPHA + 3 * (ALPHA * (1 - ALPHA) / REPLICATES) ** 0.5
    assert max(measured(name)[f"new_{gap:g}"] for gap in GAPS[1:]) <= most


@pytest.mark.parametrize("name", ["cells", "uneven"])
def test_where_equal_rows_kept_together_it_passed_far_more_often(name: str) -> None:
    most = ALPHA + 3 * (ALPHA * (1 - ALPHA) / REPLICATES) ** 0.5
    assert measured(name)["old_0.08"] > most


def test_a_kept_promise_is_shown_more_often_than_before() -> None:
    assert measured("cells")["new_0"] > 0.8 > measured("cells")["old_0"]


@pytest.mark.parametrize("name", DRAWS)
def test_the_benchmark_judges_as_prepare_judge_and_gate_do(name: str) -> None:
    assert agrees(people(name, seed=3, base=0.3), seed=7)


@pytest.mark.parametrize("name", DRAWS)
def test_a_populations_rates_are_those_it_states(name: str) -> None:
    drawn = people(name)
    one = np.ones(len(drawn.sex), dtype=bool)
    if drawn.entity is not None or drawn.copies:
        # A random row of a random entity; of a record, all rows are the same.
        unit = drawn.content if drawn.copies else drawn.entity
        order = np.random.default_rng(1).permutation(len(one))
        one[:] = False
        one[order[np.unique(unit[order], return_index=True)[1]]] = True
    for sex in (0, 1):
        some = one & (drawn.label == 1) & (drawn.sex == sex)
        rate = LOW + 0.08 * sex
        error = (rate * (1 - rate) / some.sum()) ** 0.5
        assert abs(drawn.found(0.08)[some].mean() - rate) < 4 * error


def test_a_cell_is_found_as_a_whole_or_not_at_all() -> None:
    drawn = people("cells")
    rows = hashed(drawn, np.random.default_rng(0))
    assert 480 < len(np.unique(rows)) <= 520
    for gap in GAPS:
        found = {(r.tobytes(), f) for r, f in zip(rows, drawn.found(gap), strict=True)}
        assert len(found) == len(np.unique(rows))


@pytest.mark.parametrize("name", ["entities", "uneven"])
def test_of_an_entity_one_row_is_judged_and_formerly_all_were(name: str) -> None:
    drawn = people(name)
    rows = hashed(drawn, np.random.default_rng(0))
    entity = drawn.entity[judged(drawn, rows, 0)]
    assert len(np.unique(entity)) == len(entity)
    before = drawn.entity[formerly_judged(drawn, rows, 0)]
    sizes = np.bincount(drawn.entity)[np.unique(before)]
    assert len(before) == sizes.sum() > 2 * len(entity)


@pytest.mark.parametrize(
    ("n1", "n0"), [(100, 100), (101, 700), (420, 180), (900, 2100)]
)
def test_where_the_normal_law_leaves_no_doubt_the_exact_one_says_the_same(
    n1: int, n0: int
) -> None:
    rng, line = np.random.default_rng(0), Line("difference", 0.08, n1, n0)
    x0 = rng.binomial(n0, 0.6, 60)
    # Around the level of the test, where doubt is.
    error = (n1 * 0.23 * (1 + n1 / n0)) ** 0.5
    x1 = (n1 * (x0 / n0 + 0.08) + error * rng.normal(-1.65, 0.4, 60)).astype(int)
    exact = shows_below(x1, x0, line, ALPHA)
    said = [below(x1[[i]], x0[[i]], line) for i in range(60)]
    assert 0 < exact.sum() < 60
    np.testing.assert_array_equal(said, exact)


def test_formerly_equal_rows_shared_a_split_and_now_they_need_not() -> None:
    drawn = people("cells")
    rows = hashed(drawn, np.random.default_rng(0))
    for choose, together in ((formerly_judged, True), (judged, False)):
        sealed = np.isin(np.arange(len(rows)), choose(drawn, rows, 0))
        assert (
            not set(rows[sealed].tolist()) & set(rows[~sealed].tolist())
        ) == together


def test_the_first_stage_seals_the_rows_that_the_benchmark_judges(
    tmp_path: Path,
) -> None:
    drawn = people("entities")
    columns = {name: c.texts() for name, c in drawn.table().columns.items()}
    pq.write_table(pa.table(columns), tmp_path / "people.parquet")
    source = (tmp_path / "people.parquet").as_uri()
    section = replace(drawn.config(7), source=source).to_params()
    preparing.run(section, tmp_path / "dataset", tmp_path / "holdout")
    sealed = preparing.sealed(tmp_path / "holdout")
    rows = prepared_hashes(drawn)
    chosen = judged(drawn, rows, 7)
    assert sorted(row_hex(sealed.split.rows)) == sorted(row_hex(rows[chosen]))
    assert sealed.rows == 5 * len(chosen)
