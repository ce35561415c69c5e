"""Groups: sensitive columns, declared merges of their values, and crosses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.columns import Column, RawTable
from safescale_ammt.errors import ConfigError, DataError, one_of

MISSING = "(missing)"
MOST_VALUES = 100
"""More values than this in a sensitive column are no groups, but numbers or names."""
_AND = " & "


def group_columns(config: DataConfig, table: RawTable) -> dict[str, Column]:
    """Returns every group of a table by name: columns, then merges, then crosses.

    Raises:
        DataError: an unknown sensitive column, or one with too many values.
        ConfigError: a merge or cross of something unknown.
    """
    groups: dict[str, Column] = {}
    for name in config.sensitive:
        column = table.column(name, "data.sensitive")
        groups[name] = _named_missing(column, config.missing)
        if len(groups[name].values) > MOST_VALUES:
            raise DataError(
                f"Sensitive column {name!r} of {table.origin} has "
                f"{len(groups[name].values)} values, more than {MOST_VALUES}; bin it "
                "into groups first."
            )
    for name, rule in config.merges.items():
        groups[_fresh(name, groups)] = _merged(name, rule, groups)
    for name, parts in config.crosses.items():
        groups[_fresh(name, groups)] = _crossed(name, parts, groups)
    return groups


def _named_missing(column: Column, missing: Collection[str]) -> Column:
    return column.renamed(dict.fromkeys(missing, MISSING))


def _fresh(name: str, groups: Mapping[str, Column]) -> str:
    if name in groups:
        raise ConfigError(f"Two groups are named {name!r} in the data section.")
    return name


def _merged(name: str, rule: Mapping[str, Any], groups: Mapping[str, Column]) -> Column:
    """Merges values of a sensitive column; values not named become `other`."""
    known = ("column", "values", "other")
    for key in rule:
        if key not in known:
            raise ConfigError(
                f"Unknown key {key!r} in data.merges.{name}, {one_of(known)}."
            )
    source, values, other = (rule.get(key) for key in known)
    if source not in groups:
        raise ConfigError(f"data.merges.{name}.column is {source!r}, {one_of(groups)}.")
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"data.merges.{name}.values must map old to new values.")
    names = {MISSING: MISSING, **{str(k): str(v) for k, v in values.items()}}
    column = groups[str(source)]
    unknown = sorted(set(names) - {MISSING} - set(column.values.to_pylist()))
    if unknown:
        raise ConfigError(
            f"data.merges.{name}.values names {unknown[0]!r}, but {source!r} has "
            f"{', '.join(column.ranked()[0])}."
        )
    return column.renamed(names, None if other in (None, "") else str(other))


def _crossed(name: str, parts: Collection[str], groups: Mapping[str, Column]) -> Column:
    """Crosses groups: one value per combination that occurs, `Female & White`."""
    if len(parts) < 2:
        raise ConfigError(f"data.crosses.{name} must name at least two groups.")
    for part in parts:
        if part not in groups:
            raise ConfigError(f"data.crosses.{name} names {part!r}, {one_of(groups)}.")
    columns = [groups[part] for part in parts]
    flat = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        flat = flat * len(column.values) + column.codes
    distinct, first, codes = np.unique(flat, return_index=True, return_inverse=True)
    texts = [
        _AND.join(c.values[int(c.codes[row])].as_py() for c in columns)
        for row in first[: len(distinct)]
    ]
    return Column(codes.astype(np.int32), pa.array(texts, pa.string()))
