"""How strongly columns of codes go together, with permutation nulls."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import gammaincc

from safescale_ammt.reading.cells import Words, mixed

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
# A draw may give the very table that was observed, summed in another order: it has to
# count as equal, or the p-value is too small.
_ROUNDING = 1e-9
# Codes below 2^31 times a radix below 2^31 stay in int64; beyond that they wrap
# around silently, so combinations are renumbered first.
_LARGEST = 2**31
# Normal quantile of a 95 % interval.
_TWO_SIDED = 1.959963984540054
# Combinations that are possible for each row, up to which looking them up is cheap.
_DENSE = 4


def binned(column: pa.ChunkedArray, bins: int) -> Codes:
    """Returns bin codes (n,): quantiles of numbers and dates, frequent levels of text.

    A missing value has a bin of its own, rarer levels share the last one.
    """
    x = numbers_of(column)
    if x is not None:
        return bin_codes(x, edges_of(x, bins))
    return levels(column, bins)


def numbers_of(column: pa.ChunkedArray) -> Floats | None:
    """Returns numbers, or dates in their column's unit, as floats (n,); NaN: missing.

    None of a column of text.
    """
    if pa.types.is_timestamp(column.type):
        column = pc.cast(pc.cast(column, pa.int64()), pa.float64(), safe=False)
    return column.to_numpy() if pa.types.is_floating(column.type) else None


def edges_of(x: Floats, bins: int) -> Floats:
    """Returns ascending upper ends of bins of numbers, the last one without an end."""
    edges = np.unique(x[~np.isnan(x)])
    if len(edges) > bins:
        # Quantiles of a column with many ties coincide: equal edges are one bin.
        edges = np.unique(np.nanquantile(x, np.linspace(0, 1, bins + 1)[1:-1]))
    return edges


def bin_codes(x: Floats, edges: Floats) -> Codes:
    """Returns the bin of each number from 1 on (n,), 0 where it is missing."""
    codes = np.searchsorted(edges, x, side="left") + 1
    return np.where(np.isnan(x), 0, codes).astype(np.int64)


def levels(column: pa.ChunkedArray, most: int) -> Codes:
    """Returns level codes (n,), frequent ones first; rarer ones share the last code."""
    coded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    codes = coded.indices.to_numpy()
    counts = np.bincount(codes)
    rank = np.empty_like(counts)
    # The stable sort breaks ties by first appearance: one table, one set of bins.
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.asarray(np.minimum(rank, most)[codes], dtype=np.int64)


def equal_rows(features: pa.Table) -> Codes:
    """Returns codes (n,) that are equal where all columns are; missing is a value.

    By keys of 64 bits, a column at a time: codes of all columns at once are many.
    """
    keys = np.zeros(features.num_rows, np.uint64)
    for name in features.column_names:
        # A text's number in the table is as good as the text.
        codes = levels(features[name], features.num_rows)
        keys += value_words(codes, name)
    coded = pa.array(keys).dictionary_encode().indices
    return np.asarray(coded.to_numpy(), dtype=np.int64)


def value_words(values: NDArray[Any], name: str) -> Words:
    """Returns words (n,) of codes or numbers that only a column of this name has."""
    salt = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], np.uint64)
    bits = values.view(np.uint64) if values.itemsize == 8 else values.astype(np.uint64)
    return mixed(mixed(bits) + salt)


def joint(columns: Sequence[NDArray[Any]]) -> tuple[Codes, list[Codes]]:
    """Crosses columns of codes.

    Returns:
        Codes (n,) of the combinations that occur, 0 .. k-1, and for every column
        its code (k,) in each combination.
    """
    codes = np.zeros(len(columns[0]), np.int64)
    size, radices = 1, list[int]()
    for column in columns:
        radix = int(column.max(initial=0)) + 1
        if size * radix > _LARGEST:
            combinations, codes = np.unique(codes, return_inverse=True)
            size, radices = len(combinations), []
        codes = codes * radix + column
        size *= radix
        radices.append(radix)
    if len(radices) == len(columns) and size <= _DENSE * len(codes):
        # Few possible combinations are looked up; many are sorted.
        found = np.zeros(size, np.bool_)
        found[codes] = True
        combinations = np.flatnonzero(found)
        parts = np.unravel_index(combinations, radices)
        return (np.cumsum(found) - 1)[codes], [p.astype(np.int64) for p in parts]
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    return codes, [column[first].astype(np.int64) for column in columns]


@dataclass(frozen=True)
class Proxy:
    """How much one feature reveals of one sensitive column.

    Attributes:
        feature: position of the feature.
        target: position of the sensitive column.
        strength: mutual information above its mean under permutation, as a share
            of the sensitive column's entropy, in [0, 1].
        p_value: family-wise over all features and columns of the test.
    """

    feature: int
    target: int
    strength: float
    p_value: float


def proxies(
    features: Sequence[Codes],
    targets: Sequence[Codes],
    permutations: int,
    seed: int,
    ordered: Collection[int] = (),
) -> list[Proxy]:
    """Tests every feature against every sensitive column at once.

    Rows of the sensitive block are permuted, so that features keep their own
    dependence and targets theirs. A statistic is minus the log of the p-value by the
    chi-squared law, whatever its degrees of freedom, so that wide tables are held to
    the measure of narrow ones: of 2 n I, and for ordered features of Kruskal and
    Wallis's H, whichever is greater. Step-down max-T (Westfall and Young 1993,
    algorithm 2.8): what was found is no rival of what is looked at next.

    Args:
        features: bin codes (n,) of each feature.
        targets: codes (n,) of each sensitive column.
        permutations: draws from the null.
        seed: of the draws.
        ordered: positions of features whose bins have an order.
    """
    crossed, parts = joint(targets)
    members = [np.eye(int(part.max()) + 1)[part] for part in parts]
    values, rng = len(members[0]), np.random.default_rng(seed)
    # Looked up: there are as many logarithms as a count may be.
    counted = np.arange(len(crossed) + 1)
    of_count = counted * np.log(np.maximum(counted, 1)) / len(crossed)
    whole = float(np.log(len(crossed)))
    ranks = {j: standard_ranks(features[j]) for j in ordered}
    sizes = [np.bincount(target) for target in targets]
    draws = np.empty((permutations + 1, len(features), len(targets)))
    trends = np.zeros_like(draws)
    for i in range(permutations + 1):
        rows = crossed if i == 0 else crossed[rng.permutation(len(crossed))]
        for j, feature in enumerate(features):
            # I(X; Y) in nats less H(X) + H(Y), which no permutation of rows changes.
            size = (int(feature.max()) + 1) * values
            table = np.bincount(feature * values + rows, minlength=size)
            table = table.reshape(-1, values)
            draws[i, j] = [
                of_count[(table @ member).astype(np.int64)].sum() - whole
                for member in members
            ]
            if j in ranks:
                sums = ranks[j] @ table
                trends[i, j] = [
                    ((sums @ member) ** 2 / np.maximum(n, 1)).sum()
                    for member, n in zip(members, sizes, strict=True)
                ]
    entropies = [_entropy(n) for n in sizes]
    statistics = np.empty_like(draws)
    for j, feature in enumerate(features):
        counts = np.bincount(feature)
        for t, n in enumerate(sizes):
            gain = draws[:, j, t] + _entropy(counts) + entropies[t]
            free, kinds = (int(np.count_nonzero(of)) - 1 for of in (counts, n))
            statistics[:, j, t] = np.maximum(
                surprise(free * kinds, gain * len(feature)),
                surprise(kinds, trends[:, j, t] / 2),
            )
    p_values = step_down(statistics.reshape(len(draws), -1)).reshape(draws.shape[1:])
    tests = []
    for j in range(len(features)):
        for t, entropy in enumerate(entropies):
            # Plug-in mutual information is above 0 for independent columns too, the
            # more the more cells the table has: its mean under the null comes off.
            gained = draws[0, j, t] - draws[1:, j, t].mean()
            strength = max(gained, 0.0) / entropy if entropy > 0 else 0.0
            tests.append(Proxy(j, t, float(strength), float(p_values[j, t])))
    return tests


def standard_ranks(feature: Codes) -> Floats:
    """Returns the ranks of bins, with mean 0 and variance 1 over the rows."""
    counts = np.bincount(feature)
    middle = np.cumsum(counts) - counts / 2
    middle = middle - counts @ middle / len(feature)
    spread = float(counts @ middle**2) / max(len(feature) - 1, 1)
    return np.asarray(middle / spread**0.5 if spread > 0 else middle)


def surprise(free: int, half: Floats) -> Floats:
    """Returns -log P(chi-squared with `free` degrees > 2 `half`); 0 without freedom."""
    if free < 1:
        return np.zeros_like(half)
    # What is less likely than a float can say is certain enough.
    return -np.log(np.maximum(gammaincc(free / 2, np.maximum(half, 0.0)), 1e-300))


def step_down(statistics: Floats) -> Floats:
    """Returns family-wise p-values (tests,) of the first draw (draws, tests)."""
    order = np.argsort(-statistics[0], kind="stable")
    ranked = statistics[:, order]
    # The greatest of those that are not above it.
    rivals = np.maximum.accumulate(ranked[:, ::-1], axis=1)[:, ::-1]
    # With the observed statistic among the draws they stay exchangeable, and the level
    # is exact under the complete null.
    p = np.maximum.accumulate((rivals >= ranked[0] - _ROUNDING).mean(axis=0))
    found = np.empty_like(p)
    found[order] = p
    return found


def proxies_by_law(features: Iterable[Codes], targets: Sequence[Codes]) -> list[Proxy]:
    """Tests every feature against every sensitive column by the chi-squared law.

    Of independent columns 2 n I follows it with (r - 1)(c - 1) degrees of freedom
    (Wilks 1938), so that I is that over 2 n in the mean. Bonferroni's factor makes the
    p-values family-wise, which needs no draw for columns that are far from the line.

    Args:
        features: bin codes (n,) of each feature, of many rows; one is held at a time.
        targets: codes (n,) of each sensitive column.
    """
    sizes = [np.bincount(target) for target in targets]
    tests = []
    for j, feature in enumerate(features):
        rows, cells = np.bincount(feature), int(feature.max()) + 1
        for t, target in enumerate(targets):
            width = len(sizes[t])
            table = np.bincount(feature * width + target, minlength=cells * width)
            entropy = _entropy(sizes[t])
            gain = _entropy(rows) + entropy - _entropy(table)
            free = int(np.count_nonzero(rows) - 1) * int(np.count_nonzero(sizes[t]) - 1)
            n = len(feature)
            p = float(gammaincc(free / 2, max(float(gain), 0.0) * n)) if free else 1.0
            above = max(gain - free / (2 * n), 0.0)
            strength = above / entropy if entropy > 0 else 0.0
            tests.append(Proxy(j, t, strength, p))
    return [
        replace(test, p_value=min(1.0, test.p_value * len(tests))) for test in tests
    ]


def _entropy(counts: NDArray[np.float64] | NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


@dataclass(frozen=True)
class Association:
    """How strongly two columns go together, without what chance gives their table.

    Attributes:
        v: Cramer's V.
        w: Cohen's w, the root of chi-squared over n; of two groups it is V.
        lower, upper: 95 % interval of V.
    """

    v: float = 0.0
    w: float = 0.0
    lower: float = 0.0
    upper: float = 0.0


def cramers_v(feature: Codes, target: Codes) -> Association:
    """Returns the association of two columns of codes.

    Without the share that chance gives a table of so many cells (Bergsma 2013,
    "A bias-correction for Cramér's V and Tschuprow's T", eq. 4 to 6). The interval is
    normal on phi-squared = chi-squared / n, by the delta method (Bishop, Fienberg and
    Holland 1975, section 14.6), to whose variance that of independent columns is added,
    2 (r - 1)(c - 1) / n^2: near independence there is no other.
    """
    n, shape = len(feature), (int(feature.max()) + 1, int(target.max()) + 1)
    table = np.bincount(feature * shape[1] + target, minlength=shape[0] * shape[1])
    table = table.reshape(shape)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    r, c = table.shape
    if min(r, c) < 2:
        return Association()
    rows, columns = table.sum(axis=1, keepdims=True), table.sum(axis=0, keepdims=True)
    # p^2 / (p_row p_column) of each cell, whose sum is phi-squared + 1.
    parts = table.astype(np.float64) ** 2 / (rows * columns)
    free = (r - 1) * (c - 1)
    phi = max(0.0, float(parts.sum()) - 1 - free / (n - 1))
    most = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    if most <= 0:
        return Association(0.0, phi**0.5, 0.0, 1.0)
    slope = 2 * n * table / (rows * columns)
    slope -= parts.sum(axis=1, keepdims=True) * n / rows
    slope -= parts.sum(axis=0, keepdims=True) * n / columns
    variance = float((table * slope**2).sum()) / n**2 + 2 * free / n**2
    reach = _TWO_SIDED * variance**0.5
    v, lower, upper = (
        min(1.0, (max(at, 0.0) / most) ** 0.5) for at in (phi, phi - reach, phi + reach)
    )
    return Association(v, phi**0.5, lower, upper)


def twin_pairs(same: Codes, group: Codes) -> NDArray[np.int64]:
    """Pairs up rows that have equal features and one group; returns rows (m, 2).

    Args:
        same: codes (n,) that are equal where all features are.
        group: codes (n,) of the group.
    """
    order = np.lexsort((np.arange(len(same)), group, same))
    key = np.stack([same[order], group[order]])
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (key[:, 1:] != key[:, :-1]).any(axis=0)
    start = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
    # First with second, third with fourth: a row is in one pair at most, so that the
    # pairs' conflicts are independent.
    odd = (np.arange(len(order)) - start) % 2 == 1
    second = np.flatnonzero(odd)
    return np.stack([order[second - 1], order[second]], axis=1)


def spread_p_value(
    hits: NDArray[np.bool_], group: Codes, draws: int, seed: int
) -> float:
    """Tests whether groups have unequal rates: permuted groups, greatest distance.

    The statistic is the greatest standardised distance from the overall rate.

    Args:
        hits: mask (n,) of the hits.
        group: codes (n,) of the group.
        draws: tables drawn from the null.
        seed: of the draws.
    """
    counts = np.bincount(group)
    counts = counts[counts > 0]
    rate = hits.mean()
    scale = np.sqrt(np.maximum(counts * rate * (1 - rate), 1e-12))

    def statistic(hits_by_group: Codes) -> Floats:
        return np.asarray(np.abs((hits_by_group - counts * rate) / scale).max(axis=-1))

    by_group = np.bincount(group[hits], minlength=int(group.max()) + 1)
    observed = statistic(by_group[np.bincount(group) > 0])
    # Permuting groups gives the hits by group exactly this law; drawing from it costs
    # the same for a thousand rows as for a million.
    law = np.random.default_rng(seed).multivariate_hypergeometric
    null = law(counts, int(hits.sum()), size=draws, method="marginals")
    above = int((statistic(null) >= observed - _ROUNDING).sum())
    # The observed table is one of the draws under the null: no p-value is ever 0.
    return (1 + above) / (1 + draws)
