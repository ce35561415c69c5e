"""Copies of a module whose weights are a row of a matrix.

    row = parameters that are trained, one after the other, then buffers of numbers,
          then zeros up to a multiple of 64 bytes

Parameters that two names share lie there once; those that are not trained stay in the
copy. A copy's tensors are views of its row: what the optimizer writes the copy sees,
and the running means that it keeps are in the row, to be shared and averaged.
Products depend on where in a line of the cache their factors begin: rows that are as
long as whole lines give a net the same bits whichever row is its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as tree

from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.model.answers import statistics_as
from safescale_ammt.modules.own_code import line_of

LINE = 64
"""Bytes of a line of the cache."""
DTYPES = (torch.float32, torch.float64)
"""Types of numbers that the optimizer works in."""


@dataclass(frozen=True)
class RowLayout:
    """Where the tensors of a module lie in a row.

    Attributes:
        parameters: name -> shape of those that are trained.
        buffers: name -> shape of those that change in training.
        dtype: of the row.
    """

    parameters: Mapping[str, torch.Size]
    buffers: Mapping[str, torch.Size]
    dtype: torch.dtype

    @classmethod
    def of(cls, module: nn.Module) -> RowLayout:
        """Reads a module's layout.

        Raises:
            InputError: no parameter to train, several types of numbers, several
                devices, or parameters that have no shape yet.
        """
        for name, p in module.named_parameters():
            if isinstance(p, nn.UninitializedParameter) or p.is_meta:
                raise InputError(
                    f"The model's parameter {name!r} has no values yet; call the model "
                    "on a few rows first."
                )
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise InputError("The model has no parameter to train.")
        dtypes = {p.dtype for p in trained.values()}
        if len(dtypes) > 1 or not dtypes <= set(DTYPES):
            found = ", ".join(sorted(str(d) for d in dtypes))
            raise InputError(
                f"The model's parameters are of {found}, expected float32 or float64 "
                "alone; mixed_precision computes in less."
            )
        devices = {str(t.device) for t in (*module.parameters(), *module.buffers())}
        if len(devices) > 1:
            raise InputError(
                f"The model lies on several devices ({', '.join(sorted(devices))}); "
                "move it to one."
            )
        (dtype,) = dtypes
        buffers = {n: b for n, b in module.named_buffers() if b.dtype == dtype}
        return cls(
            {n: p.shape for n, p in trained.items()},
            {n: b.shape for n, b in buffers.items()},
            dtype,
        )

    @property
    def trained(self) -> int:
        """Numbers of a row that the optimizer moves."""
        return sum(shape.numel() for shape in self.parameters.values())

    def views(self, row: Tensor) -> dict[str, Tensor]:
        """Cuts a row (P,) into named views."""
        shapes = {**self.parameters, **self.buffers}
        sizes = [shape.numel() for shape in shapes.values()]
        parts = torch.split(row[: sum(sizes)], sizes)
        named = zip(shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in named}

    def stack(self, theta: Tensor) -> dict[str, Tensor]:
        """Cuts rows (k, P) into the parameters of k modules, one behind the other."""
        sizes = [shape.numel() for shape in self.parameters.values()]
        parts = torch.split(theta[:, : self.trained], sizes, 1)
        named = zip(self.parameters.items(), parts, strict=True)
        return {n: part.reshape(len(theta), *shape) for (n, shape), part in named}

    def row(self, module: nn.Module) -> Tensor:
        """Returns a copy of a module's tensors as a row (P,)."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        names = (*self.parameters, *self.buffers)
        found = torch.cat([tensors[name].detach().flatten() for name in names])
        return f.pad(found, (0, -len(found) % (LINE // found.element_size())))

    def bind(self, module: nn.Module, row: Tensor) -> None:
        """Makes a module's tensors views of a row."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, view in self.views(row).items():
            tensors[name].data = view

    def collect(self, module: nn.Module, row: Tensor) -> None:
        """Takes buffers that the module has made anew instead of written."""
        views, buffers = self.views(row), dict(module.named_buffers())
        for name in self.buffers:
            if buffers[name].data_ptr() != views[name].data_ptr():
                views[name].copy_(buffers[name].detach())
                buffers[name].data = views[name]


def duplicate(module: nn.Module, device: torch.device) -> nn.Module:
    """Returns a deep copy on a device; the module stays as it is.

    Raises:
        InputError: the module cannot be copied.
    """
    try:
        return copy.deepcopy(module).to(device)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"The model cannot be copied ({reason}).") from None


def call(module: nn.Module, inputs: Any) -> Any:
    """Calls a module with a tensor, parts of a tuple, or names of a mapping.

    Raises:
        InputError: it cannot be called on them.
    """
    named = inputs if isinstance(inputs, Mapping) else {}
    parts = inputs if isinstance(inputs, tuple | list) else (inputs,)
    try:
        return module(**named) if isinstance(inputs, Mapping) else module(*parts)
    except (torch.OutOfMemoryError, MemoryError, SafescaleError):
        raise
    except (Exception, SystemExit) as error:
        # Its words may hold a row: a stage tells the line alone.
        where = line_of(error) or ", shown above"
        raise InputError(
            f"The model cannot be called on a batch ({type(error).__name__}{where}); "
            "an input is what the model's forward takes for a batch of rows."
        ) from error


def called_with(module: nn.Module, parameters: dict[str, Tensor], inputs: Any) -> Any:
    """Calls a module with other parameters than its own."""
    if isinstance(inputs, Mapping):
        return torch.func.functional_call(module, parameters, (), dict(inputs))
    args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    return torch.func.functional_call(module, parameters, args)


def to_device(inputs: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Moves inputs; numbers with a point become the weights' type."""

    def moved(part: Any) -> Any:
        if not isinstance(part, Tensor):
            return part
        return part.to(device, dtype if part.is_floating_point() else part.dtype)

    return tree.tree_map(moved, inputs)


def norms(module: nn.Module) -> list[_BatchNorm]:
    """Returns the layers that keep statistics of batches."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def fixed_statistics(module: nn.Module) -> AbstractContextManager[None]:
    """Lets layers of batch norm answer by what they have kept, and keep no more."""
    layers = norms(module)
    return statistics_as(layers, [False] * len(layers))


@contextmanager
def unkept_statistics(module: nn.Module) -> Iterator[None]:
    """Lets layers of batch norm answer by the batch and keep nothing of it."""
    kept = [(b, b.clone()) for layer in norms(module) for b in layer.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            # Past autograd, which would take it for a change of what it has saved.
            buffer.data.copy_(before)
