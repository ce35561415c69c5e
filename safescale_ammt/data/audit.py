"""The first audit: what the development rows say about bias before any training.

Only development rows are read, never the sealed ones. Every flag has a bounded
false-alarm rate. What cannot be seen without trusted labels is named as
not identifiable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.binomial.two_rates import miettinen_nurminen
from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.associations import (
    bin_auc,
    binned,
    joint,
    proxies,
    spread_p_value,
    twin_pairs,
)
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.schema import Schema

SCHEMA_VERSION = 1
LEVEL = 0.05
"""Chance of at least one false flag, per section of the audit."""
# The smallest p-value of so many draws is 1/201, well below `LEVEL`.
PERMUTATIONS = 200
MOST_ROWS = 50_000
"""Rows that the permutation tests look at: more would only cost time."""
PROXY_BINS = 20
LEAK_BINS = 256
LEAK_AUC = 0.99
MIN_ROWS, MIN_POSITIVES = 200, 50
"""A group under these is too small to be judged (defaults of a constitution)."""


def audit(schema: Schema, splits: Mapping[str, Split], seed: int) -> dict[str, Any]:
    """Audits the development rows.

    Args:
        schema: features, classes and groups.
        splits: the five development splits (others are not looked at).
        seed: of the permutations.

    Returns:
        The content of `audit.json`.
    """
    # Train comes first in `SPLITS`: `_leakage` learns from the first rows.
    parts = [splits[name] for name in SPLITS]
    rows = Split(
        pa.concat_tables([part.features for part in parts]),
        np.concatenate([part.label for part in parts]),
        {g: np.concatenate([p.groups[g] for p in parts]) for g in schema.groups},
        np.concatenate([part.rows for part in parts]),
    )
    sections = {
        "base_rates": [
            _base_rates(schema, rows, group, outcome)
            for group in schema.groups
            for outcome in _outcomes(schema)
        ],
        "proxies": _proxies(schema, rows, seed),
        "label_noise": _label_noise(schema, rows, seed),
        "leakage": _leakage(schema, rows, len(splits["train"])),
    }
    return {
        "schema": SCHEMA_VERSION,
        "rows": len(rows),
        "level": LEVEL,
        **sections,
        "label_bias": {
            "status": "not identifiable",
            "why": "Whether recorded labels differ from true ones by group cannot be "
            "seen without a sample of trusted labels.",
        },
        "warnings": _warnings(sections),
    }


def _outcomes(schema: Schema) -> dict[str, int]:
    """Names the classes whose rates are compared: the positive one, or all."""
    names = (schema.positive,) if schema.positive else schema.classes
    return {name: schema.classes.index(name) for name in names}


def _base_rates(
    schema: Schema, rows: Split, group: str, outcome: str
) -> dict[str, Any]:
    """Rates of one outcome by group value, and gaps to the largest group."""
    values, codes = schema.groups[group], rows.groups[group]
    hit = rows.label == schema.classes.index(outcome)
    n = np.bincount(codes, minlength=len(values))
    x = np.bincount(codes[hit], minlength=len(values))
    largest = int(np.argmax(n))
    # Bonferroni: every other group with rows is compared with the largest one.
    level = LEVEL / max(int((n > 0).sum()) - 1, 1)
    rates: dict[str, dict[str, Any]] = {}
    for i, value in enumerate(values):
        rates[value] = {
            "rows": int(n[i]),
            "share": float(n[i] / len(codes)),
            "hits": int(x[i]),
            "under_represented": bool(n[i] < MIN_ROWS or x[i] < MIN_POSITIVES),
            **_rate(x[i], n[i]),
        }
        if n[i] and i != largest:
            # `level` is two-sided, the interval takes the level of one side.
            pair = (int(x[i]), int(n[i]), int(x[largest]), int(n[largest]))
            low, high = miettinen_nurminen(*pair, level / 2)
            rates[value]["gap"] = {
                "value": float(x[i] / n[i] - x[largest] / n[largest]),
                "lower": low,
                "upper": high,
                "differs": bool(low > 0 or high < 0),
            }
    return {
        "group": group,
        "outcome": outcome,
        "reference": values[largest],
        "values": rates,
    }


def _rate(hits: int, trials: int) -> dict[str, float]:
    """A rate with its two-sided Clopper-Pearson interval; nothing without trials."""
    if not trials:
        return {}
    low, high = clopper_pearson(int(hits), int(trials), LEVEL / 2)
    return {"rate": float(hits / trials), "lower": low, "upper": high}


def _proxies(schema: Schema, rows: Split, seed: int) -> dict[str, Any]:
    """Strength of every feature as a stand-in for every sensitive column."""
    index: NDArray[np.int64] = np.arange(len(rows))
    if len(rows) > MOST_ROWS:
        rng = np.random.default_rng(seed)
        index = np.sort(rng.choice(len(rows), MOST_ROWS, replace=False))
    # A sensitive column that is a model input too is no stand-in for itself.
    names = [name for name in schema.names if name not in schema.sensitive]
    section: dict[str, Any] = {
        "method": "mutual information over entropy, above its permutation mean; "
        "family-wise p-values by max-T over all features and sensitive columns",
        "rows": len(index),
        "permutations": PERMUTATIONS,
        "features": [],
    }
    if not names or not schema.sensitive:
        return section
    tests = proxies(
        [binned(rows.features[name], PROXY_BINS)[index] for name in names],
        [rows.groups[name][index] for name in schema.sensitive],
        PERMUTATIONS,
        seed,
    )
    section["features"] = [
        {
            "feature": names[proxy.feature],
            "group": schema.sensitive[proxy.target],
            "strength": proxy.strength,
            "p_value": proxy.p_value,
            "flagged": proxy.p_value <= LEVEL,
        }
        for proxy in sorted(tests, key=lambda p: (-p.strength, p.feature, p.target))
    ]
    return section


def _label_noise(schema: Schema, rows: Split, seed: int) -> list[dict[str, Any]]:
    """Conflicting labels among rows with equal features, by group.

    Rows are paired within equal features and group; a pair conflicts if its labels
    differ. A conflict is noise, or an outcome that the features do not decide: the
    rate is an upper end for noise, and only a difference by group is flagged.
    """
    columns = [rows.features[name].combine_chunks() for name in schema.names]
    # A missing value equals a missing value here: null has a code of its own.
    coded = [pc.dictionary_encode(c, null_encoding="encode").indices for c in columns]
    same, _ = joint([np.asarray(c.to_numpy()).astype(np.int64) for c in coded])
    section = []
    for name in schema.sensitive:
        pairs = twin_pairs(same, rows.groups[name])
        conflict = rows.label[pairs[:, 0]] != rows.label[pairs[:, 1]]
        group = rows.groups[name][pairs[:, 0]]
        p = 1.0
        if conflict.any():
            # Five times the draws of the proxies: Bonferroni multiplies this p-value.
            p = spread_p_value(conflict, group, PERMUTATIONS * 5, seed)
        p = min(1.0, p * len(schema.sensitive))
        values = schema.groups[name]
        n = np.bincount(group, minlength=len(values))
        x = np.bincount(group[conflict], minlength=len(values))
        section.append(
            {
                "group": name,
                "pairs": len(pairs),
                "p_value": p,
                "flagged": p <= LEVEL,
                "values": {
                    value: {"pairs": int(n[i]), "conflicts": int(x[i])}
                    | _rate(x[i], n[i])
                    for i, value in enumerate(values)
                },
            }
        )
    return section


def _leakage(schema: Schema, rows: Split, train: int) -> list[dict[str, Any]]:
    """AUC of every single feature: near 1, it is probably a copy of the label.

    Args:
        schema: features and classes.
        rows: all development rows, those of train first.
        train: number of train rows, which the bins' scores are learnt from.
    """
    learn = np.arange(len(rows)) < train
    # A bin that no learning row falls into says nothing: small data, fewer bins.
    bins = min(LEAK_BINS, max(2, train // 20))
    section = []
    for name in schema.names:
        feature = binned(rows.features[name], bins)
        best = max(
            bin_auc(feature, rows.label == code, learn)
            for code in _outcomes(schema).values()
        )
        section.append({"feature": name, "auc": best, "flagged": best > LEAK_AUC})
    return section


def _warnings(sections: Mapping[str, Any]) -> list[str]:
    """Puts every flag into a sentence, the gravest first."""
    leaks = [
        f"Feature {e['feature']!r} alone predicts the label (AUC {e['auc']:.3f}): it "
        "may be a copy of it that will not exist at prediction time."
        for e in sections["leakage"]
        if e["flagged"]
    ]
    noise = [
        f"Rows with equal features have conflicting labels at unequal rates by "
        f"{e['group']} (p = {e['p_value']:.3g}): label noise, or outcomes that the "
        "features decide less well for some."
        for e in sections["label_noise"]
        if e["flagged"]
    ]
    small = [
        f"{e['group']} = {value!r} has {v['rows']} development rows and {v['hits']} "
        f"with {e['outcome']!r}: too few for most promises."
        for e in sections["base_rates"]
        for value, v in e["values"].items()
        if v["under_represented"]
    ]
    gaps = [
        f"{e['outcome']!r} is {abs(v['gap']['value']):.3f} "
        f"{'more' if v['gap']['value'] > 0 else 'less'} frequent in {e['group']} = "
        f"{value!r} than in {e['reference']!r}."
        for e in sections["base_rates"]
        for value, v in e["values"].items()
        if v.get("gap", {}).get("differs")
    ]
    stand_ins = [
        f"Feature {e['feature']!r} holds {e['strength']:.0%} of what {e['group']!r} "
        "tells: leaving the column out does not hide it."
        for e in sections["proxies"]["features"]
        # With many rows a feature that reveals next to nothing is significant too.
        if e["flagged"] and e["strength"] >= 0.1
    ]
    return [*leaks, *noise, *small, *gaps, *stand_ins]
