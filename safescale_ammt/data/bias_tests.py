"""Four kinds of bias, each held against what makes it identifiable.

    label flips          a trusted label on rows drawn by chance
    under-sampling       the shares of the population
    proxy leakage        nothing else: the rows themselves (see `associations`)
    measurement noise    a second measurement of an input, on rows drawn by chance

A base rate that differs between groups is none of them: errors are compared among rows
of the same true class, and shares with the declared ones. Each kind has the level
`BIAS_LEVEL` over all groups, values and columns together: one test for all values of a
group (`group_excess`), and Bonferroni's factor for groups and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.data.associations import binned, levels
from safescale_ammt.data.bias_findings import BiasFinding, Examined
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.group_excess import (
    Codes,
    Floats,
    View,
    excess_p_values,
    excess_rates,
    tables_of,
)
from safescale_ammt.data.moments import within_one
from safescale_ammt.data.references import References
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.shown import FEWEST
from safescale_ammt.errors import DataError

DRAWS, MOST_DRAWS = 1_000, 20_000
"""Tables drawn from a null for each test that Bonferroni counts, and at most."""
OTHERS = "(values of few rows)"
"""What values too rare to be compared alone are together."""
SIDE = 0.025
"""Error of each bound of an interval."""
MOST_STRATA, DISTANCES = 5, 15
"""Parts of what is measured, and distances of two measurements, that are told apart."""
_MARKED = np.array([0.0, 1.0])


def label_flips(
    schema: Schema, rows: Split, references: References, table: pa.Table, seed: int
) -> Examined:
    """Compares how often labels are not the trusted ones, among rows of one true class.

    Args:
        schema: sensitive columns and classes.
        rows: development rows, one of each entity.
        references: names the column of trusted labels.
        table: the columns of references, of the same rows.
        seed: of the draws.
    """
    kind, measure = "label_flips", "flipped labels beyond those of others"
    if not references.trusted_label:
        why = (
            "Whether recorded labels differ from true ones by group cannot be seen "
            "without trusted labels: data.trusted_label names a column that has them "
            "for some rows drawn by chance."
        )
        return Examined(kind, measure, unknown=why)
    true = references.trusted(schema, table[references.trusted_label])
    draws = min(DRAWS * len(schema.sensitive), MOST_DRAWS)
    wrong, findings = (rows.label != true).astype(np.int64), list[BiasFinding]()
    for group, values, kept, codes in groups_in(schema, rows, true >= 0):
        tables = tables_of(true[kept], codes, wrong[kept])
        alone: list[View] = [
            [_MARKED if i == j else None for j in range(len(tables))]
            for i in range(len(tables))
        ]
        p = excess_p_values(tables, [*alone, [_MARKED] * len(tables)], draws, seed)
        sizes = excess_rates(tables, SIDE)
        findings += in_values((group, "", values), sizes, p, codes)
    return examined(kind, measure, findings, len(schema.sensitive))


def measurement_noise(
    schema: Schema, rows: Split, references: References, table: pa.Table, seed: int
) -> Examined:
    """Compares how much second measurements of an input differ from the first.

    Args:
        schema: sensitive columns.
        rows: development rows, one of each entity.
        references: names inputs and their second measurements.
        table: the columns of references, of the same rows.
        seed: of the draws.
    """
    kind, measure = "measurement_noise", "measurement error beyond that of others"
    if not references.repeats:
        why = (
            "Whether inputs are measured worse in some groups cannot be seen in one "
            "measurement, as people may differ more there: data.repeats names, by "
            "input, a column with a second measurement of some rows drawn by chance."
        )
        return Examined(kind, measure, unknown=why)
    findings: list[BiasFinding] = []
    tests = len(schema.sensitive) * len(references.repeats)
    draws = min(DRAWS * tests, MOST_DRAWS)
    for feature, repeat in references.repeats.items():
        one, two = rows.features[feature], table[repeat]
        both = np.asarray(pc.and_(pc.is_valid(one), pc.is_valid(two)))
        for group, values, kept, codes in groups_in(schema, rows, both):
            index = pa.array(np.flatnonzero(kept))
            seen = Repeats.of(one.take(index), two.take(index))
            tables = tables_of(seen.strata, codes, seen.distance)
            ranks = [midranks(table.sum(axis=0)) for table in tables]
            unlike = np.arange(tables[0].shape[1]) > 0
            views = [[unlike.astype(np.float64)] * len(tables), ranks]
            p = excess_p_values(tables, views, draws, seed)
            findings += in_values((group, feature, values), seen.sizes(codes), p, codes)
    return examined(kind, measure, findings, tests)


@dataclass(frozen=True)
class Repeats:
    """Two measurements of the same rows.

    Attributes:
        strata: codes (n,) of a text's first level, or of the part of a number's range
            in which their mean lies: errors that grow with what is measured are no
            matter of who is measured.
        distance: codes (n,) of how far apart the two are; 0 = equal.
        error: (n,) of a text 1 where they differ; of a number half of the squared
            difference over the variance of all values, whose mean is the share of the
            variance that the measurement adds.
    """

    strata: Codes
    distance: Codes
    error: Floats

    @classmethod
    def of(cls, one: pa.ChunkedArray, two: pa.ChunkedArray) -> Repeats:
        """Compares two columns without gaps, of one type."""
        if pa.types.is_string(one.type):
            other = np.asarray(pc.not_equal(one, two)).astype(np.int64)
            return cls(levels(one, MOST_STRATA), other, other.astype(np.float64))
        if pa.types.is_timestamp(one.type):
            one, two = one.cast(pa.int64()), two.cast(pa.int64())
        x, y = (np.asarray(column, np.float64) for column in (one, two))
        # The error is a share of the variance: in which unit does not matter.
        (x, y), _ = within_one([x, y])
        apart = np.abs(x - y)
        spread = float(np.concatenate([x, y]).var())
        strata = binned(pa.chunked_array([(x + y) / 2]), MOST_STRATA)
        # Equal ones have a code of their own, the others one by their quantile.
        distance = np.zeros(len(x), np.int64)
        if (unlike := apart > 0).any():
            distance[unlike] = binned(pa.chunked_array([apart[unlike]]), DISTANCES)
        return cls(strata, distance, apart**2 / (2 * spread) if spread else apart)

    def sizes(self, codes: Codes) -> list[tuple[float, float, float]]:
        """Returns how much greater the error of each value is than the others'.

        With the normal interval of Welch (1947, Biometrika 34:28).
        """
        found = []
        for value in range(int(codes.max()) + 1):
            mine, others = self.error[codes == value], self.error[codes != value]
            gap = float(mine.mean() - others.mean())
            spread = mine.var(ddof=1) / len(mine) + others.var(ddof=1) / len(others)
            reach = -float(ndtri(SIDE)) * float(np.sqrt(spread))
            found.append((gap, gap - reach, gap + reach))
        return found


def midranks(counts: Codes) -> Floats:
    """Returns the mean rank (levels,) of the rows of each level, in (0, 1)."""
    return np.asarray((np.cumsum(counts) - counts / 2) / max(int(counts.sum()), 1))


def under_sampling(
    schema: Schema, tables: Mapping[str, Codes], references: References
) -> Examined:
    """Compares how many rows each value has with its share of the population.

    The strength is the share of its rows that are missing beside those of the others,
    1 - [x / (n - x)] / [s / (1 - s)] of x in n rows and the share s; its interval is
    Clopper and Pearson's for x / n, and the p-value the exact binomial one. Groups
    share the level equally, values of a group by the square root of s (1 - s)
    (weighted Bonferroni: Genovese, Roeder and Wasserman 2006, Biometrika 93:509).

    Args:
        schema: groups and their values.
        tables: by group, rows of each value and class (values, classes).
        references: the shares.

    Raises:
        DataError: rows have a value without a share.
    """
    kind, measure = "under_sampling", "missing rows beside those of others"
    if not references.population:
        why = (
            "Whether a group has fewer rows than it should cannot be seen in the "
            "rows: data.population gives the shares of its values among those whom "
            "they are about."
        )
        return Examined(kind, measure, unknown=why)
    findings, groups = [], len(references.population)
    for name, shares in references.population.items():
        rows = dict(zip(schema.groups[name], tables[name].sum(axis=1), strict=True))
        check_shares(name, rows, shares)
        n, whole = (
            sum(int(rows.get(value, 0)) for value in shares),
            sum(shares.values()),
        )
        # The level goes by what the count of each value varies by chance: little is
        # to be seen of a value of which few rows are expected.
        part = {v: max(w * (whole - w), 0.0) ** 0.5 for v, w in shares.items()}
        for value, share in shares.items():
            x, s = int(rows.get(value, 0)), share / whole
            level = part[value] / max(sum(part.values()), 1e-9) / groups
            low, high = clopper_pearson(x, n, SIDE) if n else (0.0, 1.0)
            missing = [missing_share(at, s) for at in (x / max(n, 1), high, low)]
            p = float(bdtr(x, n, s)) if n else 1.0
            p = min(1.0, p / max(level, 1e-9))
            size = (missing[0], missing[1], missing[2])
            findings.append(BiasFinding(name, value, "", *size, p, x))
    return Examined(kind, measure, tuple(findings))


def proxy_leakage(features: Sequence[Mapping[str, Any]]) -> Examined:
    """Tells which inputs go with a sensitive column beyond chance, and how strongly.

    Args:
        features: the audit's section of proxies, an entry of each input and column.
    """
    kind, measure = "proxy_leakage", "Cramér's V"
    if not features:
        why = (
            "No sensitive column is declared that is no input itself: data.sensitive "
            "names those that inputs may stand in for."
        )
        return Examined(kind, measure, unknown=why)
    findings = [
        BiasFinding(
            entry["group"],
            "",
            entry["feature"],
            entry["cramers_v"],
            entry["lower"],
            entry["upper"],
            entry["p_value"],
            entry["rows"],
        )
        for entry in features
    ]
    return Examined(kind, measure, tuple(findings))


def check_shares(
    name: str, rows: Mapping[str, int], shares: Mapping[str, float]
) -> None:
    """Refuses shares that leave out a value that rows have; a gap is no value.

    Raises:
        DataError: such a value.
    """
    unnamed = [value for value in rows if value not in shares and value != "(missing)"]
    if unnamed:
        many = [value for value in unnamed if rows[value] >= FEWEST]
        shown = f", such as {many[0]!r}" if many else ""
        raise DataError(
            f"data.population.{name} gives no share to {len(unnamed)} of the values "
            f"that rows have{shown}; give every value of {name!r} its share of the "
            "population."
        )


def missing_share(observed: float, share: float) -> float:
    """The share of a group's rows that are missing beside those of the others."""
    # Of a group that has all rows nothing is missing, whatever it is divided by.
    odds = observed / max(1 - observed, 1e-9)
    return 1 - odds * (1 - share) / share


def groups_in(
    schema: Schema, rows: Split, among: NDArray[np.bool_]
) -> Iterator[tuple[str, list[str], NDArray[np.bool_], Codes]]:
    """Yields the sensitive columns of which values with ten such rows can be compared.

    Values of fewer rows are compared together, as `OTHERS`, if they have ten.

    Args:
        schema: names them.
        rows: of the table.
        among: mask (n,) of the rows that are looked at.

    Yields:
        Name, values that are compared, mask (n,) of the rows that have one of them, and
        their codes into these values.
    """
    for name in schema.sensitive:
        group = rows.groups[name]
        counts = np.bincount(group[among], minlength=len(schema.groups[name]))
        many = counts >= FEWEST
        values = [v for v, m in zip(schema.groups[name], many, strict=True) if m]
        codes = np.where(many, np.cumsum(many) - 1, len(values))
        kept = among & many[group]
        if int(counts[~many].sum()) >= FEWEST:
            values, kept = [*values, OTHERS], among
        if len(values) > 1:
            yield name, values, kept, codes[group[kept]]


def in_values(
    about: tuple[str, str, list[str]],
    sizes: Sequence[tuple[float, float, float]],
    p: Floats,
    codes: Codes,
) -> list[BiasFinding]:
    """Returns the findings of one group and input, one for each value."""
    group, column, values = about
    return [
        BiasFinding(group, value, column, *size, float(q), int(n))
        for value, size, q, n in zip(values, sizes, p, np.bincount(codes), strict=True)
    ]


def examined(
    kind: str, measure: str, findings: Sequence[BiasFinding], tests: int
) -> Examined:
    """Returns findings with Bonferroni's factor; unknown if there are none."""
    if not findings:
        why = (
            "Not identifiable with so few rows that have a reference: there is no "
            f"sensitive column of which two values have {FEWEST} of them."
        )
        return Examined(kind, measure, unknown=why)
    wise = [replace(f, p_value=min(1.0, f.p_value * tests)) for f in findings]
    return Examined(kind, measure, tuple(wise))
