"""Columns: targets and groups of a user's rows, one value each or one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safescale_ammt.errors import DataError
from safescale_ammt.printable import unseen_in


def as_array(value: Any) -> np.ndarray:
    """Returns targets or groups as an array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # numpy has no such numbers.
        value = value.float() if value.dtype == torch.bfloat16 else value
        return np.asarray(value.numpy())
    return np.asarray(value)


def check_targets(target: np.ndarray, what: str) -> None:
    """Refuses targets that are missing, or partly numbers and partly texts.

    Raises:
        DataError: some are.
    """
    lost = 0
    if target.dtype.kind == "f":
        lost = int((~np.isfinite(target)).sum())
    elif target.dtype.kind == "O":
        kinds = {isinstance(v, str | bytes) for v in target.ravel().tolist()}
        missing = [
            v is None or (isinstance(v, float) and not math.isfinite(v))
            for v in target.ravel().tolist()
        ]
        lost = sum(missing)
        if not lost and len(kinds) > 1:
            raise DataError(
                f"{what} has targets of which some are texts and some are not; give "
                "them one type."
            )
    if lost:
        raise DataError(
            f"{what} has {lost} targets that are missing or no finite number; drop "
            "their rows."
        )


def stacked(values: list[np.ndarray], what: str) -> np.ndarray:
    """Returns targets or groups of rows as one array (n, ...).

    Raises:
        DataError: they are of several shapes.
    """
    if len({value.shape for value in values}) > 1:
        raise DataError(f"{what} of several shapes; give all rows one.")
    return np.stack(values) if values else np.zeros(0)


def row_groups(rows: list[Any], what: str) -> Any:
    """Returns the groups of rows: columns (n, ...), or a mapping of them by name.

    Raises:
        DataError: rows have groups of other names, or of several shapes.
    """
    names = {tuple(row) if isinstance(row, Mapping) else None for row in rows}
    if len({name and frozenset(name) for name in names}) > 1:
        raise DataError(f"{what} of several names; give all rows the same.")
    if None in names:
        return stacked([as_array(row) for row in rows], what)
    return {n: stacked([as_array(row[n]) for row in rows], what) for n in rows[0]}


def group_columns(given: Any, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """Returns groups by name, of a mapping, of one column or of several.

    Args:
        given: values (n,) or (n, columns), or values by name.
        names: of the columns.
        what: the argument's name, for errors.

    Raises:
        DataError: no value for each row, or names that do not name them.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        found = {str(name): as_array(values) for name, values in given.items()}
    else:
        columns = as_array(given)
        if not columns.ndim:
            raise DataError(f"The groups of {what} are one value; give one a row.")
        columns = columns.reshape(len(columns), -1)
        count = columns.shape[1]
        default = ["group", *(f"group {i + 1}" for i in range(1, count))]
        named = [*names, *default[len(names) :]]
        if len(named) != count or len(set(named)) != count:
            raise DataError(
                f"{what} has {count} columns of groups, but config.sensitive names "
                f"{len(names)}; give each column a name of its own."
            )
        found = {named[i]: columns[:, i] for i in range(count)}
    for name, values in found.items():
        if not name.strip() or unseen_in(name):
            raise DataError(
                f"{what} has a group named {name!r}; a name is text that is seen."
            )
        if values.ndim == 0 or values.size != len(values):
            raise DataError(
                f"{what} has values of the group {name!r} of shape {values.shape}; "
                "every row needs one value."
            )
    return {name: values.ravel() for name, values in found.items()}
