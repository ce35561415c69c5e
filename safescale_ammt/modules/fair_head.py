"""Fair head of a module: a correction of its logit that needs no group to answer.

The correction is that of `model.fair_head`: a row's score is moved by the chances that
the row is of each group. What the chances are read from is the module's own logit, and
beside it

    inputs     where the module is called with one matrix of numbers
    features   what its last linear layer reads, where it is called with anything else

It is fitted on rows for training and on those of *monitor* (`training.fair_head`), and
is a part of the module that comes back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from safescale_ammt.errors import InputError
from safescale_ammt.model.answers import as_columns
from safescale_ammt.model.fair_head import FairHead
from safescale_ammt.modules.copies import call, to_device
from safescale_ammt.modules.rows import ModuleRows
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.fair_head import FITTED_NUMBERS, FITTED_ROWS, fit

INPUTS, LOGIT = "inputs", "logit"
"""What a head reads beside the logit: the inputs, or nothing; else a layer's name."""
_EDGE = 1e-6
"""Least distance of a score from 0 and 1, which have no logit."""


class Head(nn.Module):
    """The correction of a logit of two classes.

    Args:
        found: the correction, of rows whose columns are the logit and what is read,
            each less its mean and in units of its deviation.
        mean: of the columns (d,).
        deviation: of the columns (d,).
        reads: `INPUTS`, `LOGIT`, or the name of a layer whose inputs are read.
        dtype: of the module's answers.
    """

    def __init__(
        self,
        found: FairHead,
        mean: Tensor,
        deviation: Tensor,
        *,
        reads: str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.reads = reads
        self.conditions = tuple(part.condition for part in found.parts)
        for i, part in enumerate(found.parts):
            weight = torch.from_numpy(part.weight).double() / deviation[:, None]
            own = {
                "weight": weight,
                "bias": torch.from_numpy(part.bias).double() - mean @ weight,
                "shift": torch.from_numpy(part.shift),
            }
            for name, tensor in own.items():
                self.register_buffer(f"{name}{i}", tensor.to(dtype))

    def forward(self, out: Tensor, seen: Tensor) -> Tensor:
        """Returns answers (B,), (B, 1) or (B, 2) whose logit is corrected.

        Args:
            out: a module's answers, of these shapes.
            seen: the logit, and what is read beside it (B, d).
        """
        eta = torch.sigmoid(seen[:, 0])
        kappas = {True: eta, False: 1 - eta, None: torch.ones_like(eta)}
        pull = torch.zeros_like(eta)
        for i, condition in enumerate(self.conditions):
            weight, bias, shift = (
                getattr(self, f"{name}{i}") for name in ("weight", "bias", "shift")
            )
            chance = torch.softmax(seen @ weight + bias, 1)
            pull = pull + kappas[condition] * (chance @ shift)
        moved = torch.logit((eta - pull / 2).clamp(_EDGE, 1 - _EDGE))
        if out.dim() > 1 and out.shape[1] == 2:
            return torch.stack([out[:, 0], out[:, 0] + moved], 1)
        return moved.view(out.shape)


class Headed(nn.Module):
    """A module with a head."""

    def __init__(self, member: nn.Module, head: Head) -> None:
        super().__init__()
        self.member, self.head = member, head

    def forward(self, *args: Any, **named: Any) -> Tensor:
        """Returns the member's answers, corrected."""
        inputs = named or (args[0] if len(args) == 1 else args)
        out, seen = observed(self.member, inputs, self.head.reads)
        corrected: Tensor = self.head(out, seen)
        return corrected


def observed(module: nn.Module, inputs: Any, reads: str) -> tuple[Tensor, Tensor]:
    """Returns a module's answers, and what a head reads of them (B, d).

    Raises:
        InputError: the layer that it reads is no longer used once for each answer.
    """
    layers: list[Tensor] = []
    hooks = []
    if reads not in (INPUTS, LOGIT):
        layer = module.get_submodule(reads)
        hooks = [layer.register_forward_pre_hook(lambda _, x: layers.append(x[0]))]
    try:
        out: Tensor = call(module, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    columns = as_columns(out)
    logit = (
        columns[:, -1:] if columns.shape[1] == 1 else columns[:, 1:] - columns[:, :1]
    )
    if reads == INPUTS:
        layers = [inputs]
    elif [x.shape[:-1] for x in layers] != [out.shape[:1]] * len(hooks):
        raise InputError(
            f"The fair head reads what the layer {reads!r} is given, which is not one "
            "row for each answer; fit the model anew."
        )
    return out, torch.cat([logit, *(x.to(logit.dtype) for x in layers)], 1)


def what_to_read(module: nn.Module, inputs: Any) -> str:
    """Returns what a head of a module reads, tried on the inputs of some rows."""
    if isinstance(inputs, Tensor) and inputs.dim() == 2 and inputs.is_floating_point():
        return INPUTS
    named = module.named_modules()
    linear = [name for name, layer in named if isinstance(layer, nn.Linear) and name]
    for name in reversed(linear):
        try:
            observed(module, inputs, name)
        except InputError:
            continue
        return str(name)
    return LOGIT


def fitted(
    module: nn.Module, rows: ModuleRows, constraints: Constraints, targets: Tensor
) -> Head | None:
    """Fits the head of a module of two classes; None if there is nothing to correct.

    Args:
        module: answers a row with one logit, or with two.
        rows: with known groups.
        constraints: what is enforced.
        targets: gap that each pair aims at (pairs,).
    """
    first = next(module.parameters())

    def inputs(index: Tensor) -> Any:
        return to_device(rows.batch(index), first.device, first.dtype)

    with torch.no_grad():
        reads = what_to_read(module, inputs(torch.arange(min(2, len(rows)))))
        width = observed(module, inputs(torch.arange(1)), reads)[1].shape[1]
        rows = rows.part(min(FITTED_ROWS, FITTED_NUMBERS // width))
        seen = torch.cat(
            [observed(module, inputs(b), reads)[1].cpu() for b in rows.blocks()]
        ).double()
    # Of a column that does not vary there is no deviation.
    deviation, mean = torch.std_mean(seen, 0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    x = ((seen - mean) / deviation).float()
    found = fit(constraints, rows, x, torch.sigmoid(seen[:, 0]), targets)
    if found is None:
        return None
    head = Head(found, mean, deviation, reads=reads, dtype=first.dtype)
    return head.to(first.device)
