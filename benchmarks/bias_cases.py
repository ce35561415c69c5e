"""Cases of `bias-detection`: real rows of Adult with one bias planted, or none.

Rows are drawn with replacement from the development rows, which are thus the
population: sex and race keep the base-rate gaps that they have. A case knows what the
audit is given (rows and references) and, for the oracle, the log likelihood ratio of
the planted mechanism at its planted strength against none, with draws of it under
none. The oracle knows group, direction, strength and every other rate; the audit
knows none of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import xlogy

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.audit import joined_rows
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.data.references import NO_REFERENCES, References
from safescale_ammt.data.schema import CategoricalFeature, NumericFeature, Schema
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE

CACHE = Path.home() / ".cache" / "safescale-ammt"
GROUPS = (("sex", "Female"), ("race", "Black"))
"""Of whom a bias is planted, in turn."""
CHECKED = 0.2
"""Share of the rows that have a trusted label, or a second measurement."""
CLASS_NOISE = np.array([0.02, 0.06])
"""Chance that a label is wrong without any bias, by true class: everybody's."""
REPEAT_NOISE = 0.03
"""Chance that a second measurement is off without any bias: everybody's."""
NULL_DRAWS, PROXY_DRAWS = 5_000, 2_000
"""Draws of the oracle's statistic without a bias."""
PLANTED, TRUSTED, AGAIN = "planted", "trusted", "again"
NUMBER, TEXT = "hours_per_week", "occupation"
"""Inputs that are measured twice, in turn."""


@dataclass(frozen=True)
class Real:
    """The development rows, and their schema."""

    schema: Schema
    rows: Split


@dataclass(frozen=True)
class Case:
    """A table with a bias, or with none.

    Attributes:
        schema: of the rows.
        rows: as the audit sees them.
        references: that the audit is given.
        beside: their columns.
        ratio: the oracle's log likelihood ratio; 0 of a case without a bias.
        null: the same of tables without a bias (draws,).
        size: what the audit's strength of the planted value should be; None = it is
            another measure.
    """

    schema: Schema
    rows: Split
    references: References = NO_REFERENCES
    beside: pa.Table = field(default_factory=lambda: pa.table({}))
    ratio: float = 0.0
    null: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    size: float | None = None


Plant = Callable[[Real, np.random.Generator, int, float, int], Case]


def real_rows() -> Real:
    """Reads the development rows of Adult; the official test file stays sealed."""
    uris = {
        role: path.resolve().as_uri() for role, path in fetch("adult", CACHE).items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        artifacts = folder / "dataset", folder / "holdout"
        store = {STORE: (folder / "store").as_uri()}
        prepare_data.run({**ADULT.data, **uris}, *artifacts, environ=store)
        dataset = Dataset.load(artifacts[0])
        rows = joined_rows(dataset.schema, [dataset.splits[name] for name in SPLITS])
    return Real(dataset.schema, rows)


def inside(schema: Schema, rows: Split, number: int) -> NDArray[np.bool_]:
    """Returns who is of the group of a case."""
    group, value = GROUPS[number % len(GROUPS)]
    member: NDArray[np.bool_] = rows.groups[group] == schema.groups[group].index(value)
    return member


def drawn(real: Real, rng: np.random.Generator, n: int) -> Split:
    """Draws rows with replacement."""
    return real.rows.take(rng.integers(0, len(real.rows), n))


def bernoulli_ratio(hits: Any, trials: Any, planted: Any, none: Any) -> Any:
    """Returns the log likelihood ratio of binomial counts."""
    found = xlogy(hits, planted) - xlogy(hits, none)
    return found + xlogy(trials - hits, 1 - planted) - xlogy(trials - hits, 1 - none)


def flips(
    real: Real,
    rng: np.random.Generator,
    n: int,
    strength: float,
    number: int,
    *,
    classes: tuple[int, ...] = (0, 1),
) -> Case:
    """Plants flips: a share of the group's labels of some true classes turns over."""
    rows = drawn(real, rng, n)
    true, mine = rows.label, inside(real.schema, rows, number)
    turns = (rng.random(n) < strength) & mine & np.isin(true, classes)
    label = true ^ (rng.random(n) < CLASS_NOISE[true]) ^ turns
    checked = rng.random(n) < CHECKED
    texts = np.array(real.schema.classes, object)[true]
    ratio, null, sizes = 0.0, np.zeros(NULL_DRAWS), []
    for code in classes:
        some = checked & mine & (true == code)
        e, m = CLASS_NOISE[code], int(some.sum())
        planted = e + strength * (1 - 2 * e)
        ratio += float(bernoulli_ratio((label != true)[some].sum(), m, planted, e))
        null += bernoulli_ratio(rng.binomial(m, e, NULL_DRAWS), m, planted, e)
        sizes.append((m, planted - e))
    rest = int((checked & mine).sum()) - sum(m for m, _ in sizes)
    return Case(
        real.schema,
        replace(rows, label=label.astype(np.int64)),
        References(trusted_label=TRUSTED),
        pa.table({TRUSTED: pa.array(texts, pa.string(), mask=~checked)}),
        ratio,
        null,
        sum(m * gap for m, gap in sizes) / max(rest + sum(m for m, _ in sizes), 1),
    )


def flips_of_positives(
    real: Real, rng: np.random.Generator, n: int, strength: float, number: int
) -> Case:
    """Plants flips of one direction: some of the group's successes are failures."""
    return flips(real, rng, n, strength, number, classes=(1,))


def under_sampling(
    real: Real, rng: np.random.Generator, n: int, strength: float, number: int
) -> Case:
    """Plants a sample that a share of the group's rows has not got into."""
    schema, mine = real.schema, inside(real.schema, real.rows, number)
    weight = np.where(mine, 1 - strength, 1.0)
    rows = real.rows.take(rng.choice(len(mine), n, p=weight / weight.sum()))
    share, planted = mine.mean(), weight[mine].sum() / weight.sum()
    hits = int(inside(schema, rows, number).sum())
    population = {
        group: {
            value: float((real.rows.groups[group] == code).mean())
            for code, value in enumerate(schema.groups[group])
        }
        for group, _ in GROUPS
    }
    null = bernoulli_ratio(rng.binomial(n, share, NULL_DRAWS), n, planted, share)
    return Case(
        schema,
        rows,
        References(population=population),
        ratio=float(bernoulli_ratio(hits, n, planted, share)),
        null=null,
        size=strength,
    )


def proxy(
    real: Real, rng: np.random.Generator, n: int, strength: float, number: int
) -> Case:
    """Plants an input that tells the group in a share of the rows.

    By turns a code of two letters, or the hours of a week, of which the lower ones are
    the group's. Elsewhere it is drawn from what all rows have.
    """
    rows = drawn(real, rng, n)
    mine, base = (
        inside(real.schema, rows, number),
        inside(real.schema, real.rows, number),
    )
    share, coded = base.mean(), number // len(GROUPS) % 2 == 0
    if coded:
        values, f = np.array([0.0, 1.0]), np.array([share, 1 - share])
    else:
        values, counts = np.unique(real.rows.features[NUMBER], return_counts=True)
        f = counts / counts.sum()
    # Whoever is inside has the lowest values, so that all rows together have f.
    lowest = np.clip(share - (np.cumsum(f) - f), 0, f)
    column, ratio, null = np.zeros(n, np.int64), 0.0, np.zeros(PROXY_DRAWS)
    for some, told in ((mine, lowest / share), (~mine, (f - lowest) / (1 - share))):
        planted, rows_here = (1 - strength) * f + strength * told, int(some.sum())
        column[some] = rng.choice(len(values), rows_here, p=planted / planted.sum())
        if strength:
            logs = np.log(np.maximum(planted, 1e-300)) - np.log(f)
            ratio += float(logs[column[some]].sum())
            null += rng.multinomial(rows_here, f, PROXY_DRAWS) @ logs
    if coded:
        made = pa.array(np.array(["a", "b"], object)[column], pa.string())
        feature: Any = CategoricalFeature(PLANTED, False, ("a", "b"), False, {})
    else:
        made = pa.array(values[column])
        feature = NumericFeature(PLANTED, False, 0, 0, 1, (0.0, 1.0), ())
    schema = replace(real.schema, features=(*real.schema.features, feature))
    features = rows.features.append_column(PLANTED, made)
    return Case(schema, replace(rows, features=features), ratio=ratio, null=null)


def measurement_noise(
    real: Real, rng: np.random.Generator, n: int, strength: float, number: int
) -> Case:
    """Plants errors: a share of the group's second measurements is anybody's value."""
    rows, name = drawn(real, rng, n), (NUMBER, TEXT)[number // len(GROUPS) % 2]
    known = real.rows.features[name].drop_null().combine_chunks()
    first = rows.features[name].combine_chunks()
    mine = inside(real.schema, rows, number)
    off = rng.random(n) < np.where(
        mine, REPEAT_NOISE + (1 - REPEAT_NOISE) * strength, REPEAT_NOISE
    )
    anybody = known.take(pa.array(rng.integers(0, len(known), n)))
    second = pa.compute.if_else(pa.array(off), anybody, first)
    gap = first.is_null().to_numpy(zero_copy_only=False)
    checked = (rng.random(n) < CHECKED) & ~gap
    again = pa.compute.if_else(pa.array(checked), second, pa.scalar(None, first.type))
    some, codes = checked & mine, np.unique(known.to_pylist(), return_inverse=True)[1]
    # Anybody's value may be the same one.
    unlike = 1 - float(((np.bincount(codes) / len(codes)) ** 2).sum())
    m, p0 = int(some.sum()), REPEAT_NOISE * unlike
    p1 = p0 + (1 - REPEAT_NOISE) * strength * unlike
    differ = pa.compute.not_equal(first, second).to_numpy(zero_copy_only=False)
    hits = int(differ[some].sum())
    return Case(
        real.schema,
        rows,
        References(repeats={name: AGAIN}),
        pa.table({AGAIN: again}),
        float(bernoulli_ratio(hits, m, p1, p0)),
        bernoulli_ratio(rng.binomial(m, p0, NULL_DRAWS), m, p1, p0),
    )


PLANTS: dict[str, tuple[str, Plant]] = {
    "flips": ("label_flips", flips),
    "flips of positives alone": ("label_flips", flips_of_positives),
    "under-sampling": ("under_sampling", under_sampling),
    "proxy": ("proxy_leakage", proxy),
    "measurement noise": ("measurement_noise", measurement_noise),
}
"""What is planted: the audit's kind, and how."""
