"""The learner of any module: k copies that take an optimizer step together.

Each copy is called on its batch, and on the rows of the cells, whose soft rates are
the constraints' part of the Lagrangian (`training.learner`). Layers of batch norm
keep no statistics of the latter: those are drawn from small cells more often. What a
module draws at random, it draws from generators that are set anew for each net and
step, so that no net's draws depend on the others; the user's are as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.utils import _pytree as tree
from torch.utils.checkpoint import checkpoint

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.modules.copies import (
    RowLayout,
    as_columns,
    call,
    duplicate,
    fixed_statistics,
    norms,
    statistics_as,
    to_device,
    unkept_statistics,
)
from safescale_ammt.modules.precision import AdaptivePrecisionEngine
from safescale_ammt.modules.rows import ModuleRows
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.learner import Learner, soft_rates, task_loss
from safescale_ammt.training.seeds import derived_seed
from safescale_ammt.training.stateful import StateDict

Loss = Callable[[Tensor, Tensor], Tensor]
"""The user's own: a module's answer and targets -> a number, or one for each row."""


class ModuleLearner(Learner):
    """k copies of a module.

    Args:
        module: that the copies are of; it stays as it is.
        layout: of its tensors.
        rows: what they train on.
        config: the training section.
        cells: whose soft rates are part of the loss.
        loss: the user's own, None for that of the task.
        device: where they train.
        precision: what numbers they compute in.
    """

    def __init__(
        self,
        module: nn.Module,
        layout: RowLayout,
        rows: ModuleRows,
        config: TrainingConfig,
        *,
        cells: Sequence[Cell],
        loss: Loss | None,
        device: torch.device,
        precision: AdaptivePrecisionEngine,
    ) -> None:
        theta = layout.row(module)[None].to(device)
        # Gradients that are too long are cut; only those that are no number are left.
        infinite = float("inf")
        super().__init__(
            theta, ema=config.ema, stability=infinite, parameters=layout.trained
        )
        self.precision, self.device = precision, device
        self.steps = 0
        self._module, self._layout, self._rows = module, layout, rows
        self._config, self._cells, self._loss = config, cells, loss
        self._copies: list[nn.Module] = []
        self._slots = range(-1, 0)
        self.place(self._slots)

    def place(self, slots: range) -> None:
        """Makes a copy for each net."""
        kept = [dict(each.named_buffers()) for each in self._copies]
        self._slots, self._copies = slots, []
        for row in self.theta:
            each = duplicate(self._module, self.device).train()
            # What the trunk has counted in buffers of whole numbers goes on.
            for name, buffer in each.named_buffers():
                if kept and name not in self._layout.buffers:
                    buffer.copy_(kept[0][name])
            if self._config.gradient_checkpointing:
                recompute(each)
            self._layout.bind(each, row)
            self._copies.append(each)

    def gradient(
        self, batch: Tensor, extra: Tensor, cell_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the task losses (k,) and the Lagrangians' gradient (k, weights)."""
        if self.steps % self._config.sync_every == 0:
            self.precision.decide(self.steps * batch.shape[1] / len(self._rows))
        losses, grads = [], []
        weights = cell_weights.to(self.device)
        with own_randomness(self.device) as seed:
            for i, slot in enumerate(self._slots):
                seed(derived_seed(self._config.seed, f"net {slot} step {self.steps}"))
                task, lagrangian = self._losses(i, batch[i], extra[i], weights)
                losses.append(task.detach().float().cpu())
                grads.append(self._grad(i, lagrangian))
        self.steps += 1
        grad = torch.stack(grads)
        self.precision.note(grad)
        norm = grad.norm(dim=1, keepdim=True)
        limit = self._config.gradient_stability_threshold
        return torch.stack(losses), grad * (limit / norm).clamp(max=1)

    def rehearse(self) -> float:
        """Returns the first batch's loss: does a net's step, and changes nothing."""
        batch = torch.arange(min(self._config.batch_size, len(self._rows)))
        before = self.theta.clone()
        with own_randomness(self.device), unkept_statistics(self._copies[0]):
            loss = self._losses(0, batch, batch[:0], batch[:0])[0]
            self._grad(0, loss)
        self.theta.copy_(before)
        return float(loss.detach())

    def _losses(
        self, i: int, batch: Tensor, extra: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the task loss and the Lagrangian of one net."""
        module, role = self._copies[i], self.roles[i]
        with self.precision.autocast():
            raw = call(module, self._inputs(batch, role))
        task = self._task(raw, self._rows.y[batch].to(self.device), role)
        self._layout.collect(module, self.theta[i])
        # Without a multiplier there is nothing to hold the rates against.
        if not len(extra) or not role.constraint_weight or not bool(weights.any()):
            return task, task
        with fixed_statistics(module), self.precision.autocast():
            asked = call(module, self._inputs(extra, role))
        soft = soft_rates(as_columns(asked).float()[None], self._cells)[0]
        return task, task + role.constraint_weight * (soft @ weights)

    def _inputs(self, index: Tensor, role: Role) -> Any:
        """Returns rows as a net of a role sees them in training."""
        inputs = to_device(self._rows.batch(index), self.device, self._layout.dtype)
        if not role.input_drop and not role.noise:
            return inputs

        def seen(x: Any) -> Any:
            if not isinstance(x, Tensor) or not x.is_floating_point():
                return x
            x = f.dropout(x, role.input_drop)
            return x + role.noise * x.std() * torch.randn_like(x) if role.noise else x

        return tree.tree_map(seen, inputs)

    def _task(self, raw: Any, y: Tensor, role: Role) -> Tensor:
        """Returns the task loss of a module's answer."""
        out = as_columns(raw)
        if self._loss is not None:
            # Targets as such losses want them: codes for classes, else like the answer.
            numbers = y.is_floating_point() or out.shape[1] == 1
            target = y.view(raw.shape).to(raw.dtype) if numbers else y
            return self._loss(raw, target).mean()
        if y.is_floating_point():
            return f.mse_loss(out.float(), y)
        brier = torch.tensor([role.brier], device=self.device)
        return task_loss(out.float()[None, None], y[None], brier)[0]

    def _grad(self, i: int, lagrangian: Tensor) -> Tensor:
        """Returns one net's gradient as a row."""
        named = dict(self._copies[i].named_parameters())
        parameters = [named[name] for name in self._layout.parameters]
        # A parameter that the answer does not need has no gradient.
        found = torch.autograd.grad(lagrangian, parameters, allow_unused=True)
        parts = zip(found, parameters, strict=True)
        return torch.cat(
            [(torch.zeros_like(p) if g is None else g).flatten() for g, p in parts]
        )

    def state_dict(self) -> StateDict:
        """Returns weights, averages, optimizer, other buffers and the step count."""
        state = super().state_dict()
        for name, _ in self._copies[0].named_buffers() if self._copies else ():
            if name not in self._layout.buffers:
                each = [dict(c.named_buffers())[name] for c in self._copies]
                state.each[f"buffer.{name}"] = torch.stack(each)
        state.common["steps"] = torch.tensor(self.steps)
        return state

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from a state of as many nets."""
        each = {name: t.to(self.device) for name, t in state.each.items()}
        super().load_state_dict(StateDict(each))
        self.steps = int(state.common["steps"])
        self.place(self._slots)
        for i, module in enumerate(self._copies):
            for name, buffer in module.named_buffers():
                if name not in self._layout.buffers:
                    buffer.copy_(each[f"buffer.{name}"][i])


@contextmanager
def own_randomness(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Gives a function that seeds what a module draws from; all is put back after."""
    on_device = device.type not in ("cpu", "xla")
    kind = device.type if on_device else "cuda"
    devices = [device.index or 0] if on_device and device.type != "mps" else []

    def seed(value: int) -> None:
        torch.default_generator.manual_seed(value)
        if on_device:
            torch.get_device_module(device).manual_seed(value)

    with torch.random.fork_rng(devices, device_type=kind):
        yield seed


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
