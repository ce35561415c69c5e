"""Nets that are a user's own module on a table's rows (`training.nets.Nets`).

The module trains by the loop and the learner of any module (`modules.nets`); rows,
groups and promises are the dataset's, as for nets of a genome. What is deployed is the
program that the module was traced to: before anything is trained it is compared with
the module itself, and again for every form that training weighs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.config.unapplied import unapplied_to_own_models
from safescale_ammt.errors import InputError
from safescale_ammt.model.answers import as_columns
from safescale_ammt.model.device import find_device, present_for_tables
from safescale_ammt.model.module_genome import ModuleGenome
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.model.program import Program, Steps
from safescale_ammt.modules.copies import RowLayout, call, duplicate
from safescale_ammt.modules.nets import ModuleNets
from safescale_ammt.modules.own_code import RowFormat, built
from safescale_ammt.modules.precision import AdaptivePrecisionEngine
from safescale_ammt.modules.task import Task
from safescale_ammt.modules.tracing import ROWS, traced
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.nets import SplitTables
from safescale_ammt.training.table_nets import TableNets
from safescale_ammt.training.training_log import Log, discard

TOLERANCE = 1e-3
"""Most that a logit of the program may differ from the module's, in units of the
largest logit and 1: float32 rounds, and a chain of layers adds that up."""


class OwnNets(ModuleNets):
    """Nets that are copies of a user's own module, on one dataset.

    Args:
        encoded: the dataset as tensors.
        config: the training section, which names the module.
        deploys: whether models are made of these nets: one process of several does.

    Attributes:
        package: the code that built it.
        log: takes events of the nets.

    Raises:
        ConfigError: the code cannot be had, or builds no module.
        IntegrityError: the code is of another digest.
        InputError: a module that cannot be trained, or not be written down.
    """

    sets_aside = True

    def __init__(
        self, encoded: EncodedDataset, config: TrainingConfig, *, deploys: bool = True
    ) -> None:
        self.table = TableNets(encoded, config.model_encoding)
        self.encoded = encoded
        self.log: Log = discard
        form = RowFormat.of(encoded.schema, config.model_encoding)
        module, self.package = built(config, form)
        wanted = "cpu" if config.processes > 1 else config.device
        self.kind, device, self._said = find_device(wanted, present_for_tables(wanted))
        precision = AdaptivePrecisionEngine(
            memory_threshold=config.memory_threshold,
            gradient_stability_threshold=config.gradient_stability_threshold,
            switching=config.precision_switching_enabled,
            mixed=config.mixed_precision,
            device=device,
            log=self._note,
        )
        schema = encoded.schema
        super().__init__(
            module.cpu(),
            Task(schema.classes, form.outputs, schema.groups),
            device=device,
            precision=precision,
            log=self._note,
        )
        self.outcomes, self.unit = self.table.outcomes, self.table.unit
        self.counts: SplitTables = self.table.counts  # type: ignore[assignment]
        self.most_rows = self.table.most_rows
        self._config = config
        # Before anything is spent; and it takes seconds.
        if deploys:
            self._compare(self._program([module]), [module])

    @cached_property
    def genome(self) -> ModuleGenome:
        """The genome of every net."""
        module, inputs = self._module, self.encoded.d_in(self._config.model_encoding)
        return ModuleGenome(
            model=self._config.model,
            code=self.package.digest,
            encoding=self._config.model_encoding,
            size=self.layout.trained,
            cost=flops(module, inputs),
        )

    @cached_property
    def _traced(self) -> tuple[Steps, dict[str, Tensor]]:
        inputs = self.encoded.d_in(self._config.model_encoding)
        return traced(self._module, inputs, self.encoded.n_out)

    def _note(self, event: dict[str, Any]) -> None:
        self.log(event)

    def roles(self, config: TrainingConfig) -> tuple[Role, ...]:
        """Returns the section's roles; those for other data act as the generalist."""
        return self.table.roles(config)

    def unapplied(self, config: TrainingConfig) -> Iterator[str]:
        """Yields what the section asks for and a module on a table does not do."""
        yield from unapplied_to_own_models(config, self.kind)
        if self._said:
            yield self._said

    def rows(self, *splits: str) -> Any:
        """Returns the rows of splits, one after the other (`EncodedRows`)."""
        return self.table.rows(*splits)

    def deployable(self, theta: Tensor, form: str) -> Any:
        """Makes rows of weights (members, P) one deployable model.

        Raises:
            InputError: its program answers otherwise than the modules.
        """
        modules = [m.cpu() for m in super().deployable(theta, form).modules]
        program = self._program(modules)
        self._compare(program, modules)
        positive = self.outcomes[0] if len(self.outcomes) == 1 else None
        return Deployable(self.genome, program, form, positive)

    def headed(self, model: Any, constraints: Constraints, targets: Tensor) -> Any:
        """Returns a model with a fair head, None where there is nothing to correct."""
        return self.table.headed(model, constraints, targets)

    def _program(self, modules: list[nn.Module]) -> Program:
        """Returns the program of modules that differ in their tensors alone."""
        (steps, constants), each = self._traced, []
        for module in modules:
            named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            arrays = {
                name: named[name].detach().numpy()
                for name in steps.needs
                if name in named
            }
            each.append({n: t.numpy() for n, t in constants.items()} | arrays)
        stacked = {n: np.stack([own[n] for own in each]) for n in each[0]}
        return Program(steps, stacked)

    @cached_property
    def _sample(self) -> tuple[Tensor, Tensor]:
        """A block of rows, and one with other rows beside its first half."""
        rows: EncodedRows = self.rows("validation").part(2 * ROWS)
        index = torch.arange(2 * ROWS) % len(rows)
        first, others = torch.split(rows.batch(index), ROWS)
        return first, torch.cat([first[: ROWS // 2], others[ROWS // 2 :]])

    def _compare(self, program: Program, modules: list[nn.Module]) -> None:
        """Compares a program with the modules that it is of.

        Raises:
            InputError: they answer otherwise, or to a row by the rows beside it.
        """
        first, beside = self._sample
        found = program.raw(first.numpy())
        half = found[: ROWS // 2], program.raw(beside.numpy())[: ROWS // 2]
        if not np.array_equal(*half, equal_nan=True):
            raise InputError(
                "The module of training.model answers a row otherwise when other rows "
                "are beside it; an answer may depend on its own row alone (batch norm "
                "keeps statistics for that)."
            )
        dtype = self.layout.dtype
        with torch.no_grad():
            out = [as_columns(call(m.eval(), first.to(dtype))) for m in modules]
        own: NDArray[Any] = torch.stack(out).double().mean(0).numpy()
        known = np.isfinite(own) & np.isfinite(found)
        far = np.abs(np.where(known, own - found, 0.0)).max(initial=0.0)
        most = TOLERANCE * max(1.0, np.abs(own[known]).max(initial=0.0))
        if far > most or not np.array_equal(np.isfinite(own), np.isfinite(found)):
            raise InputError(
                "The module of training.model and its form without torch differ by "
                f"{far:.2g} in a logit, at most {most:.2g} is rounding; it may draw at "
                "random, or compute beyond float32."
            )


def flops(module: nn.Module, inputs: int) -> int:
    """Counts multiplications and additions of a module's matrices for one row."""
    asked = duplicate(module, torch.device("cpu")).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        asked(torch.zeros(2, inputs, dtype=RowLayout.of(module).dtype))
    return int(counter.get_total_flops()) // 2
