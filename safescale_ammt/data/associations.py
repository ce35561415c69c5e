"""How strongly columns of codes go together, with permutation nulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
_ROUNDING = 1e-9
"""Sums in another order must not tell a draw from an observed table it equals."""
_LARGEST = 2**31
"""Codes of combinations are renumbered before they could leave int64."""


def binned(column: pa.ChunkedArray, bins: int) -> Codes:
    """Returns bin codes (n,): quantile bins of numbers, frequent levels of text.

    A missing value has a bin of its own, rarer levels share the last one.
    """
    if pa.types.is_floating(column.type):
        x = column.to_numpy()
        present = np.unique(x[~np.isnan(x)])
        if len(present) > bins:
            present = np.unique(np.nanquantile(x, np.linspace(0, 1, bins + 1)[1:-1]))
        place = np.searchsorted(present, x, side="left") + 1
        return np.where(np.isnan(x), 0, place).astype(np.int64)
    coded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    codes = coded.indices.to_numpy()
    counts = np.bincount(codes)
    rank = np.empty_like(counts)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.asarray(np.minimum(rank, bins)[codes], dtype=np.int64)


def joint(columns: Sequence[NDArray[Any]]) -> tuple[Codes, list[Codes]]:
    """Crosses columns of codes.

    Returns:
        Codes (n,) of the combinations that occur, 0 .. k-1, and for every column
        its code (k,) in each combination.
    """
    codes = np.zeros(len(columns[0]), np.int64)
    size = 1
    for column in columns:
        radix = int(column.max(initial=0)) + 1
        if size * radix > _LARGEST:
            kept, codes = np.unique(codes, return_inverse=True)
            size = len(kept)
        codes = codes * radix + column
        size *= radix
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    return codes, [column[first].astype(np.int64) for column in columns]


@dataclass(frozen=True)
class Proxy:
    """How much one feature tells about one sensitive column.

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
    features: Sequence[Codes], targets: Sequence[Codes], permutations: int, seed: int
) -> list[Proxy]:
    """Tests every feature against every sensitive column at once.

    Rows of the sensitive block are permuted, so that features keep their own
    dependence and targets theirs. Single-step max-T of Westfall and Young (1993):
    statistics are standardised over all draws, the observed one among them, which
    keeps the draws exchangeable and the level exact under the complete null.

    Args:
        features: bin codes (n,) of each feature.
        targets: codes (n,) of each sensitive column.
        permutations: draws from the null.
        seed: of the draws.
    """
    crossed, parts = joint(targets)
    members = [np.eye(int(part.max()) + 1)[part] for part in parts]
    rng = np.random.default_rng(seed)
    draws = np.empty((permutations + 1, len(features), len(targets)))
    for i in range(permutations + 1):
        rows = crossed if i == 0 else crossed[rng.permutation(len(crossed))]
        for j, feature in enumerate(features):
            draws[i, j] = _informations(feature, rows, members)
    spread = draws.std(axis=0)
    scaled = (draws - draws.mean(axis=0)) / np.where(spread > _ROUNDING, spread, 1.0)
    greatest = scaled.reshape(len(draws), -1).max(axis=1)
    entropies = [_entropy(np.bincount(target)) for target in targets]
    found = []
    for j in range(len(features)):
        for t, entropy in enumerate(entropies):
            gain = draws[0, j, t] - draws[1:, j, t].mean()
            strength = max(gain, 0.0) / entropy if entropy > 0 else 0.0
            p = float(np.mean(greatest >= scaled[0, j, t] - _ROUNDING))
            found.append(Proxy(j, t, float(strength), p))
    return found


def _informations(feature: Codes, crossed: Codes, members: Sequence[Floats]) -> Floats:
    """Mutual information (nats) of a feature with every crossed column.

    Up to what permuting rows cannot change: minus the entropy of both together.
    """
    values = len(members[0])
    size = (int(feature.max()) + 1) * values
    table = np.bincount(feature * values + crossed, minlength=size)
    table = table.reshape(-1, values)
    return np.array([-_entropy((table @ member).reshape(-1)) for member in members])


def _entropy(counts: NDArray[np.float64] | NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def bin_auc(
    feature: Codes, label: NDArray[np.bool_], learn: NDArray[np.bool_]
) -> float:
    """Returns the AUC of the best score that one binned feature gives.

    Bins are scored by their rate of positives on the rows to learn from; the AUC
    is taken on the other rows, so that an identifier earns nothing.
    """
    size = int(feature.max()) + 1
    seen = np.bincount(feature[learn], minlength=size)
    hits = np.bincount(feature[learn & label], minlength=size)
    prior = label[learn].mean()
    rate = np.where(seen > 0, hits / np.maximum(seen, 1), prior)
    _, rank = np.unique(rate, return_inverse=True)
    positive = np.bincount(rank[feature[~learn & label]], minlength=size)
    negative = np.bincount(rank[feature[~learn & ~label]], minlength=size)
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return 0.5
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / pairs)


def twin_pairs(same: Codes, group: Codes) -> NDArray[np.int64]:
    """Pairs up rows that have equal features and one group; returns rows (m, 2).

    Pairs are disjoint, so that their conflicts are independent.
    """
    order = np.lexsort((np.arange(len(same)), group, same))
    key = np.stack([same[order], group[order]])
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (key[:, 1:] != key[:, :-1]).any(axis=0)
    start = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
    odd = (np.arange(len(order)) - start) % 2 == 1
    second = np.flatnonzero(odd)
    return np.stack([order[second - 1], order[second]], axis=1)


def spread_p_value(
    hits: NDArray[np.bool_], group: Codes, draws: int, seed: int
) -> float:
    """Tests whether groups have unequal rates: permuted groups, greatest distance.

    The statistic is the greatest standardised distance of a group's hits from what
    the overall rate expects. Permuting groups gives hits by group a multivariate
    hypergeometric law, which is drawn directly.
    """
    counts = np.bincount(group)
    counts = counts[counts > 0]
    rate = hits.mean()
    scale = np.sqrt(np.maximum(counts * rate * (1 - rate), 1e-12))

    def statistic(found: Codes) -> Floats:
        return np.asarray(np.abs((found - counts * rate) / scale).max(axis=-1))

    found = np.bincount(group[hits], minlength=int(group.max()) + 1)
    observed = statistic(found[np.bincount(group) > 0])
    rng = np.random.default_rng(seed)
    null = rng.multivariate_hypergeometric(
        counts, int(hits.sum()), size=draws, method="marginals"
    )
    above = int((statistic(null) >= observed - _ROUNDING).sum())
    return (1 + above) / (1 + draws)
