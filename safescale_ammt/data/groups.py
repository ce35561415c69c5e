"""Groups: sensitive columns, declared merges of their values, and crosses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.associations import joint
from safescale_ammt.data.counts import CROSSED
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.shown import shown_values
from safescale_ammt.errors import ConfigError, DataError, one_of
from safescale_ammt.reading.columns import Column, RawTable

MISSING = "(missing)"
MOST_VALUES = 100
"""More values than this in a sensitive column are no groups, but numbers or names."""


def group_columns(config: DataConfig, table: RawTable) -> dict[str, Column]:
    """Returns every group of a table by name: columns, then merges, then crosses.

    Raises:
        DataError: an unknown sensitive column, or one with too many values.
        ConfigError: a merge or cross of something unknown.
    """
    groups: dict[str, Column] = {}
    for name in config.sensitive:
        column = table.column(name, "data.sensitive")
        groups[name] = check_few(config, name, column, table.origin)
    label = table.columns.get(config.label)
    classes = {} if label is None else {config.label: label}
    for name, merge in config.merges.items():
        _check_new(name, groups | classes)
        groups[name] = _merge(name, merge, groups | classes, config.label)
    # After the merges: a cross may name one.
    of_label = class_groups(config)
    for name, parts in config.crosses.items():
        _check_new(name, groups)
        if classes_of := sorted(of_label & set(parts)):
            raise ConfigError(
                f"data.crosses.{name} names {classes_of[0]!r}, a merge of the label; a "
                "cross is of sensitive columns and their merges."
            )
        if len(set(parts)) < max(2, len(parts)):
            raise ConfigError(
                f"data.crosses.{name} must name at least two groups, each once."
            )
        for part in parts:
            if part not in groups:
                raise ConfigError(
                    f"data.crosses.{name} names {part!r}, {one_of(groups, part)}."
                )
        columns = [groups[part] for part in parts]
        # Only combinations that occur: one that nobody has is no group.
        codes, value_codes = joint([column.codes for column in columns])
        texts = [
            CROSSED.join(
                column.values[int(code)].as_py()
                for column, code in zip(columns, combination, strict=True)
            )
            for combination in zip(*value_codes, strict=True)
        ]
        groups[name] = Column(
            codes.astype(np.int32), pa.array(texts, pa.string()), columns[0].weights
        )
    return groups


def class_groups(config: DataConfig | Schema) -> set[str]:
    """Names the groups that are made of the label: merges of it, and of these.

    Every row of such a group is of its classes, and no count of another class says
    anything of it.
    """
    names: set[str] = set()
    # In the order of the config, as merges are made: one may be of an earlier one.
    for name, merge in config.merges.items():
        if merge.get("column") in {config.label, *names}:
            names.add(name)
    return names


def check_few(config: DataConfig, name: str, column: Column, origin: str) -> Column:
    """Returns the groups of a sensitive column.

    Raises:
        DataError: too many values.
    """
    # Rows without a value are a group too: they are people, and judged as others.
    group = column.renamed(dict.fromkeys(config.missing, MISSING))
    if (many := np.count_nonzero(group.counts)) > MOST_VALUES:
        raise DataError(
            f"Sensitive column {name!r} of {origin} has {many} values, more than "
            f"{MOST_VALUES}; bin it into groups first."
        )
    return group


def _check_new(name: str, groups: Mapping[str, Column]) -> None:
    if name in groups:
        raise ConfigError(f"Two groups are named {name!r} in the data section.")


def _merge(
    name: str, merge: Mapping[str, Any], groups: Mapping[str, Column], label: str
) -> Column:
    """Merges values of a sensitive column; values not named become `other`.

    Of the label no value has to be named: each class is a group.
    """
    keys = ("column", "values", "other")
    for key in merge:
        if key not in keys:
            raise ConfigError(
                f"Unknown key {key!r} in data.merges.{name}, {one_of(keys, key)}."
            )
    source, values, other = (merge.get(key) for key in keys)
    if source not in groups:
        expected = one_of(groups, source)
        raise ConfigError(f"data.merges.{name}.column is {source!r}, {expected}.")
    if not isinstance(values, Mapping) or not (values or source == label):
        raise ConfigError(f"data.merges.{name}.values must map old to new values.")
    # Unless the merge names it, a missing value is not merged into `other`.
    names = {MISSING: MISSING, **{str(k): str(v) for k, v in values.items()}}
    column = groups[str(source)]
    unknown = sorted(set(names) - {MISSING} - set(column.values.to_pylist()))
    # A misspelt value would silently land in `other`, and a group be judged as another.
    if unknown:
        known, rows = column.values.to_pylist(), column.counts.tolist()
        shown = shown_values(dict(zip(known, rows, strict=True)), unknown[0])
        raise ConfigError(
            f"data.merges.{name}.values names {unknown[0]!r}, which is no value of "
            f"{source!r}{shown}."
        )
    return column.renamed(names, None if other in (None, "") else str(other))
