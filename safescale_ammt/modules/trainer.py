"""The public trainer: any module, any rows, promises in short or a constitution.

find the task      rows, classes and groups; what does not fit is refused
train              trunk, agents and twin: the one training loop of the house
merge              the agents become one module
measure            accuracy, promises with bounds, robustness, each agent
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safescale_ammt.attacks.ball import UNATTACKABLE, attackable
from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import DataError, Interrupted
from safescale_ammt.model.device import find_device, present_device, settled
from safescale_ammt.modules.copies import RowLayout
from safescale_ammt.modules.identity import checkpoints_of, digest, identity
from safescale_ammt.modules.metrics import TrainingMetrics
from safescale_ammt.modules.nets import ModuleNets
from safescale_ammt.modules.outcome import ModuleRun, measured, merged
from safescale_ammt.modules.precision import AdaptivePrecisionEngine
from safescale_ammt.modules.processes import (
    all_alike,
    differing,
    from_first,
    joined,
    require_equal,
)
from safescale_ammt.modules.randomness import own_randomness
from safescale_ammt.modules.robust import out_of_range
from safescale_ammt.modules.rows import GivenRows, given_rows
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.task import Kind, find_task, with_splits
from safescale_ammt.modules.trial import (
    Loss,
    all_answered,
    check_device,
    naming,
    require_modules,
    require_options,
)
from safescale_ammt.training.budget import spent
from safescale_ammt.training.codistillation import Codistillation
from safescale_ammt.training.placement import SINGLE_PROCESS, ProcessGroup
from safescale_ammt.training.plan import of_length
from safescale_ammt.training.seeds import derived_seed
from safescale_ammt.training.trainer import train

_LOG = logging.getLogger("safescale_ammt")
_TOLD = (
    "left_out",
    "unapplied",
    "precision",
    "doubt",
    "checkpoint_failed",
    "device",
    "stopped",
)
"""Events that people should see."""
LEAST_HELD = 8
"""Fewer rows for validation say nothing."""
_STOPPED: ContextVar[Callable[[], bool]] = ContextVar("stopped", default=bool)
"""Tells whether the task that waits for a training was cancelled."""
_TURN = threading.RLock()
"""Threads, generators and modes of torch are the process's: one training at a time."""


class SAFESCALEAMMTTrainer:
    """Trains any `torch.nn.Module` as many agents under a constitution.

    Args:
        config: the training section; None is its defaults. With `max_epochs` and
            `steps` left at its default, the epochs alone decide how long.
        loss: (answer, target) -> a number or one for each row; None is the log loss of
            logits, or the squared error.
        task: classification or regression; auto goes by answers and targets.
        roles: of the user, dealt out to the agents in place of the config's.
        codistillation: how agents of several models teach each other; None is its
            defaults.
        checkpoints: a folder or the URI of a store: a run that is stopped goes on from
            there. `config.checkpoint_every` says how often.
        log: receives every event, a JSON mapping; of several processes in the first.
        present: finds the device of a kind; for tests.
    """

    def __init__(
        self,
        config: TrainingConfig | None = None,
        *,
        loss: Loss | None = None,
        task: Kind = "auto",
        roles: Sequence[Role] = (),
        codistillation: Codistillation | None = None,
        checkpoints: str | Path | None = None,
        log: Callable[[dict[str, Any]], object] | None = None,
        present: Callable[[str], torch.device | None] = present_device,
    ) -> None:
        own = (roles,) if isinstance(roles, Role) else tuple(roles)
        require_options(config, loss, task, own, codistillation)
        self.config = config or TrainingConfig()
        self._loss, self._task, self._roles = loss, task, own
        self._codistillation = codistillation or Codistillation()
        self._checkpoints, self._log, self._present = checkpoints, log, present

    async def train_model(
        self,
        initial_model: nn.Module | Sequence[nn.Module],
        train_dataset: Any,
        validation_dataset: Any,
        safety_constraints: Any = None,
        *,
        sensitive: Any = None,
        validation_sensitive: Any = None,
    ) -> tuple[nn.Module, TrainingMetrics]:
        """Trains as `train` does, in a thread: the running loop goes on meanwhile.

        Where the task is cancelled, training stops at its next event.
        """
        stop = threading.Event()
        before = _STOPPED.set(stop.is_set)
        try:
            return await asyncio.to_thread(
                self.train,
                initial_model,
                train_dataset,
                validation_dataset,
                safety_constraints,
                sensitive=sensitive,
                validation_sensitive=validation_sensitive,
            )
        except asyncio.CancelledError:
            # A thread cannot be ended from outside, and the process waits for it.
            stop.set()
            raise
        finally:
            _STOPPED.reset(before)

    def train(
        self,
        initial_model: nn.Module | Sequence[nn.Module],
        train_dataset: Any,
        validation_dataset: Any,
        safety_constraints: Any = None,
        *,
        sensitive: Any = None,
        validation_sensitive: Any = None,
    ) -> tuple[nn.Module, TrainingMetrics]:
        """Trains agents and merges them; the model that was given stays as it is.

        Args:
            initial_model: answers a batch with logits or numbers. Of a list of
                modules each is an architecture that agents are dealt out to; they
                teach each other, and one of them comes back.
            train_dataset: a map-style Dataset, or a pair or triple of arrays.
            validation_dataset: rows that no weight is fitted on, of the same form.
            safety_constraints: a mapping such as {"max_bias": .05, "min_fairness": .9,
                "adversarial_budget": .1}, or a constitution, its mapping or its file.
            sensitive: the groups of the rows for training, if no third tensor has
                them: values (n,), or a mapping of them by name.
            validation_sensitive: the same of the rows for validation.

        Returns:
            A module that was trained, not training, on the device of the one given;
            and what was measured on the rows for validation.

        Raises:
            InputError: a model that cannot be trained.
            DataError: rows that do not fit it.
            ConfigError: a config or promises that are wrong.
            SafescaleError: training lost most of its agents.
            PeerLost: another process of the script went away.
        """
        start = time.perf_counter()
        modules = require_modules(initial_model, self.config, self._codistillation)
        home = next(modules[0].parameters(), torch.zeros(0)).device
        with own_turn(self.config) as seed:
            # What rows or a module draw while they are only asked.
            seed(derived_seed(self.config.seed, "asked"))
            given = read_both(
                (train_dataset, sensitive),
                (validation_dataset, validation_sensitive),
                self.config.sensitive,
            )
            # Rows first: bad ones end each process by itself, with nobody waiting.
            with joined(self.config) as group:
                own = all_alike(modules, group)
                run = self.prepare(own, given, safety_constraints, group)
                model, metrics = self._trained(run, own)
                seconds = from_first(group, time.perf_counter() - start)
                if event := spent(self.config, seconds):
                    run.log(event)
        return model.to(home).eval(), {**metrics, "seconds": seconds}

    def _trained(
        self, run: ModuleRun, modules: Sequence[nn.Module]
    ) -> tuple[nn.Module, TrainingMetrics]:
        """Trains, merges and measures what was prepared, in all its processes."""
        own, law, group = identity(run, modules), run.promises.constitution, run.group
        require_equal(group, own)
        store = checkpoints_of(self._checkpoints, run, own)
        trained = train(
            *(run.nets, run.config, law),
            log=run.log,
            process_group=group,
            checkpoints=store,
        )
        model, twin, chosen = merged(run, trained)
        metrics, found = measured(run, trained, model, twin), model.module()
        tensors = (*found.parameters(), *found.buffers())
        if any(differing(group, {"model": digest(found, tensors)}).values()):
            reason = (
                "The processes ended with models that differ, as their processors "
                "round otherwise; take that of process 1."
            )
            run.log({"event": "doubt", "reason": reason})
        if group.rank == 0:
            store.clear()
        return found, {**metrics, **chosen, "processes": group.size}

    def prepare(
        self,
        modules: Sequence[nn.Module],
        given: tuple[GivenRows, GivenRows],
        safety_constraints: Any,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> ModuleRun:
        """Finds device, task and promises; trains nothing, and leaves torch as it is.

        Args:
            modules: the user's.
            given: rows for training and for validation (`read_both`).
            safety_constraints: as in `train`.
            group: the processes that train; the first one speaks for all.
        """
        for i, module in enumerate(modules):
            with naming(i, len(modules)):
                RowLayout.of(module)
        events: list[dict[str, Any]] = []

        stopped = _STOPPED.get()

        def log(event: dict[str, Any]) -> None:
            if stopped():
                raise Interrupted("The task that trains was cancelled.")
            events.append(event)
            if group.rank > 0:
                return
            if self._log is not None:
                self._log(event)
            if event["event"] in _TOLD:
                _LOG.warning("%s", event["reason"])

        with own_turn(self.config):
            kind, device, reason = find_device(self.config.device, self._present)
            if reason:
                log({"event": "device", "reason": reason})
            for module in modules:
                check_device(module, device, self.config.device)
            columns = all_answered(modules, given, device)
            task = find_task(*given, columns, self._task)
            groups = tuple(task.groups)
            numbers = task.predicts_numbers
            first = torch.zeros(1, dtype=torch.long)
            hard = "" if attackable(given[0].inputs(first)) else UNATTACKABLE
            promises = Promises.read(
                safety_constraints, groups, numbers=numbers, unattackable=hard
            )
            threats = [] if hard or numbers else [promises.threat]
            threats += promises.constitution.threats
            wide = out_of_range(given[1], [t for t in threats if t is not None])
            for reason in (*promises.left_out, *wide):
                log({"event": "left_out", "reason": reason})
            config = lengthened(self.config, len(given[0]))
            task = with_splits(task, *given, config, promises.constitution)
            precision = AdaptivePrecisionEngine(
                memory_threshold=config.memory_threshold,
                gradient_stability_threshold=config.gradient_stability_threshold,
                switching=config.precision_switching_enabled,
                mixed=config.mixed_precision,
                device=device,
                group=group,
                log=log,
            )
            nets = ModuleNets(
                modules,
                task,
                device=device,
                precision=precision,
                loss=self._loss,
                own_roles=self._roles,
                log=log,
                codistillation=self._codistillation,
            )
            return ModuleRun(nets, task, promises, config, kind, events, log, group)


@contextmanager
def own_turn(config: TrainingConfig) -> Iterator[Callable[[int], None]]:
    """Gives threads, generators and modes of torch to the body; all is put back after.

    Yields:
        What seeds the generators.
    """
    with (
        _TURN,
        # Some layers have no deterministic form: a warning of torch's and no error.
        settled(config.threads, warns=True),
        own_randomness(torch.device("cpu")) as seed,
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        yield seed


def read_both(
    given: tuple[Any, Any], held: tuple[Any, Any], names: Sequence[str]
) -> tuple[GivenRows, GivenRows]:
    """Reads the rows for training and those for validation, each with its groups.

    Raises:
        DataError: too few of the latter.
    """
    rows = given_rows(*given, names, "train_dataset")
    judged = given_rows(*held, names, "validation_dataset")
    if len(judged) < LEAST_HELD:
        raise DataError(
            f"validation_dataset has {len(judged)} rows; at least {LEAST_HELD} are "
            "needed to choose and to judge a model."
        )
    return rows, judged


def lengthened(config: TrainingConfig, rows: int) -> TrainingConfig:
    """Lets `max_epochs` alone decide how long, where `steps` is at its default.

    Under a budget they bound what the budget decides.
    """
    default = TrainingConfig()
    alone = config.max_epochs and not config.budget_seconds
    if not alone or config.steps != default.steps:
        return config
    return of_length(config, config.max_epochs * math.ceil(rows / config.batch_size))
