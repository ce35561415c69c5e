"""Rows of a user: a `Dataset`, tensors or arrays, as training reads them.

A row is what the module is called with, a target, and perhaps the groups that it is
of. Tensors stay where they are; a `Dataset` of another kind is asked for its rows
each time, so that what it does to them at random is done anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from safescale_ammt.errors import DataError
from safescale_ammt.model.predictor import Prediction
from safescale_ammt.modules.columns import (
    as_array,
    check_targets,
    group_columns,
    row_groups,
    stacked,
)

BLOCK = 1024
"""Rows that are answered at once."""
Inputs = Callable[[Tensor], Any]
"""Returns what a module is called with, of rows by their numbers (B,)."""


@dataclass(frozen=True)
class GivenRows:
    """Rows as they were given, before anything is known of the task.

    Attributes:
        inputs: of rows by their numbers.
        target: as given (n, ...).
        groups: name -> values (n,).
    """

    inputs: Inputs
    target: np.ndarray
    groups: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class ModuleRows:
    """Rows of a module's training (`nets.Rows`).

    Attributes:
        inputs: of rows by their numbers in what was given.
        index: those numbers (n,).
        y: class codes int64 (n,), or numbers float32 (n, n_out).
        groups: group name -> codes (n,).
        entity: None: each row is somebody else.
    """

    inputs: Inputs
    index: Tensor
    y: Tensor
    groups: Mapping[str, Tensor]
    entity: None = None

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, index: Tensor) -> Any:
        """Returns what the module is called with, of rows by their numbers (B,)."""
        return self.inputs(self.index[index])

    def blocks(self, nets: int = 1) -> Iterator[Tensor]:
        """Yields the numbers of all rows, `BLOCK` at a time."""
        del nets
        yield from torch.split(torch.arange(len(self)), BLOCK)

    def where(self, index: Tensor) -> ModuleRows:
        """Returns the rows of a mask or of row numbers."""
        groups = {name: codes[index] for name, codes in self.groups.items()}
        return ModuleRows(self.inputs, self.index[index], self.y[index], groups)

    def part(self, most: int, seed: int = 0) -> ModuleRows:
        """Returns at most so many rows, drawn by the seed, in their order."""
        if len(self) <= most:
            return self
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(self), generator=generator)[:most]
        return self.where(drawn.sort().values)

    def answers(self, model: Any) -> Prediction:
        """Returns what a form says of all rows."""
        found = [model.answer(self.batch(block)) for block in self.blocks()]
        return Prediction(*map(np.concatenate, zip(*found, strict=True)))


def given_rows(data: Any, sensitive: Any, names: Sequence[str], what: str) -> GivenRows:
    """Reads what a user gives as a data set.

    Args:
        data: a map-style `Dataset` of (input, target) or (input, target, groups), or
            a pair or triple of tensors, arrays or lists.
        sensitive: groups apart from it: values (n,), or a mapping of them by name.
        names: of the groups in the third tensor.
        what: the argument's name, for errors.

    Raises:
        DataError: no rows, none by number, targets or groups that do not fit.
    """
    if isinstance(data, IterableDataset) or (
        isinstance(data, Dataset) and not hasattr(data, "__len__")
    ):
        raise DataError(
            f"{what} is an iterable data set; agents draw rows by number: give a "
            "map-style Dataset with __len__ and __getitem__."
        )
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Dataset):
        inputs, target, third = of_dataset(data, what)
    else:
        inputs, target, third = of_arrays(data, what)
    if not len(target):
        raise DataError(f"{what} has no rows; give at least a handful.")
    groups = group_columns(third if sensitive is None else sensitive, names, what)
    for name, values in groups.items():
        if len(values) != len(target):
            raise DataError(
                f"{what} has {len(target)} rows, but the group {name!r} has "
                f"{len(values)} values; every row needs one."
            )
    check_targets(target, what)
    if target.dtype.kind == "O":
        # Numbers and texts that lie there one by one are numbers and texts.
        target = np.array(target.tolist())
    return GivenRows(inputs, target, groups)


def of_dataset(data: Any, what: str) -> tuple[Inputs, np.ndarray, Any]:
    """Returns inputs by number, all targets and all groups of a `Dataset`."""

    def items(index: Tensor) -> Sequence[Any]:
        numbers = index.tolist()
        try:
            if hasattr(data, "__getitems__"):
                return list(data.__getitems__(numbers))
            return [data[i] for i in numbers]
        except Exception as error:
            raise DataError(
                f"{what} cannot give its rows ({type(error).__name__}, shown above)."
            ) from error

    def inputs(index: Tensor) -> Any:
        try:
            return default_collate([item[0] for item in items(index)])
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            raise DataError(
                f"Inputs of {what} cannot be put into one batch ({type(error).__name__}"
                ", shown above); give numbers or tensors that have one shape, padded "
                "where they differ."
            ) from error

    targets, groups = [], []
    for block in torch.split(torch.arange(len(data)), BLOCK):
        for item in items(block) if len(data) else ():
            if not isinstance(item, tuple | list) or len(item) not in (2, 3):
                raise DataError(
                    f"A row of {what} is a {type(item).__name__}, expected (input, "
                    "target) or (input, target, groups)."
                )
            targets.append(as_array(item[1]))
            groups += [item[2]] if len(item) == 3 else []
    third = row_groups(groups, f"{what} has groups") if groups else None
    return inputs, stacked(targets, f"{what} has targets"), third


def of_arrays(data: Any, what: str) -> tuple[Inputs, np.ndarray, Any]:
    """Returns inputs by number, targets and groups of tensors, arrays or lists."""
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise DataError(
            f"{what} is a {type(data).__name__}, expected a torch Dataset, or a pair "
            "(inputs, targets) or a triple with groups of tensors or arrays."
        )
    try:
        target = as_array(data[1])
        x = tree.tree_map(as_tensor, data[0], is_leaf=is_array)
        sizes = {len(target), *map(len, tree.tree_leaves(x))}
    # Of the library's sentence not a word: it may hold a value.
    except (TypeError, ValueError):
        raise DataError(
            f"Inputs or targets of {what} are no arrays: give dense numbers, a row for "
            "each along the first axis, all of one shape; texts are encoded first."
        ) from None
    if len(sizes) > 1:
        others = ", ".join(map(str, sorted(sizes - {len(target)})))
        raise DataError(
            f"{what} has {others} inputs and {len(target)} targets; every row needs "
            "both."
        )
    third = data[2] if len(data) == 3 else None

    def inputs(index: Tensor) -> Any:
        return tree.tree_map(lambda part: part[index.to(part.device)], x)

    return inputs, target, third


def is_array(value: Any) -> bool:
    """Tells a leaf of inputs: an array, and a list of numbers too."""
    return not isinstance(value, dict | tuple)


def as_tensor(value: Any) -> Tensor:
    """Returns inputs as a tensor; doubles, which arrays are by habit, as float32."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise TypeError("a sparse tensor has no rows by number")
        return value.detach()
    if np.ma.is_masked(value):
        raise TypeError("what a mask hides would be read as numbers")
    array = np.asarray(value)
    wide = array.dtype in (np.float64, np.longdouble)
    # What torch reads: of this machine's byte order, writable, forwards.
    backwards = min(array.strides, default=0) < 0
    kind = np.dtype(np.float32) if wide else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.require(array, kind, ["W", "C"] if backwards else "W"))
