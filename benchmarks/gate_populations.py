"""Populations with a known gap, from which gate-sampling draws its tables.

Every person has a sex, a label and a place u in [0, 1) that a fixed model reads: of the
positives it finds those with u below the true positive rate of their sex. So one table
is judged under several gaps, each of which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.configuration_examples import SPLITS
from safescale_ammt.config.sections import DataConfig
from safescale_ammt.reading.columns import Column, RawTable

GAPS = (0.0, 0.08, 0.12)
LOW = 0.6
"""True positive rate of sex 0; sex 1 has the gap more."""
MEN = 0.7
ROWS = 20_000


@dataclass(frozen=True)
class People:
    """A table of people.

    Attributes:
        sex: 0 or 1 (n,).
        label: 0 or 1 (n,).
        u: place (n,) that the model compares with a rate.
        content: number (n,) of what else a row says: rows with equal numbers, sexes and
            labels are equal.
        stratum: value (n,) of the first sensitive column.
        entity: number (n,) of each row's entity; None if rows have none.
        copies: whether equal rows are copies of one record, and so declared.
    """

    sex: np.ndarray
    label: np.ndarray
    u: np.ndarray
    content: np.ndarray
    stratum: np.ndarray
    entity: np.ndarray | None = None
    copies: bool = False

    def found(self, gap: float) -> np.ndarray:
        """Says whom the model answers positive; of negatives one in ten."""
        rate = np.where(self.label == 1, LOW + gap * self.sex, 0.1)
        return np.asarray(self.u < rate)

    def config(self, seed: int) -> DataConfig:
        """Returns the section that describes the table."""
        return DataConfig(
            label="y",
            positive="1",
            sensitive=("stratum", "sex"),
            entity="" if self.entity is None else "who",
            drop_duplicates=self.copies,
            splits=SPLITS,
            seed=seed,
        )

    def table(self) -> RawTable:
        """Returns the raw table; `u` and `content` are its inputs."""
        columns: dict[str, Any] = {
            "stratum": np.char.add("s", self.stratum.astype(str)),
            "sex": np.array(["F", "M"])[self.sex],
            "y": self.label.astype(str),
            "u": [repr(float(u)) for u in self.u],
            "content": self.content.astype(str),
        }
        if self.entity is not None:
            columns["who"] = np.char.add("e", self.entity.astype(str))
        texts = {name: pa.chunked_array([pa.array(c)]) for name, c in columns.items()}
        read = {name: Column.of(column) for name, column in texts.items()}
        return RawTable(read, len(self.sex), "made up", {}, names_are_safe=True)


def cells(rng: np.random.Generator, base: float, number: int) -> People:
    """Draws rows of a population with so many distinct rows; 0 = no two are equal.

    The cells of a sex and label have exponential weights, in a random order. An edge of
    theirs lies on each rate, so that a cell is found as a whole or not at all.
    """
    sex, label = (rng.random(ROWS) < MEN) * 1, (rng.random(ROWS) < base) * 1
    u, content = rng.random(ROWS), np.arange(ROWS)
    for s, y in ((0, 0), (0, 1), (1, 0), (1, 1)) if number else ():
        share = (MEN if s else 1 - MEN) * (base if y else 1 - base)
        weights = rng.exponential(size=max(4, round(number * share)))
        edges = np.cumsum(weights) / weights.sum()
        lines = [LOW + gap * s for gap in GAPS] if y else [0.1]
        edges = np.unique([0.0, *edges[:-1], *lines])
        inside = (sex == s) & (label == y)
        content[inside] = np.searchsorted(edges, u[inside], side="right") - 1
        u[inside] = edges[content[inside]]
    return People(sex, label, u, content, sex)


def entities(rng: np.random.Generator, base: float, size: int) -> People:
    """Draws entities with so many rows each, which the model finds all or none of."""
    entity = np.arange(ROWS) // size
    people = -(-ROWS // size)
    sex, u = (rng.random(people) < MEN) * 1, rng.random(people)
    label = (rng.random(ROWS) < base) * 1
    sex = sex[entity]
    return People(sex, label, u[entity], np.arange(ROWS), sex, entity)


def uneven(rng: np.random.Generator, base: float, most: int) -> People:
    """Draws entities with 1 to `most` rows, larger ones found more often.

    A random row of a random entity is found at the stated rates, a random row is not.
    """
    sizes = rng.integers(1, most + 1, ROWS)
    entity = np.repeat(np.arange(ROWS), sizes)[:ROWS]
    sex, u = (rng.random(ROWS) < MEN) * 1, rng.random(ROWS)
    # Small ones get the upper half of the places, large ones the lower: of all entities
    # u is uniform. (The middle size of an odd number takes both halves.)
    half = np.sign((most + 1) / 2 - sizes)
    u = np.where(half == 0, u, u / 2 + (half > 0) / 2)
    label = (rng.random(ROWS) < base) * 1
    sex = sex[entity]
    return People(sex, label, u[entity], np.arange(ROWS), sex, entity)


def other_column(rng: np.random.Generator, base: float, regions: int) -> People:
    """Draws people stratified by a region, on which sex and model depend."""
    sex, label = (rng.random(ROWS) < MEN) * 1, (rng.random(ROWS) < base) * 1
    # Men live in the first regions more often, and there they are found more often.
    place = rng.random(ROWS)
    region = (regions * np.where(sex == 1, place**2, place)).astype(np.int64)
    # The place is a part of u: within a sex it is uniform, and so is u modulo 1.
    u = (place + rng.random(ROWS) / 4) % 1
    return People(sex, label, u, np.arange(ROWS), region)


def copied(rng: np.random.Generator, base: float, most: int) -> People:
    """Draws records of which each stands in the table 1 to `most` times."""
    record = np.repeat(np.arange(ROWS), rng.integers(1, most + 1, ROWS))[:ROWS]
    sex, label = (rng.random(ROWS) < MEN) * 1, (rng.random(ROWS) < base) * 1
    sex, label, u = sex[record], label[record], rng.random(ROWS)[record]
    return People(sex, label, u, record, sex, copies=True)
