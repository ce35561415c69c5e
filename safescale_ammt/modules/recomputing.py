"""Recomputing: activations of a module's blocks, made anew on the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from safescale_ammt.model.answers import statistics_as
from safescale_ammt.modules.copies import norms, unkept_statistics


def composite(module: nn.Module) -> list[nn.Module]:
    """Returns a module's parts that have parts of their own: its blocks.

    To recompute a single layer would keep as much as it frees: its input.
    """
    parts: list[nn.Module] = []
    for child in module.children():
        inner = isinstance(child, nn.Sequential | nn.ModuleList)
        blocks = [part for part in child.children() if list(part.children())]
        # A chain of single layers is a block itself.
        parts += blocks if inner and blocks else [child]
    called = (part for part in parts if not isinstance(part, nn.ModuleList))
    return [part for part in called if list(part.children())]


def recompute(module: nn.Module) -> None:
    """Lets a module's blocks recompute their activations on the way back."""
    for part in composite(module):
        part.forward = partial(forward_again, part, part.forward)


def forward_again(part: nn.Module, forward: Any, *args: Any, **named: Any) -> Any:
    """Calls a part of a module; what it computed is computed again on the way back."""
    if not torch.is_grad_enabled():
        return forward(*args, **named)

    layers = norms(part)
    modes = [layer.training for layer in layers]

    @contextmanager
    def as_then() -> Iterator[None]:
        # The second time a batch is seen, it is no news to batch norm.
        with statistics_as(layers, modes), unkept_statistics(part):
            yield

    again = partial(forward, **named)
    return checkpoint(
        again, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), as_then())
    )
