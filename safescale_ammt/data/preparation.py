"""From raw tables to typed splits, with encodings learnt on train only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.associations import joint
from safescale_ammt.data.columns import Column, RawTable
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.encoding import learn_categorical, learn_numeric
from safescale_ammt.data.groups import group_columns
from safescale_ammt.data.joining import ALL_SPLITS, Cut, Joined, class_codes, cut
from safescale_ammt.data.raw_rows import as_levels, as_numbers
from safescale_ammt.data.schema import Feature, Schema
from safescale_ammt.errors import DataError

Ranked = tuple[tuple[str, ...], NDArray[np.int64]]
"""Sorted distinct values and the codes (n,) into them."""


@dataclass(frozen=True)
class Prepared:
    """Typed splits and what was noticed on the way.

    Attributes:
        schema: with encodings learnt on train.
        splits: by name, `sealed` among them.
        notes: counts of removed and repeated rows, constant columns, empty groups.
    """

    schema: Schema
    splits: Mapping[str, Split]
    notes: Mapping[str, object]


def prepare(config: DataConfig, source: RawTable, sealed: RawTable | None) -> Prepared:
    """Types and splits raw tables.

    Args:
        config: roles of the columns, fractions, seed.
        source: the development rows.
        sealed: rows of an official test file; None cuts them from the source.

    Raises:
        DataError: the tables do not fit their description.
    """
    joined = Joined.of(config, source, sealed)
    classes, label = class_codes(config, joined)
    groups = group_columns(config, joined.table)
    cuts = cut(config, joined, label, groups)
    typed, constant = _typed_columns(config, joined, cuts.among(*SPLITS))
    learnt = tuple(
        _learn(config, name, joined.table.columns[name], values, cuts.among("train"))
        for name, values in typed.items()
    )
    # JSON sorts keys: written and read groups have one order.
    ranked = {name: groups[name].ranked() for name in sorted(groups)}
    schema = _schema(config, joined.table, classes, learnt, ranked)
    splits = {
        name: _split(cuts, name, pa.table(typed), label, ranked) for name in ALL_SPLITS
    }
    notes = {
        "constant_columns_dropped": constant,
        "development_rows_also_sealed_removed": cuts.copies,
        "development_rows_repeated": cuts.repeated,
        "records_sharing_features": _sharing(joined, cuts, tuple(typed)),
        "empty_groups": _empty_groups(schema, splits),
    }
    return Prepared(schema, splits, notes)


def feature_columns(config: DataConfig, columns: Mapping[str, Column]) -> list[str]:
    """Names the columns that may be model inputs, in source order."""
    out = {config.label, config.entity, *config.drop}
    if not config.sensitive_in_model:
        out |= set(config.sensitive)
    return [name for name in columns if name not in out]


def _typed_columns(
    config: DataConfig, joined: Joined, development: NDArray[np.bool_]
) -> tuple[dict[str, pa.Array], list[str]]:
    """Types the input columns; returns them and the names of constant ones."""
    columns = joined.table.columns
    typed, constant = {}, []
    for name in feature_columns(config, columns):
        seen = columns[name].take(development)
        if len(seen.renamed(dict.fromkeys(config.missing, "")).values) == 1:
            constant.append(name)
        elif _is_numeric(config, name, seen):
            typed[name] = _numbers(config, joined, name)
        else:
            typed[name] = as_levels(columns[name], config.missing)
    if not typed:
        raise DataError(
            f"{joined.table.origin} has no column left that could be a model input."
        )
    return typed, constant


def _is_numeric(config: DataConfig, name: str, seen: Column) -> bool:
    if name in config.numeric:
        return True
    return name not in config.categorical and seen.numbers(config.missing) is not None


def _numbers(config: DataConfig, joined: Joined, name: str) -> pa.Array:
    return as_numbers(joined.table.columns[name], name, config.missing, joined.row_name)


def _learn(
    config: DataConfig,
    name: str,
    raw: Column,
    values: pa.Array,
    train: NDArray[np.bool_],
) -> Feature:
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)[train]
        return learn_numeric(name, numbers, config.numeric_bins)
    return learn_categorical(name, raw.take(train), config.missing, config.max_levels)


def _schema(
    config: DataConfig,
    table: RawTable,
    classes: tuple[str, ...],
    features: tuple[Feature, ...],
    groups: Mapping[str, Ranked],
) -> Schema:
    positive = config.positive
    if not positive and len(classes) == 2:
        positive = classes[1]
    return Schema(
        features=features,
        label=config.label,
        classes=classes,
        positive=positive,
        sensitive=config.sensitive,
        groups={name: values for name, (values, _) in groups.items()},
        merges=config.merges,
        crosses=config.crosses,
        drop=config.drop,
        entity=config.entity,
        columns=tuple(table.columns),
        missing=config.missing,
        label_map=config.label_map,
        comment=config.comment,
    )


def _split(
    cuts: Cut,
    name: str,
    features: pa.Table,
    label: NDArray[np.int64],
    groups: Mapping[str, Ranked],
) -> Split:
    index = np.flatnonzero(cuts.among(name))
    return Split(
        features.take(pa.array(index)),
        label[index],
        {group: codes[index] for group, (_, codes) in groups.items()},
        cuts.rows[index],
    )


def _sharing(joined: Joined, cuts: Cut, names: tuple[str, ...]) -> int:
    """Counts distinct development records whose features another one has too."""
    mask = cuts.among(*SPLITS)
    same, _ = joint([joined.table.columns[name].codes[mask] for name in names])
    _, first = np.unique(cuts.rows[mask], return_index=True)
    _, counts = np.unique(same[first], return_counts=True)
    return int(counts[counts > 1].sum())


def _empty_groups(
    schema: Schema, splits: Mapping[str, Split]
) -> dict[str, dict[str, list[str]]]:
    """Lists, per development split and group, the values without a row."""
    empty: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        for name, codes in splits[split].groups.items():
            values = schema.groups[name]
            counts = np.bincount(codes, minlength=len(values))
            absent = [v for v, n in zip(values, counts, strict=True) if n == 0]
            if absent:
                empty.setdefault(split, {})[name] = absent
    return empty
