"""Tables in which it is known where a model errs more: Adult's rows, planted errors.

The population is Adult's 48,842 rows, each with a chance of an error: whether a model
that was not trained on it (LightGBM, five folds) gets it wrong, and in a planted slice
some chance beside. Tables are independent draws of it, so that the error of every slice
and of all other rows is known, not estimated.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.constraint_first import CACHE
from benchmarks.fair_baselines import store_beside
from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.associations import numbers_of
from safescale_ammt.data.coding import encode
from safescale_ammt.data.condition import Condition
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.slices import members
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.protected import made_whole
from safescale_ammt.store.uri import STORE

SEALED = 16_281
"""Rows of Adult's official test file."""
SELECT = 3_256
"""Rows of *select* at Adult's fractions."""
DEVELOPMENT = 3 * SELECT
"""Rows of the splits that propose: *validation*, *monitor*, *select*."""
SUPPORT, RISE = (0.02, 0.10), (0.10, 0.30)
FOLDS = 5
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Population:
    """Rows, and a model's errors.

    Attributes:
        features: raw columns (n).
        label: class codes (n,).
        wrong: which rows the model gets wrong (n,).
        groups: group name -> (values, codes (n,)).
    """

    features: pa.Table
    label: NDArray[np.int64]
    wrong: Mask
    groups: dict[str, tuple[tuple[str, ...], NDArray[np.int64]]]

    @cached_property
    def numbers(self) -> dict[str, Floats | None]:
        """The columns of numbers, None of one of texts."""
        return {n: numbers_of(self.features[n]) for n in self.features.column_names}


@dataclass(frozen=True)
class Planted:
    """A slice whose error was raised.

    Attributes:
        conditions: of the slice.
        inside: its rows in the population (n,).
        rise: points of error above the higher of what it was and what the rest has.
        chance: of an error, of each row of the population (n,).
    """

    conditions: tuple[Condition, ...]
    inside: Mask
    rise: float
    chance: Floats


def adult() -> Population:
    """Prepares Adult and lets five boosters answer the rows that each has not seen."""
    uris = {role: p.resolve().as_uri() for role, p in fetch("adult", CACHE).items()}
    with tempfile.TemporaryDirectory() as scratch:
        data, holdout = Path(scratch) / "data", Path(scratch) / "holdout"
        environ = {STORE: store_beside(holdout).uri}
        prepare_data.run({**ADULT.data, **uris}, data, holdout, environ=environ)
        dataset = Dataset.load(data)
        with made_whole(store_beside(holdout), holdout, "holdout") as rows:
            parts = [*(dataset.splits[n] for n in SPLITS), Holdout.load(rows).split]
    schema = dataset.schema
    features = pa.concat_tables([part.features for part in parts]).combine_chunks()
    label = np.concatenate([part.label for part in parts])
    groups = {
        name: (values, np.concatenate([part.groups[name] for part in parts]))
        for name, values in schema.groups.items()
    }
    inputs = encode(schema, features, "standard")
    fold = np.random.default_rng(0).integers(FOLDS, size=len(label))
    answer = np.zeros(len(label))
    own = {"objective": "binary", "num_threads": 1, "verbose": -1, "seed": 0}
    for i in range(FOLDS):
        seen = lightgbm.Dataset(inputs[fold != i], label[fold != i])
        found: Any = lightgbm.train({**own, "deterministic": True}, seen, 100)
        answer[fold == i] = found.predict(inputs[fold == i])
    return Population(features, label, (answer >= 0.5) != label, groups)


def drawn_condition(population: Population, rng: np.random.Generator) -> Condition:
    """Draws a column, and of a number two rows' values as ends, of a text one's."""
    names = population.features.column_names
    name = names[rng.integers(len(names))]
    x = population.numbers[name]
    if x is None:
        value = population.features[name][int(rng.integers(len(population.label)))]
        return Condition(name, value.as_py())
    low, high = np.sort(rng.choice(x[~np.isnan(x)], 2))
    return Condition(name, above=float(low), up_to=float(high))


def planted(population: Population, rng: np.random.Generator) -> Planted:
    """Plants a slice: one or two conditions, 2 to 10 % of the rows, 10 to 30 points."""
    base = population.wrong.astype(float)
    many = int(rng.integers(1, 3))
    rise = float(rng.uniform(*RISE))
    while True:
        asked = tuple(drawn_condition(population, rng) for _ in range(many))
        if len({condition.column for condition in asked}) < many:
            continue
        inside = members(asked, population.features)
        if not SUPPORT[0] <= inside.mean() <= SUPPORT[1]:
            continue
        own, other = base[inside].mean(), base[~inside].mean()
        added = (max(own, other) + rise - own) / (1 - own)
        chance = np.where(inside, base + (1 - base) * added, base)
        return Planted(asked, inside, rise, chance)


def drawn(
    population: Population, chance: Floats, rows: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Evidence]:
    """Draws a table: the rows of the population, and what a model answers to them."""
    index = rng.integers(len(chance), size=rows)
    wrong = rng.random(rows) < chance[index]
    label = population.label[index]
    groups = {n: (v, codes[index]) for n, (v, codes) in population.groups.items()}
    answer = label ^ wrong
    return index, Evidence(label, answer, answer.astype(float), groups)


def excess(chance: Floats, inside: Mask) -> float:
    """Returns how much more often the model errs inside than outside, exactly."""
    return float(chance[inside].mean() - chance[~inside].mean())


def overlap(one: Mask, other: Mask) -> float:
    """Returns the Jaccard index of two sets of rows."""
    return float((one & other).sum() / max(1, (one | other).sum()))
