"""The training loop: one trunk, k agents that specialise and share, one twin.

    trunk       one net, all rows, no constraints
    fork        k agents and the twin start as copies of the trunk; agent i sets
                fold i aside and takes up its role
    specialise  every step: Adam on the loss + multipliers x soft rates
                every `dual_every` steps: the referee moves the multipliers
                every `sync_every` steps: agents share what they learnt

The twin is one more net in the same program, unconstrained and unshared: it takes
as many steps as an agent and sees all rows. What the constitution costs is
measured against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.config import TrainingConfig
from safescale_ammt.constitution import Constitution
from safescale_ammt.errors import SafescaleError
from safescale_ammt.search.genome import Genome
from safescale_ammt.training.agents import ROLES, Role
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.device import keep_freed_memory, settled
from safescale_ammt.training.learner import CellSampler, Learner, deal
from safescale_ammt.training.network import forward, initial, predicted
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.problem import Problem
from safescale_ammt.training.referee import Referee
from safescale_ammt.training.sync import Sharing

Log = Callable[[dict[str, Any]], None]
TWIN = replace(ROLES["generalist"], name="twin", constraint_weight=0.0)
_SCORE_EVERY = 5
"""Referee's rounds between two looks at the validation split."""


@dataclass(frozen=True)
class Trained:
    """What training hands on.

    Attributes:
        genome: of every net.
        agents: averaged weights of the k agents (k, P).
        finite: which agents ended with finite weights (k,).
        twin: averaged weights of the unconstrained twin (1, P).
        roles: the agents' roles.
        constraints: what was enforced.
        targets: gap that each pair aimed at (pairs,).
        multipliers: principle id -> pair -> lambda at the end.
        steps: optimizer steps of each net.
    """

    genome: Genome
    agents: Tensor
    finite: Tensor
    twin: Tensor
    roles: tuple[Role, ...]
    constraints: Constraints
    targets: Tensor
    multipliers: dict[str, dict[str, float]]
    steps: int


def train(
    problem: Problem,
    genome: Genome,
    config: TrainingConfig,
    constitution: Constitution,
    *,
    log: Log,
    twin: bool = True,
) -> Trained:
    """Trains k agents and the twin.

    Args:
        problem: the dataset as tensors.
        genome: architecture of all nets.
        config: the training section.
        constitution: names the enforced principles.
        log: receives every event, a JSON mapping.
        twin: whether to train the twin; a short run of the search needs none.

    Raises:
        ConfigError: an unknown role.
        DataError: too few rows for the folds.
        SafescaleError: too few agents take steps at all (their gradients are not
            finite, or too long).
    """
    keep_freed_memory()
    with settled(config.threads):
        plan = make_plan(problem, genome, config, constitution)
        for reason in plan.constraints.left_out:
            log({"event": "left_out", "reason": reason})
        learner = _trunk(plan, log)
        return _specialise(plan, learner, constitution, log, (TWIN,) * twin)


def _trunk(plan: Plan, log: Log) -> Learner:
    """Trains the one net that all agents and the twin start from."""
    config, n_out = plan.config, plan.problem.n_out
    learner = Learner(
        plan.genome,
        plan.rows,
        initial(plan.genome, plan.rows.x.shape[1], n_out, [plan.seed("weights")]),
        n_out=n_out,
        ema=config.ema,
        stability=config.gradient_stability_threshold,
        seed=plan.seed("dropout"),
    )
    order = plan.order(-1, ROLES["generalist"], "trunk")
    nothing = torch.zeros(1, 0, dtype=torch.long)
    watch = _Watch(1)
    for step in range(plan.trunk_steps):
        if step and step % config.sync_every == 0:
            _require_quorum(plan, step, watch.usable())
            log({"event": "trunk", "step": step, "loss": watch.losses()})
            watch = _Watch(1)
        batch = order.take(plan.batch)[None]
        watch.add(*learner.step(batch, nothing, torch.zeros(0), plan.rate(step)))
    return learner


def _specialise(
    plan: Plan,
    learner: Learner,
    constitution: Constitution,
    log: Log,
    beside: tuple[Role, ...],
) -> Trained:
    """Trains agents and the nets beside them (the twin), from the trunk on."""
    config, k = plan.config, len(plan.roles)
    referee = _referee(plan, learner, constitution)
    sharing = Sharing(
        learner.theta[0],
        aggregate=config.sharing,
        self_weight=config.self_weight,
        outer_learning_rate=config.outer_learning_rate,
        outer_momentum=config.outer_momentum,
    )
    slots = (*plan.roles, *beside)
    learner.fork(slots, plan.constraints.cells)
    orders = [plan.order(i, role, f"agent {i}") for i, role in enumerate(slots)]
    sampler = _sampler(plan, len(slots))
    cell_weights = torch.zeros(len(plan.constraints.cells))
    teaches = torch.ones(k, dtype=torch.bool)
    watch = _Watch(len(slots))

    for step in range(plan.trunk_steps, plan.steps):
        since = step - plan.trunk_steps
        if since % config.dual_every == 0:
            ruling = referee.rule(learner.weights(slice(k)), learner.finite()[:k])
            cell_weights, teaches = ruling.cell_weights, ruling.teaches
            event = {"event": "round", "step": step, **ruling.to_dict()}
            event["loss"] = watch.losses()[:k]
            event["twin_loss"] = watch.losses()[k:]
            if since % (_SCORE_EVERY * config.dual_every) == 0:
                event["accuracy"] = accuracies(plan, learner).tolist()
            log(event)
        if since and since % config.sync_every == 0:
            usable = watch.usable()[:k] & learner.finite()[:k]
            _require_quorum(plan, step, usable)
            fitness = _fitness(plan, learner)[:k]
            done = sharing.share(
                learner.theta[:k], usable=usable, teaches=teaches, fitness=fitness
            )
            learner.rejoin(done.lost, sharing.consensus)
            if done.eventful:
                log({"event": "share", "step": step, **done.to_dict()})
            watch = _Watch(len(slots))
        batch, extra = deal(orders, plan.batch), sampler.draw()
        watch.add(*learner.step(batch, extra, cell_weights, plan.rate(step)))

    for part in (slice(k), slice(k, None)):
        _require_quorum(plan, plan.steps, learner.finite()[part])
    return Trained(
        genome=plan.genome,
        agents=learner.averaged[:k].clone(),
        finite=learner.finite()[:k],
        twin=learner.averaged[k:].clone(),
        roles=plan.roles,
        constraints=plan.constraints,
        targets=referee.targets,
        multipliers=referee.multipliers(),
        steps=plan.steps,
    )


def _referee(plan: Plan, trunk: Learner, constitution: Constitution) -> Referee:
    referee = Referee(plan.genome, plan.constraints, plan.rows, plan.held, plan.config)
    rows = plan.problem.rows("constraint", plan.genome.encoding)
    referee.aim(constitution, plan.problem.counts, trunk.weights(), rows)
    return referee


def _sampler(plan: Plan, slots: int) -> CellSampler:
    inside = plan.constraints.membership(plan.rows.groups, plan.rows.y)
    return CellSampler(inside, plan.seen[:slots], plan.seed("cells"))


def accuracies(plan: Plan, learner: Learner) -> Tensor:
    """Returns each net's accuracy (k + 1,) on *validation*, averaged weights."""
    rows = plan.problem.rows("validation", plan.genome.encoding)
    with torch.no_grad():
        out = forward(plan.genome, learner.weights(), rows.x[None]).mean(1)
    return (predicted(out) == rows.y).to(torch.float64).mean(1)


def _fitness(plan: Plan, learner: Learner) -> Tensor:
    """Scores the agents for the one aggregate that asks for it."""
    if plan.config.sharing == "fitness":
        return accuracies(plan, learner)
    return torch.zeros(len(learner.theta), dtype=torch.float64)


class _Watch:
    """Losses and skipped steps of each net since the last round."""

    def __init__(self, nets: int) -> None:
        self._sum = torch.zeros(nets)
        self._taken = torch.zeros(nets)
        self._steps = 0

    def add(self, losses: Tensor, skipped: Tensor) -> None:
        self._sum += torch.where(skipped, 0.0, losses)
        self._taken += ~skipped
        self._steps += 1

    def usable(self) -> Tensor:
        """Returns which nets took at least one step, (nets,) booleans."""
        return (self._taken > 0) | (self._steps == 0)

    def losses(self) -> list[float | None]:
        """Returns each net's mean loss over its steps; None without any."""
        means = (self._sum / self._taken).tolist()
        return [m if math.isfinite(m) else None for m in means]


def _require_quorum(plan: Plan, step: int, usable: Tensor) -> None:
    """Ends training in one sentence when most agents are lost.

    Raises:
        SafescaleError: fewer than half of the agents are usable.
    """
    lost = int((~usable).sum())
    if lost > len(usable) // 2:
        limit = plan.config.gradient_stability_threshold
        raise SafescaleError(
            f"Training stopped at step {step} of {plan.steps}: {lost} of "
            f"{len(usable)} nets had no finite gradient below "
            f"training.gradient_stability_threshold = {limit:g}; lower "
            f"training.learning_rate ({plan.config.learning_rate:g})."
        )
