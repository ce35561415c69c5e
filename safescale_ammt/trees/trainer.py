"""Boosting under the constitution: k agents and the twin, round by round together.

    trunk       every booster on its own rows, by the log loss alone
    specialise  every so many rounds: a checkpoint, if one is due; the dual update moves
                the multipliers by the agents' hard rates on the folds they hold out
                every round: each agent adds a tree by its Lagrangian

Agents share nothing but the multipliers, as trees have no weights to average. Nor is
the trunk common: a tree keeps what it has seen, and rates on a fold whose rows a common
trunk was boosted on would flatter it. The twin is boosted by the log loss on all rows
to the end, as LightGBM itself does it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.model.network import log_loss, predicted
from safescale_ammt.training.beginning import begun
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.constraints import hard_rates
from safescale_ammt.training.dual_update import DualUpdate, merge_shift_of
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.nets import Rows
from safescale_ammt.training.placement import SINGLE_PROCESS, Placement, ProcessGroup
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.trainer import Trained
from safescale_ammt.training.training_log import Log
from safescale_ammt.trees.boosting import (
    L2_PER_DECAY,
    Boosting,
    Inputs,
    Watched,
    binned,
    objective,
    settings,
)
from safescale_ammt.trees.lagrangian import Floats, Lagrangian
from safescale_ammt.trees.tree_nets import TreeNets

_LOOKED_AT = 1 << 14
"""Most rows that the log loss is measured on meanwhile: a look, and no decision."""


def train_trees(
    nets: TreeNets,
    config: TrainingConfig,
    constitution: Constitution,
    *,
    log: Log,
    twin: bool = True,
    process_group: ProcessGroup = SINGLE_PROCESS,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Boosts k agents and the twin.

    Args:
        nets: the boosters' settings and dataset; it holds them afterwards.
        config: the training section.
        constitution: names the enforced principles.
        log: receives every event, a JSON mapping.
        twin: whether to boost the twin.
        process_group: this process alone.
        checkpoints: where the run is saved and resumed from; None is nowhere.

    Returns:
        What `training.trainer.train` returns, shares of boosters for weights.

    Raises:
        ConfigError: LightGBM is not here.
        DataError: too few rows for the folds.
        Interrupted: SIGTERM came and a checkpoint was taken.
    """
    checkpoints = checkpoints or Checkpoints()
    rounds = nets.genome.rounds
    with begun(
        *(nets, config, constitution),
        log=log,
        twin=twin,
        process_group=process_group,
        checkpoints=checkpoints,
        rounds=rounds,
    ) as (plan, record):
        crowd = Crowd(nets, plan)
        dual = TreeDual(plan, crowd)
        boost(plan, crowd, dual, checkpoints, record)
        k, boosters = len(plan.roles), len(plan.slots)
        shares = torch.eye(boosters, dtype=torch.float64)
        return Trained(
            nets=plan.nets,
            agents=shares[:k],
            finite=torch.ones(k, dtype=torch.bool),
            twin=shares[k:],
            constraints=plan.constraints,
            targets=dual.targets,
            steps=rounds,
            cell_weights=dual.cell_weights,
            config=config,
        )


def boost(
    plan: Plan, crowd: Crowd, dual: TreeDual, checkpoints: Checkpoints, log: Log
) -> None:
    """Takes all rounds: checkpoint, dual, step.

    Args:
        plan: of the run.
        crowd: the boosters.
        dual: their multipliers.
        checkpoints: where the run is saved.
        log: receives every event.
    """
    config, k, rounds = plan.config, len(plan.roles), crowd.nets.genome.rounds
    # A net's steps and a booster's rounds are as long as the run: parts carry over.
    trunk = max(1, round(rounds * plan.trunk_steps / plan.steps))
    every = max(1, round(rounds * config.dual_every / plan.steps))
    placement = Placement(len(plan.slots))
    start = checkpoints.begin(f"{k} boosters", placement, crowd=crowd, dual=dual)
    shares = torch.eye(len(plan.slots), dtype=torch.float64)
    for step in range(start, rounds):
        if step and (step - trunk) % every == 0:
            checkpoints.save_if_due(step)
        if step == trunk and plan.constraints.pairs:
            # The last is the twin, on all rows; a short run has none.
            rows = plan.nets.rows("constraint")
            dual.set_targets(plan.constitution, shares[-1:], rows)
        if step >= trunk and (step - trunk) % every == 0:
            report = dual.update(shares, torch.ones(k, dtype=torch.bool))
            losses = crowd.losses()
            event = {"event": "round", "step": step, **report}
            log(event | {"loss": losses[:k], "twin_loss": losses[k:]})
        crowd.step(dual.cell_weights if step >= trunk else None)


class Crowd:
    """The boosters of all agents, and of the twin if there is one.

    Args:
        nets: gets the boosters.
        plan: their roles and rows.
    """

    def __init__(self, nets: TreeNets, plan: Plan) -> None:
        self.nets, self.plan = nets, plan
        rows = cast("EncodedRows", plan.rows)
        classes, threads = len(nets.classes), plan.config.threads
        label, strata = rows.y.numpy(), plan.strata.numpy()
        inside = plan.constraints.membership(rows.groups, rows.y).numpy()
        outcomes = [cell.outcome for cell in plan.constraints.cells]
        plain = Inputs(rows)
        whole = binned(plain, threads)
        self._descents: list[Lagrangian | None] = []
        boosters = []
        self._views = [view.numpy().astype(np.int64) for view in plan.views]
        if len(plan.slots) == len(plan.roles):
            self._views = self._views[: len(plan.roles)]
        for i, (role, view) in enumerate(zip(plan.slots, self._views, strict=True)):
            inputs, data = plain, whole
            if role.input_drop:
                inputs = Inputs(rows, role.input_drop, plan.seed(f"input drop {i}"))
                data = binned(inputs, threads, whole)
            genome = nets.genome
            pull = genome.l2 + L2_PER_DECAY * role.weight_decay
            parameters = settings(replace(genome, l2=pull), classes, threads)
            boosters.append(Boosting(data, inputs, view, parameters))
            descent = None
            if is_own(role, bool(plan.constraints.pairs)):
                weight = balanced(strata, role.balance)[view]
                weight /= weight.mean()
                descent = Lagrangian(
                    label[view],
                    inside[:, view],
                    outcomes,
                    weight=weight,
                    role=role,
                    classes=classes,
                )
            self._descents.append(descent)
        nets.boosters = boosters
        self._judged = nets.rows("validation").part(_LOOKED_AT)
        x = self._judged.batch(torch.arange(len(self._judged))).numpy()
        self._validated = [Watched(x) for _ in boosters]
        self._pulls: list[Floats | None] = [None] * len(boosters)
        self._pulled_by: Tensor | None = None

    def step(self, cell_weights: Tensor | None) -> None:
        """Adds a tree to each booster; without weights by the log loss alone."""
        if cell_weights is not None and cell_weights is not self._pulled_by:
            # They stay until the next dual update.
            self._pulled_by = cell_weights
            weights = cell_weights.numpy().astype(np.float64)
            self._pulls = [
                None if descent is None else descent.pulls(weights)
                for descent in self._descents
            ]
        every = zip(self.nets.boosters, self._descents, self._pulls, strict=True)
        for booster, descent, pulls in every:
            if cell_weights is None or descent is None or pulls is None:
                booster.step()
            else:
                booster.step(Descent(descent, pulls))

    def losses(self) -> list[float]:
        """Returns each booster's log loss on *validation*, of a part of many rows."""
        pairs = zip(self._validated, self.nets.boosters, strict=True)
        return [
            log_loss(torch.from_numpy(watched.look(booster)), self._judged.y)
            for watched, booster in pairs
        ]

    def state_dict(self) -> StateDict:
        """Returns every booster's text, as bytes."""
        says = objective(len(self.nets.classes))
        texts = (booster.text(says).encode() for booster in self.nets.boosters)
        return StateDict(
            common={
                f"booster{i}": torch.from_numpy(np.frombuffer(text, np.uint8).copy())
                for i, text in enumerate(texts)
            }
        )

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        self.nets.boosters = [
            booster.resumed(state.common[f"booster{i}"].numpy().tobytes().decode())
            for i, booster in enumerate(self.nets.boosters)
        ]


class Descent:
    """A Lagrangian at the multipliers of the day."""

    def __init__(self, lagrangian: Lagrangian, pulls: Floats) -> None:
        self._lagrangian, self._pulls = lagrangian, pulls

    def __call__(self, scores: Floats) -> tuple[Floats, Floats]:
        """Returns gradient and curvature at raw scores."""
        return self._lagrangian(scores, self._pulls)


class TreeDual(DualUpdate):
    """The dual update, by scores to which each update adds those of the new trees.

    Args:
        plan: of the run.
        crowd: the boosters.
    """

    def __init__(self, plan: Plan, crowd: Crowd) -> None:
        shift = merge_shift_of(plan)
        super().__init__(
            *(plan.nets, plan.constraints, plan.rows, plan.held_out, plan.config),
            merge_shift=shift,
        )
        self._crowd = crowd
        rows = crowd.nets.rows(*crowd.nets.pool)
        # Without a promise that is enforced there is nothing to look at.
        _, index, self._membership = self._looks[0]
        watched = index if plan.constraints.pairs else ()
        self._watched = [Watched(rows.batch(index).numpy()) for index in watched]
        self._shown: list[Watched] = []
        if shift is not None:
            assert isinstance(shift.rows, EncodedRows)
            x = shift.rows.batch(torch.arange(len(shift.rows))).numpy()
            self._shown = [Watched(x) for _ in self._watched]

    def hits(self, averaged: Tensor) -> Tensor:
        """Returns hits per cell (agents, cells) of the agents on their folds."""
        del averaged
        boosters = self._crowd.nets.boosters[: len(self._watched)]
        outcomes = torch.tensor([cell.outcome for cell in self.constraints.cells])
        found = [
            hard_rates(
                predicted(torch.from_numpy(watched.look(booster)))[None],
                inside,
                outcomes,
            )[0]
            for watched, booster, inside in zip(
                self._watched, boosters, self._membership, strict=True
            )
        ]
        return torch.stack(found)

    def answers(
        self, averaged: Tensor, finite: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        """Returns what agents (k, n) and the mean of their scores (n,) predict."""
        del averaged, finite, rows
        boosters = self._crowd.nets.boosters[: len(self._shown)]
        pairs = zip(self._shown, boosters, strict=True)
        scores = np.stack([watched.look(booster) for watched, booster in pairs])
        both = np.concatenate([scores, scores.mean(0, keepdims=True)])
        said = predicted(torch.from_numpy(both))
        return said[:-1], said[-1]


def is_own(role: Role, enforced: bool) -> bool:
    """Says whether a role descends something else than the log loss."""
    pulled = enforced and role.constraint_weight > 0
    return bool(pulled or role.balance or role.brier)


def balanced(strata: NDArray[Any], exponent: float) -> Floats:
    """Returns weights of rows (n,): the size of their stratum to minus an exponent."""
    sizes = np.bincount(strata).astype(np.float64)
    return np.asarray(sizes[strata] ** -exponent)
