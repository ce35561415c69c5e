"""What any module answers: columns, as it will answer when it is deployed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from safescale_ammt.errors import InputError


def as_columns(out: Any) -> Tensor:
    """Returns a module's answer as columns (B, n_out).

    Raises:
        InputError: it is no tensor of one or two axes.
    """
    if not isinstance(out, Tensor) or out.dim() not in (1, 2):
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(
            f"The model's answer to a batch is {found}, expected a tensor (rows,), "
            "(rows, 1) or (rows, classes)."
        )
    return out[:, None] if out.dim() == 1 else out


@contextmanager
def statistics_as(
    layers: Sequence[nn.Module], training: Sequence[bool]
) -> Iterator[None]:
    """Lets layers of batch norm answer by their batch, or by what they have kept."""
    before = [layer.training for layer in layers]
    for layer, mode in zip(layers, training, strict=True):
        layer.training = mode
    try:
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.training = mode


@contextmanager
def deployed(module: nn.Module) -> Iterator[None]:
    """Lets a module answer as it will when it is deployed, all its layers."""
    layers = list(module.modules())
    # cuDNN has gradients of recurrent layers in training only, which they differ from
    # in nothing but dropout.
    modes = [isinstance(m, nn.RNNBase) and not m.dropout for m in layers]
    with statistics_as(layers, modes):
        yield
