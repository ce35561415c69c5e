"""Nets of any module on a user's rows (`training.nets.Nets`)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.utils import _pytree as tree

from safescale_ammt.config.roles import MODAL_ROLES, ROLES, Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.config.unapplied import changed, unapplied_to_modules
from safescale_ammt.constitution.principles import Principle
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.errors import SafescaleError
from safescale_ammt.judging.findings import Finding
from safescale_ammt.model.answers import as_columns
from safescale_ammt.model.network import predicted, row_log_losses
from safescale_ammt.modules.architectures import Architectures
from safescale_ammt.modules.copies import call, duplicate, norms, to_device
from safescale_ammt.modules.fair_head import fitted
from safescale_ammt.modules.form import ModuleForm
from safescale_ammt.modules.learner import ModuleLearner
from safescale_ammt.modules.precision import AdaptivePrecisionEngine
from safescale_ammt.modules.processes import processes_here
from safescale_ammt.modules.recomputing import composite
from safescale_ammt.modules.robust import attacked_logits, judge_attacked
from safescale_ammt.modules.rows import BLOCK, ModuleRows
from safescale_ammt.modules.task import Task
from safescale_ammt.modules.trial import Loss
from safescale_ammt.training.architectures import soups, turns
from safescale_ammt.training.codistillation import Codistillation
from safescale_ammt.training.constraints import Cell, Constraints
from safescale_ammt.training.fair_head import HEAD_ROWS
from safescale_ammt.training.plan import POOL
from safescale_ammt.training.student import learnt_on
from safescale_ammt.training.training_log import Log, discard

if TYPE_CHECKING:
    from safescale_ammt.constitution.constitution import Constitution, GroupRule
    from safescale_ammt.training.trainer import Trained

_STATISTICS = 64
"""Batches that the statistics of batch norm are taken of anew."""


class ModuleNets:
    """Nets that are copies of a module, or of several.

    Args:
        module: the user's, which stays as it is; several are architectures that
            agents are dealt out to.
        task: what it is to learn, and of which rows.
        device: where it trains.
        precision: what numbers it computes in.
        loss: the user's own, None for that of the task.
        own_roles: roles of the user, in place of the section's.
        log: takes events.
        codistillation: how agents of several architectures teach each other.
    """

    unit = "rows"
    sets_aside = False
    pool = POOL
    most_rows = 1 << 18

    def __init__(
        self,
        module: nn.Module | Sequence[nn.Module],
        task: Task,
        *,
        device: torch.device,
        precision: AdaptivePrecisionEngine,
        loss: Loss | None = None,
        own_roles: Sequence[Role] = (),
        log: Log = discard,
        codistillation: Codistillation | None = None,
    ) -> None:
        self.task, self.groups, self.classes = task, task.groups, task.classes
        self.outcomes = (
            (1,) if len(task.classes) == 2 else tuple(range(len(task.classes)))
        )
        self.counts, self.device, self.precision = task, device, precision
        modules = (module,) if isinstance(module, nn.Module) else tuple(module)
        self.mix = Architectures.of(modules)
        self.starts = tuple(range(len(self.mix)))
        self.codistillation = codistillation or Codistillation()
        self.layout, self._module = self.mix.layouts[0], modules[0]
        self.loss, self._own_roles = loss, own_roles
        self._log = log
        self.execution: dict[str, Any] = {"used": "loop"}
        # Its weights are set anew for each question.
        self._asked = [duplicate(each, device).eval() for each in modules]
        first = to_device(
            self.rows("train").batch(torch.zeros(1, dtype=torch.long)),
            device,
            self.layout.dtype,
        )
        self._axes = max(
            [
                p.dim()
                for p in tree.tree_leaves(first)
                if isinstance(p, Tensor) and p.is_floating_point()
            ],
            default=0,
        )

    def roles(self, config: TrainingConfig) -> tuple[Role, ...]:
        """Returns the user's roles or the section's; vision is one where images are."""
        if self._own_roles:
            return tuple(self._own_roles)
        names = config.agent_specializations
        other = set(self.other_kinds(config))
        plain = {name: replace(ROLES["generalist"], name=name) for name in other}
        known = ROLES | MODAL_ROLES | plain
        return tuple(known[name] for name in names)

    def architectures(self, theta: Tensor) -> Tensor:
        """Returns which module each row of weights (k, P) is of (k,)."""
        return self.mix.numbers(theta)

    def dealt(self, roles: Sequence[Role]) -> Tensor:
        """Returns which module the net of each slot is to be of (slots,)."""
        return turns(roles, len(self.mix))

    def other_kinds(self, config: TrainingConfig) -> tuple[str, ...]:
        """Returns the section's roles that the data are of no kind for."""
        # An image is a table of points: rows of it have three axes at least.
        treated = {"vision"} if self._axes >= 3 else set()
        named = set(config.agent_specializations) & MODAL_ROLES.keys()
        return () if self._own_roles else tuple(sorted(named - treated))

    def unapplied(self, config: TrainingConfig) -> Iterator[str]:
        """Yields what the section asks for and a module does not do."""
        kinds = self.other_kinds(config)
        yield from unapplied_to_modules(config, kinds, processes_here())
        if config.gradient_checkpointing and not any(
            composite(module) for module in self.mix.modules
        ):
            yield (
                "training.gradient_checkpointing is True, which does not apply: the "
                "model has no blocks of layers, whose activations could be recomputed."
            )
        if len(self.mix) > 1:
            own = "several models have a trunk each, none of which is drawn out"
            yield from changed(config, {"branch": own})
        if config.tpu_pods and self.device.type != "xla":
            yield (
                f"training.tpu_pods is {config.tpu_pods}, which does not apply: no TPU "
                f"is reached from here, and training uses {self.device}."
            )

    def rows(self, *splits: str) -> ModuleRows:
        """Returns the rows of splits; those for training are *constraint*'s too."""
        own = {"constraint": "train"}
        names = dict.fromkeys(own.get(name, name) for name in splits)
        parts = [self.task.splits[name] for name in names]
        if len(parts) == 1:
            return parts[0]
        groups = {n: torch.cat([p.groups[n] for p in parts]) for n in parts[0].groups}
        index, y = (torch.cat([getattr(p, n) for p in parts]) for n in ("index", "y"))
        return ModuleRows(parts[0].inputs, index, y, groups)

    def learner(
        self, rows: ModuleRows, cells: Sequence[Cell], config: TrainingConfig
    ) -> ModuleLearner:
        """Returns the one net that the trunk trains."""
        # Some layers have no deterministic form: a warning, and no error.
        torch.set_deterministic_debug_mode("warn")
        loss = self.loss
        if not self.task.predicts_numbers and rows.y.is_floating_point():
            # Chances, which a student learns; the user's own loss takes labels.
            several = rows.y.dim() > 1
            loss = f.cross_entropy if several else f.binary_cross_entropy_with_logits
        learner = ModuleLearner(
            self.mix,
            self.starts,
            rows,
            config,
            cells=cells,
            loss=loss,
            device=self.device,
            precision=self.precision,
            note=self.take_execution,
            codistillation=self.codistillation,
        )
        rehearsed = [learner.rehearse(i) for i in range(len(self.starts))]
        if not all(map(math.isfinite, rehearsed)):
            raise SafescaleError(
                "The loss of the first batch is no finite number; look at the loss and "
                "at the scale of inputs and targets."
            )
        if learner.level:
            reason = (
                "No weight changes the loss of the first batch, so that nothing can be "
                "learnt of it: look at the loss (a cross entropy of one column is 0 "
                "whatever the answer)."
            )
            self._log({"event": "doubt", "reason": reason})
        self.precision.probe(learner.rehearse)
        return learner

    def take_execution(self, event: dict[str, Any]) -> None:
        """Takes how nets are computed: for the log, and for the metrics."""
        if event["event"] == "execution":
            self.execution = {n: v for n, v in event.items() if n != "event"}
        self._log(event)

    def logits(
        self,
        theta: Tensor,
        rows: ModuleRows,
        index: Tensor,
        *,
        one_of_several: bool = False,
    ) -> Tensor:
        """Returns the answers (k, B, n_out), float32."""
        del one_of_several  # each net is computed by itself
        found = []
        for asked, own in self._asked_each(theta, index):
            answers = []
            for block in torch.split(own, BLOCK):
                inputs = to_device(rows.batch(block), self.device, self.layout.dtype)
                with torch.no_grad():
                    answers.append(as_columns(call(asked, inputs)).float().cpu())
            found.append(torch.cat(answers))
        return torch.stack(found)

    def under_attack(
        self, theta: Tensor, rows: ModuleRows, index: Tensor, threat: Threat
    ) -> Tensor:
        """Returns the answers to attacked rows (k, B, n_out), float32."""
        found = []
        for asked, own in self._asked_each(theta, index):
            answers = []
            for block in torch.split(own, BLOCK):
                inputs = to_device(rows.batch(block), self.device, self.layout.dtype)
                label = rows.y[block].to(self.device)
                out = attacked_logits(asked, inputs, label, threat)
                answers.append(out.float().cpu())
            found.append(torch.cat(answers))
        return torch.stack(found)

    def _asked_each(
        self, theta: Tensor, index: Tensor
    ) -> Iterator[tuple[nn.Module, Tensor]]:
        """Yields each net as a module, and the numbers of the rows it is asked."""
        numbers = self.architectures(theta).tolist()
        for i, (row, number) in enumerate(zip(theta, numbers, strict=True)):
            asked = self._asked[number]
            self.mix.layouts[number].bind(asked, row.to(self.device, copy=True))
            yield asked, index[min(i, len(index) - 1)]

    def judge_attacked(
        self,
        principle: Principle,
        model: ModuleForm,
        rows: ModuleRows,
        sizes: GroupRule,
        alpha: float,
    ) -> Finding:
        """Judges a promise of robust accuracy by an attack on a form."""
        group = principle.constraint.group
        names = self.groups[group] if group else ("",)
        return judge_attacked(principle, model, rows, sizes, names=names, alpha=alpha)

    def worth(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns 1 for each right answer, else 0; of numbers what R2 averages."""
        if self.task.predicts_numbers:
            missed = (logits - label).square() / self.task.spread
            return (1 - missed.mean(-1)).to(torch.float64)
        return (predicted(logits) == label).to(torch.float64)

    def row_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns the log loss, or the squared error, of each row (n,)."""
        if self.task.predicts_numbers:
            return (logits - label).square().mean(-1)
        return row_log_losses(logits, label)

    def deployable(self, theta: Tensor, form: str) -> ModuleForm:
        """Makes rows of weights (members, P) one form, batch statistics taken anew."""
        modules, numbers = [], self.architectures(theta).tolist()
        for row, number in zip(theta, numbers, strict=True):
            module = duplicate(self.mix.modules[number], self.device)
            self.mix.layouts[number].bind(module, row.to(self.device, copy=True))
            self.take_statistics(module)
            modules.append(module.eval())
        positive = self.outcomes[0] if len(self.outcomes) == 1 else None
        return ModuleForm(
            tuple(modules),
            form,
            positive,
            self.task.predicts_numbers,
            architectures=tuple(dict.fromkeys(numbers)),
        )

    def take_statistics(self, module: nn.Module) -> None:
        """Takes the statistics of batch norm anew, of rows for training.

        Those of averaged weights are no average of statistics (Izmailov et al. 2018).
        """
        layers = [layer for layer in norms(module) if layer.track_running_stats]
        if not layers:
            return
        momenta = [layer.momentum for layer in layers]
        module.eval()
        for layer in layers:
            layer.reset_running_stats()
            # None: the plain mean over batches.
            layer.momentum = None
            layer.training = True
        rows = self.rows("train").part(_STATISTICS * BLOCK // 4)
        for block in torch.split(torch.arange(len(rows)), BLOCK // 4):
            # Of one row there is no variance.
            if len(block) > 1:
                inputs = to_device(rows.batch(block), self.device, self.layout.dtype)
                with torch.no_grad():
                    call(module, inputs)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    def headed(
        self, model: ModuleForm, constraints: Constraints, targets: Tensor
    ) -> ModuleForm | None:
        """Returns the form with a fair head, None where there is nothing to correct."""
        if len(self.classes) != 2:
            return None
        (module,) = model.modules
        head = fitted(module, self.rows(*HEAD_ROWS), constraints, targets)
        return None if head is None else replace(model, head=head)

    def student(
        self, trained: Trained, constitution: Constitution, *, soft: float
    ) -> Tensor:
        """Returns a net (1, P) that has learnt on from the soup of trained agents.

        Of several architectures it is of the one that the user has named, or of the
        first that was not lost, and learns what the agents of all say.
        """
        starts, alone = soups(self, trained.agents[trained.finite]), copy.copy(self)
        named = self.codistillation.student
        number = named if named in starts else min(starts)
        alone.starts = (number,)
        own = replace(trained, nets=alone)
        return learnt_on(own, constitution, soft=soft, start=starts[number])
