"""The learner of any module: k copies that take an optimizer step together.

Each copy is called on its batch, and on the rows of the cells, whose soft rates are
the constraints' part of the Lagrangian (`training.learner`). Layers of batch norm
keep no statistics of the latter: those are drawn from small cells more often. Rows of
cells under a threat are attacked before they are asked (`threatened`). What a
module draws at random, it draws from generators that are set anew for each net and
step, so that no net's draws depend on the others; the user's are as they were.

Copies may be of several modules, whose agents then learn from each other's answers
(`training.codistillation`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.utils import _pytree as tree

from safescale_ammt.attacks.pgd import Answer
from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import InputError
from safescale_ammt.model.answers import as_columns, deployed
from safescale_ammt.modules.architectures import Architectures
from safescale_ammt.modules.copies import (
    RowLayout,
    call,
    called_with,
    duplicate,
    fixed_statistics,
    to_device,
    unkept_statistics,
)
from safescale_ammt.modules.precision import AdaptivePrecisionEngine
from safescale_ammt.modules.randomness import own_randomness, unseeded
from safescale_ammt.modules.recomputing import recompute
from safescale_ammt.modules.rows import ModuleRows
from safescale_ammt.modules.threatened import ThreatenedRows
from safescale_ammt.modules.trial import Loss, own_loss
from safescale_ammt.training.architectures import turns
from safescale_ammt.training.codistillation import Codistillation
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.learner import Learner, soft_rates, task_loss
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.seeds import derived_seed
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.sync import Round
from safescale_ammt.training.training_log import Log, discard

_UNDECIDED = -1
"""Of a checkpoint: whether nets are stacked is not decided."""


class ModuleLearner(Learner):
    """k copies of a module, or of several.

    Args:
        architectures: the modules that the copies are of; they stay as they are.
        starts: numbers of those that it begins with, one copy of each.
        rows: what they train on.
        config: the training section.
        cells: whose soft rates are part of the loss.
        loss: the user's own, None for that of the task.
        device: where they train.
        precision: what numbers they compute in.
        note: takes the event of how they are computed.
        codistillation: how those of several modules teach each other.
    """

    def __init__(
        self,
        architectures: Architectures,
        starts: Sequence[int],
        rows: ModuleRows,
        config: TrainingConfig,
        *,
        cells: Sequence[Cell],
        loss: Loss | None,
        device: torch.device,
        precision: AdaptivePrecisionEngine,
        note: Log = discard,
        codistillation: Codistillation | None = None,
    ) -> None:
        theta = architectures.rows(starts).to(device)
        # Gradients that are too long are cut; only those that are no number are left.
        infinite = float("inf")
        muon = config.optimizer == "muon"
        super().__init__(
            theta,
            ema=config.ema,
            stability=infinite,
            parameters=architectures.trained,
            matrices=architectures.matrices(starts) if muon else None,
        )
        self.precision, self.device = precision, device
        # Steps that were taken, and those of them before the nets parted.
        self.steps, self._parted = 0, 0
        # Whether nets are stacked; None is not decided yet.
        self.stacked: bool | None = None
        # Whether the first batch's loss is level: no weight changes it.
        self.level = False
        self._doubted = False
        self._note = note
        self._seed: Callable[[int], None] = unseeded
        self._architectures, self._rows = architectures, rows
        self._config, self._cells, self._loss = config, cells, loss
        self._threatened = ThreatenedRows(cells, config)
        self._codistillation = codistillation or Codistillation()
        # Copies that teach, by their number; they answer, and do not train.
        self._teachers: dict[int, nn.Module] = {}
        self._taught = 0
        self._copies: list[nn.Module] = []
        self._numbers: list[int] = []
        self._layouts: list[RowLayout] = []
        self._parameters: list[list[Tensor]] = []
        self._slots = range(-len(theta), 0)
        self.place(self._slots)

    def fork(
        self,
        roles: Sequence[Role],
        placement: Placement | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """Makes copies of the nets that there are: of several, each of its own."""
        if rows is None:
            local = (placement or Placement(len(roles))).local_slots
            rows = turns(roles, len(self.theta))[list(local)]
        self._parted = self.steps
        super().fork(roles, placement, rows)

    def place(self, slots: range) -> None:
        """Makes a copy for each net."""
        kept: dict[int, dict[str, Tensor]] = {}
        for number, each in zip(self._numbers, self._copies, strict=True):
            kept.setdefault(number, dict(each.named_buffers()))
        self._slots, self._copies, self._parameters = slots, [], []
        self.stacked = None
        self._numbers = self._architectures.numbers(self.theta).tolist()
        self._layouts = [self._architectures.layouts[i] for i in self._numbers]
        for row, number, layout in zip(
            self.theta, self._numbers, self._layouts, strict=True
        ):
            module = self._architectures.modules[number]
            each = duplicate(module, self.device).train()
            # What the trunk has counted in buffers of whole numbers goes on.
            for name, buffer in each.named_buffers():
                if number in kept and name not in layout.buffers:
                    buffer.copy_(kept[number][name])
            if self._config.gradient_checkpointing:
                recompute(each)
            layout.bind(each, row)
            self._copies.append(each)
            named = dict(each.named_parameters())
            self._parameters.append([named[name] for name in layout.parameters])

    def adopt(self, theta: Tensor, sync_round: Round) -> None:
        """Takes the agents' shared weights, and the modules that teach from now on."""
        super().adopt(theta, sync_round)
        self._teachers = {}
        numbers = self._architectures.numbers(sync_round.word).tolist()
        for number, row in zip(numbers, sync_round.word, strict=True):
            # A weight of 0 asks nobody.
            if self._codistillation.weight:
                module = duplicate(self._architectures.modules[number], self.device)
                self._architectures.layouts[number].bind(module, row.to(self.device))
                self._teachers[number] = module.eval()

    def gradient(
        self, batch: Tensor, extra: Tensor, cell_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the task losses (k,) and the Lagrangians' gradient (k, weights)."""
        if self.steps % self._config.sync_every == 0:
            self.precision.decide(self.steps * batch.shape[1] / len(self._rows))
        # Of float32, whatever torch's default is: so are the rates.
        weights = cell_weights.to(self.device, torch.float32)
        if self.stacked is None:
            self.stacked = self.choose(batch, extra, weights)
        with own_randomness(self.device) as seed:
            self._seed = seed
            way = self._stacked if self.stacked else self._looped
            losses, grad = way(batch, extra, weights)
        self.steps += 1
        self._taught += bool(self._teachers)
        self.precision.note(grad)
        norm = grad.norm(dim=1, keepdim=True)
        if not self._doubted and not bool(norm.isfinite().all()):
            self._doubted = True
            reason = (
                f"A gradient of step {self.steps} is no finite number, and its net "
                "leaves out each step that is so: look for missing or infinite inputs, "
                "and at the loss."
            )
            self._note({"event": "doubt", "reason": reason})
        limit = self._config.gradient_stability_threshold
        return losses.detach().float().cpu(), grad * (limit / norm).clamp(max=1)

    def _looped(
        self, batch: Tensor, extra: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes one net after another."""
        losses, grads = [], []
        for i in range(len(self._copies)):
            self._seed(self._draw(i))
            task, lagrangian = self._losses(i, batch[i], extra[i], weights)
            losses.append(task.detach())
            found = torch.autograd.grad(
                lagrangian, self._parameters[i], allow_unused=True
            )
            # What the rows of the cells have changed is part of a checkpoint, too; not
            # before the gradient, which may need what was there.
            self._layouts[i].collect(self._copies[i], self.theta[i])
            # A parameter that the answer does not need has no gradient.
            parts = zip(found, self._parameters[i], strict=True)
            row = [torch.zeros_like(p) if g is None else g for g, p in parts]
            flat = torch.cat([part.flatten() for part in row])
            # Rows of smaller modules have room that nothing moves.
            grads.append(f.pad(flat, (0, self._architectures.trained - len(flat))))
        return torch.stack(losses), torch.stack(grads)

    def _stacked(
        self, batch: Tensor, extra: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes all nets in one program."""
        leaves = {
            name: view.detach().requires_grad_()
            for name, view in self._layouts[0].stack(self.theta).items()
        }

        def inputs(index: Tensor) -> Any:
            seen = []
            for i, role in enumerate(self.roles):
                self._seed(self._draw(i))
                seen.append(self._inputs(index[i], role))
            return tree.tree_map(lambda *parts: torch.stack(parts), *seen)

        def answers(inputs: Any) -> Tensor:
            one = partial(called_with, self._copies[0])
            with self.precision.autocast():
                found: Tensor = torch.vmap(one)(leaves, inputs)
            return found

        def columns(inputs: Any) -> Tensor:
            found = answers(inputs).float()
            return found[..., None] if found.dim() == 2 else found

        raw, y = answers(inputs(batch)), self._rows.y[batch].to(self.device)
        each = zip(raw, y, self.roles, strict=True)
        task = torch.stack([self._task(*own) for own in each])
        lagrangian = task
        if extra.shape[1] and bool(weights.any()):
            slots = range(len(self.roles))
            asked = columns(self._under_attack(inputs(extra), columns, slots))
            weight = self.traits.constraint_weight.to(self.device)
            lagrangian = task + weight * (
                soft_rates(asked, self._cells, self._rows.y[extra].to(self.device))
                @ weights.float()
            )
        found = torch.autograd.grad(lagrangian.sum(), tuple(leaves.values()))
        return task, torch.cat([part.flatten(1) for part in found], 1)

    def choose(self, batch: Tensor, extra: Tensor, weights: Tensor) -> bool:
        """Decides whether nets are stacked: by a probe, where the module allows it."""
        report: dict[str, Any] = {"event": "execution", "used": "loop"}
        wanted = self._config.execution
        if wanted == "loop" or len(self._copies) < 2:
            return False
        seconds: dict[str, float] = {}
        with own_randomness(self.device) as self._seed:
            try:
                if len(self._architectures) > 1:
                    raise RuntimeError("they are of several architectures")
                if self._layouts[0].buffers or self._config.gradient_checkpointing:
                    raise RuntimeError("it keeps statistics, or recomputes")
                for name, way in {
                    "stacked": self._stacked,
                    "loop": self._looped,
                }.items():
                    way(batch, extra, weights)
                    start = time.process_time()
                    way(batch, extra, weights)
                    seconds[name] = time.process_time() - start
            # What a module does at random or in place has no stacked form.
            except (RuntimeError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())[:120]
                report["reason"] = f"Nets are not stacked: {reason}."
        faster = bool(seconds) and seconds["stacked"] < seconds.get("loop", 0.0)
        stacked = "loop" in seconds and (wanted == "stacked" or faster)
        report |= {"used": "stacked" if stacked else "loop", "seconds": seconds}
        self._note(report)
        return stacked

    def _draw(self, i: int) -> int:
        """Returns the seed of what a net draws in this step."""
        slot = self._slots[i]
        return derived_seed(self._config.seed, f"net {slot} step {self.steps}")

    def rehearse(self, i: int = 0) -> float:
        """Returns the first batch's loss: does a net's step, and changes nothing."""
        batch = torch.arange(min(self._config.batch_size, len(self._rows)))
        before = self.theta.clone()
        with own_randomness(self.device), unkept_statistics(self._copies[i]):
            loss = self._losses(i, batch, batch[:0], batch[:0])[0]
            if not loss.requires_grad:
                raise InputError(
                    "The loss does not depend on the model's weights; it is to be "
                    "computed of the answer, by torch."
                )
            found = torch.autograd.grad(loss, self._parameters[i], allow_unused=True)
        level = not any(g is not None and bool(g.any()) for g in found)
        self.level = self.level or level
        self.theta.copy_(before)
        return float(loss.detach())

    def _losses(
        self, i: int, batch: Tensor, extra: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the task loss and the Lagrangian of one net."""
        module, role = self._copies[i], self.roles[i]
        seen = self._inputs(batch, role)
        # Before the module, which may write on what it is given.
        answers = self._answers(i, seen)
        with self.precision.autocast():
            raw = call(module, seen)
        task = self._task(raw, self._rows.y[batch].to(self.device), role)
        self._layouts[i].collect(module, self.theta[i])
        whole = task
        if answers:
            own, numbers = as_columns(raw).float(), self._rows.y.is_floating_point()
            lesson = self._codistillation.lesson(own, answers, numbers=numbers)
            whole = task + self._codistillation.at(self._taught, self._config) * lesson
        # Without a multiplier there is nothing to hold the rates against.
        if not len(extra) or not role.constraint_weight or not bool(weights.any()):
            return task, whole
        inputs = self._inputs(extra, role)
        if self._threatened.threats:

            def columns(inputs: Any) -> Tensor:
                alone = tree.tree_map(lambda x: x[0], inputs)
                with self.precision.autocast():
                    return as_columns(call(module, alone)).float()[None]

            stacked = tree.tree_map(lambda x: x[None], inputs)
            with deployed(module):
                stacked = self._under_attack(stacked, columns, range(i, i + 1))
            inputs = tree.tree_map(lambda x: x[0], stacked)
        with fixed_statistics(module), self.precision.autocast():
            asked = call(module, inputs)
        out, y = as_columns(asked).float()[None], self._rows.y[extra][None]
        soft = soft_rates(out, self._cells, y.to(self.device))[0]
        return task, whole + role.constraint_weight * (soft @ weights)

    def _answers(self, i: int, seen: Any) -> list[Tensor]:
        """Returns what the teachers of one net say of its batch; the twin has none."""
        others = [
            t for number, t in self._teachers.items() if number != self._numbers[i]
        ]
        if not others or self.roles[i] == TWIN:
            return []
        found = []
        for teacher in others:
            own = tree.tree_map_only(Tensor, torch.clone, seen)
            with torch.no_grad(), self.precision.autocast():
                found.append(as_columns(call(teacher, own)).float())
        # A word that is no number is none.
        return [answer for answer in found if bool(answer.isfinite().all())]

    def _under_attack(self, inputs: Any, answer: Answer, nets: range) -> Any:
        """Returns the cells' rows, as nets are shown them: those threatened attacked.

        Args:
            inputs: parts (nets, rows, ...).
            answer: of the nets.
            nets: which of those here.
        """
        taken = self.steps - self._parted
        radius = 1.0 if self._slots.start < 0 else self._threatened.radius(taken)

        def draw(parts: list[Tensor]) -> list[Tensor]:
            each = []
            for i in nets:
                # Whether nets are stacked or not, each draws its own.
                self._seed(derived_seed(self._draw(i), "attack"))
                each.append([torch.rand_like(part[0]) for part in parts])
            return [torch.stack(own) for own in zip(*each, strict=True)]

        roles = [self.roles[i] for i in nets]
        return self._threatened.attacked(inputs, answer, roles, radius, draw)

    def _inputs(self, index: Tensor, role: Role) -> Any:
        """Returns rows as a net of a role sees them in training."""
        inputs = to_device(
            self._rows.batch(index), self.device, self._architectures.dtype
        )
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
            return own_loss(self._loss, raw, target)
        if y.is_floating_point():
            return f.mse_loss(out.float(), y)
        brier = torch.tensor([role.brier], device=self.device)
        return task_loss(out.float()[None, None], y[None], brier)[0]

    def state_dict(self) -> StateDict:
        """Returns weights, averages, optimizer, other buffers and the step count."""
        state = super().state_dict()
        for name, each in self._counts():
            state.each[name] = torch.stack(each).cpu()
        state.common["steps"] = torch.tensor(self.steps)
        state.common["parted"] = torch.tensor(self._parted)
        state.common["taught"] = torch.tensor(self._taught)
        # A choice that a clock made is part of the run: whoever resumes keeps it.
        # At the first step of new copies there is none yet.
        chosen = _UNDECIDED if self.stacked is None else int(self.stacked)
        state.common["stacked"] = torch.tensor(chosen)
        return state

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from a state of as many nets."""
        super().load_state_dict(state)
        self.steps = int(state.common["steps"])
        self._parted = int(state.common["parted"])
        self._taught = int(state.common["taught"])
        self.place(self._slots)
        chosen = int(state.common["stacked"])
        self.stacked = None if chosen == _UNDECIDED else bool(chosen)
        if self.stacked:
            self._note({"event": "execution", "used": "stacked", "seconds": {}})
        for name, each in self._counts():
            for buffer, value in zip(each, state.each[name], strict=True):
                buffer.copy_(value)

    def _counts(self) -> Iterator[tuple[str, list[Tensor]]]:
        """Yields what nets keep beside their rows, by name: buffers of whole numbers.

        A net of another module has something else there, which nobody reads.
        """
        pairs = zip(
            self._architectures.modules, self._architectures.layouts, strict=True
        )
        for number, (module, layout) in enumerate(pairs):
            head = f"buffer.{number}." if number else "buffer."
            for name, buffer in module.named_buffers():
                if name not in layout.buffers:
                    yield (
                        head + name,
                        [
                            dict(copy.named_buffers())[name]
                            if own == number
                            else buffer.detach().to(self.device, copy=True)
                            for copy, own in zip(
                                self._copies, self._numbers, strict=True
                            )
                        ],
                    )
