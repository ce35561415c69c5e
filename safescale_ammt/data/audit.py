"""The first audit: what the development rows say about bias before any training.

Only development rows are read, never the sealed ones. Every flag has a bounded
false-alarm rate. What cannot be seen without trusted labels is named as
not identifiable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.binomial.two_rates import miettinen_nurminen
from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.associations import (
    Association,
    binned,
    cramers_v,
    equal_rows,
    proxies,
    proxies_by_law,
    spread_p_value,
    twin_pairs,
)
from safescale_ammt.data.audit_warnings import AuditWarning, ranked
from safescale_ammt.data.bias_findings import Examined
from safescale_ammt.data.bias_tests import (
    label_flips,
    measurement_noise,
    proxy_leakage,
    under_sampling,
)
from safescale_ammt.data.counts import Counts
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.groups import class_groups
from safescale_ammt.data.image_audit import (
    image_kinds,
    image_section,
    image_warnings,
)
from safescale_ammt.data.leaks import Leak, label_tellers, leak_warnings
from safescale_ammt.data.references import NO_REFERENCES, References
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import equal_codes

SCHEMA_VERSION = 3
LEVEL = 0.05
"""Chance of at least one false flag, per section of the audit."""
# The smallest p-value of so many draws is 1/201, well below `LEVEL`.
PERMUTATIONS = 200
MOST_ROWS = 50_000
"""Rows that the permutation tests look at: more would only cost time."""
MOST_PERMUTED = 1 << 29
"""Cells that all permutations of a table visit, at most; of more the law decides."""
BY_LAW = (
    "mutual information over entropy, above its mean of independent columns; "
    "family-wise p-values by the chi-squared law and Bonferroni's factor; Cramer's V "
    "and Cohen's w without bias; flagged where p and w are"
)
PROXY_BINS = 20
STRENGTH_BINS = 256
LARGE_EFFECT = 0.5
"""Cohen's w from which an association is large (Cohen 1988, Statistical Power
Analysis for the Behavioral Sciences, section 7.2.3)."""
MIN_ROWS, MIN_POSITIVES = 200, 50
"""A group under these is too small to be judged (defaults of a constitution)."""


MANY_ROWS = (
    "Not identifiable in a sample of so many rows: its rows are not known to be about "
    "different entities (data.entity)."
)


@dataclass(frozen=True)
class Audit:
    """What the development rows say.

    Attributes:
        figures: the sections of `audit.json`.
        warnings: the worst first; facts that others have found are among them.
        leaks: how well each input tells the label.
        examined: each kind of bias, found or not, or not identifiable.
    """

    figures: Mapping[str, Any]
    warnings: tuple[AuditWarning, ...]
    leaks: tuple[Leak, ...]
    examined: tuple[Examined, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `audit.json`."""
        return {
            "schema": SCHEMA_VERSION,
            **self.figures,
            "bias": [kind.to_dict() for kind in self.examined],
            "leakage": [
                {
                    "columns": list(leak.columns),
                    "auc": leak.auc,
                    "best": leak.best,
                    "flagged": leak.suspect,
                }
                for leak in self.leaks
            ],
            "warnings": [warning.to_dict() for warning in self.warnings],
        }


def audit(
    schema: Schema,
    splits: Mapping[str, Split],
    seed: int,
    facts: Iterable[AuditWarning] = (),
    counts: Counts | None = None,
    *,
    references: References = NO_REFERENCES,
) -> Audit:
    """Audits the development rows.

    Args:
        schema: features, classes and groups.
        splits: the five development splits (others are not looked at).
        seed: of the permutations.
        facts: warnings that the preparation of these rows has led to.
        counts: of all development rows, if the splits are a sample of them; then the
            rates are of all rows, and the rest of the sample.
        references: what biases are held against; their columns stand beside the inputs.

    Raises:
        DataError: references that do not fit the rows.
    """
    parts = [splits[name] for name in SPLITS]
    rows = joined_rows(schema, parts)
    # Equal rows may lie in several splits: in one fold, none tells another's label.
    _, first, same = np.unique(
        equal_codes(rows.rows), return_index=True, return_inverse=True
    )
    folds = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[first][same]
    # An image is no column of values that other rows share.
    leaks = [] if schema.image else label_tellers(schema, rows, folds)
    # With a positive class its rates say it all; else each class has some.
    outcomes = (schema.positive,) if schema.positive else schema.classes
    tables = {
        group: np.sum([counts.table(split, group)[2] for split in SPLITS], axis=0)
        if counts
        else class_table(schema, rows, group)
        for group in schema.groups
    }
    whole = sum(counts.split(split).rows for split in SPLITS) if counts else len(rows)
    # Rows of one entity tell of each other: to a test they are one.
    alone = [part.thinned() for part in parts]
    people = joined_rows(schema, alone) if schema.entity else rows
    of_label = class_groups(schema)
    sections: dict[str, Any] = {
        "base_rates": [
            _base_rates(schema, tables[group], group, outcome)
            for group in schema.groups
            # Of a group that is made of the label, the rates are 0 and 1.
            if group not in of_label
            for outcome in outcomes
        ],
        "proxies": proxy_section(schema, people, seed),
        "label_noise": _label_noise(schema, people, seed),
        **image_section(schema, rows),
    }
    if schema.entity:
        tables = {group: class_table(schema, people, group) for group in schema.groups}
    beside = beside_inputs(schema, alone)
    examined: tuple[Examined, ...] = (
        label_flips(schema, people, references, beside, seed),
        under_sampling(schema, tables, references),
        proxy_leakage(sections["proxies"]["features"]),
        measurement_noise(schema, people, references, beside, seed),
    )
    if schema.entity and parts[0].entity is None:
        # A sample draws rows apart, and nobody knows which are about one entity.
        examined = tuple(replace(kind, unknown=MANY_ROWS) for kind in examined)
    if schema.image:
        examined = image_kinds(examined)
    figures = {
        "rows": whole,
        # All that is not said of them is said of this sample.
        **({"sampled_rows": len(rows)} if len(rows) < whole else {}),
        "level": LEVEL,
        **sections,
    }
    found = [*leak_warnings(leaks), *_warnings(schema, sections), *facts]
    found += image_warnings(sections, len(rows))
    found += [warning for kind in examined for warning in kind.warnings()]
    return Audit(figures, ranked(found), tuple(leaks), examined)


def joined_rows(schema: Schema, parts: Sequence[Split]) -> Split:
    """Puts the rows of splits one after another, with the model's inputs alone."""
    return Split(
        pa.concat_tables([part.features.select(list(schema.names)) for part in parts]),
        np.concatenate([part.label for part in parts]),
        {g: np.concatenate([p.groups[g] for p in parts]) for g in schema.groups},
        np.concatenate([part.rows for part in parts]),
    )


def beside_inputs(schema: Schema, parts: Sequence[Split]) -> pa.Table:
    """Returns the columns of references that stand beside the inputs of splits."""
    return pa.concat_tables(
        [part.features.drop_columns(list(schema.names)) for part in parts]
    )


def class_table(schema: Schema, rows: Split, group: str) -> NDArray[np.int64]:
    """Counts the rows of every group value and class, int64 (values, classes)."""
    shape = len(schema.groups[group]), len(schema.classes)
    cells = rows.groups[group] * shape[1] + rows.label
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def _base_rates(
    schema: Schema, table: NDArray[np.int64], group: str, outcome: str
) -> dict[str, Any]:
    """Rates of one outcome by group value, and gaps to the largest group.

    Args:
        schema: names groups and classes.
        table: rows of every value and class (values, classes).
        group: the group.
        outcome: the class.
    """
    values = schema.groups[group]
    n, x = table.sum(axis=1), table[:, schema.classes.index(outcome)]
    largest = int(np.argmax(n))
    # Bonferroni: every other group with rows is compared with the largest one.
    level = LEVEL / max(int((n > 0).sum()) - 1, 1)
    rates: dict[str, dict[str, Any]] = {}
    for i, value in enumerate(values):
        rates[value] = {
            "rows": int(n[i]),
            "share": float(n[i] / n.sum()),
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


def proxy_section(schema: Schema, rows: Split, seed: int) -> dict[str, Any]:
    """Strength of every feature as a stand-in for every sensitive column."""
    index: NDArray[np.int64] = np.arange(len(rows))
    if len(rows) > MOST_ROWS:
        rng = np.random.default_rng(seed)
        index = np.sort(rng.choice(len(rows), MOST_ROWS, replace=False))
    # A sensitive column that is a model input too is no stand-in for itself.
    named = () if schema.image else schema.names
    names = [name for name in named if name not in schema.sensitive]
    section: dict[str, Any] = {
        "method": "mutual information over entropy, above its permutation mean; "
        "family-wise p-values by step-down max-T over all features and sensitive "
        "columns, of ordered ones by their ranks too; "
        "Cramer's V and Cohen's w without bias; flagged where p and w are",
        "rows": len(index),
        "permutations": PERMUTATIONS,
        "features": [],
    }
    if not names or not schema.sensitive:
        return section
    features = (binned(rows.features[name], PROXY_BINS)[index] for name in names)
    targets = [rows.groups[name][index] for name in schema.sensitive]
    if len(names) * len(index) * PERMUTATIONS <= MOST_PERMUTED:
        ordered = [
            j
            for j, name in enumerate(names)
            if not pa.types.is_string(rows.features[name].type)
        ]
        tests = proxies([*features], targets, PERMUTATIONS, seed, ordered)
    else:
        # A wide table of many rows: no draw of 200 could say more than the law does.
        tests = proxies_by_law(features, targets)
        section |= {"method": BY_LAW, "permutations": 0}
    bins = min(STRENGTH_BINS, max(2, len(index) // 20))
    effects: dict[tuple[int, int], Association] = {}
    for j, name in enumerate(names):
        fine = binned(rows.features[name], bins)[index]
        effects |= {(j, t): cramers_v(fine, target) for t, target in enumerate(targets)}
    for proxy in sorted(tests, key=lambda p: (-p.strength, p.feature, p.target)):
        group = schema.sensitive[proxy.target]
        # Few bins for two hundred permutations; more where a level may tell it all.
        effect = effects[proxy.feature, proxy.target]
        section["features"].append(
            {
                "feature": names[proxy.feature],
                "group": group,
                "rows": len(index),
                "strength": proxy.strength,
                "p_value": proxy.p_value,
                "cramers_v": effect.v,
                "lower": effect.lower,
                "upper": effect.upper,
                "cohens_w": effect.w,
                # With many rows a feature that reveals next to nothing is significant.
                "flagged": proxy.p_value <= LEVEL and effect.w >= LARGE_EFFECT,
            }
        )
    return section


def _label_noise(schema: Schema, rows: Split, seed: int) -> list[dict[str, Any]]:
    """Conflicting labels among rows with equal features, by group.

    Rows are paired within equal features and group; a pair conflicts if its labels
    differ. A conflict is noise, or an outcome that the features do not decide: the
    rate is an upper end for noise, and only a difference by group is flagged.
    """
    same = equal_rows(rows.features)
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


def _warnings(schema: Schema, sections: Mapping[str, Any]) -> list[AuditWarning]:
    """Puts every flag into a sentence; those of one group's values into one."""
    found = [
        AuditWarning(
            "proxy",
            (e["feature"],),
            e["cramers_v"],
            f"{e['feature']!r} stands in for {e['group']!r} (Cramér's V "
            f"{e['cramers_v']:.2f}): leaving {e['group']!r} out does not hide it.",
            e["group"],
        )
        for e in sections["proxies"]["features"]
        # A sensitive column that is an input itself needs no stand-in.
        if e["flagged"] and e["group"] not in schema.names
    ]
    for e in sections["label_noise"]:
        if e["flagged"]:
            conflicts = sum(v["conflicts"] for v in e["values"].values())
            sentence = (
                f"{conflicts} of {e['pairs']} pairs of rows with equal inputs have "
                f"different labels, at unequal rates by {e['group']!r} (p = "
                f"{e['p_value']:.2g}): the inputs or the labels are worse for some."
            )
            found.append(
                AuditWarning("label_noise", (), conflicts, sentence, e["group"])
            )
    return [*found, *_group_warnings(schema, sections["base_rates"])]


def _group_warnings(
    schema: Schema, base_rates: Iterable[Mapping[str, Any]]
) -> list[AuditWarning]:
    """Counts the values of each group that are small, and tells how rates differ."""
    found = []
    for name, values in schema.groups.items():
        rates = [e["values"] for e in base_rates if e["group"] == name]
        small = {k for e in rates for k, v in e.items() if v["under_represented"]}
        gaps = [v["gap"] for e in rates for v in e.values() if "gap" in v]
        gap = max((abs(g["value"]) for g in gaps if g["differs"]), default=0.0)
        if small:
            sentence = (
                f"{len(small)} of {len(values)} values of {name!r} have under "
                f"{MIN_ROWS} development rows, or {MIN_POSITIVES} of a class: too few "
                "for most promises."
            )
            found.append(AuditWarning("small_group", (), len(small), sentence, name))
        # Merges and crosses only say again what their columns say.
        if gap and name in schema.sensitive:
            sentence = (
                f"The classes' shares differ by {name!r}, by up to {gap:.3f} from its "
                "largest group: a model learns that too."
            )
            found.append(AuditWarning("base_rate", (), gap, sentence, name))
    return found
