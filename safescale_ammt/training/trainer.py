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

The nets may be spread over processes: each steps its own, and `gather` shows all
of them to the referee and to the sharing rule, which every process runs alike. A
run in one process is the same program with nothing to gather.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.model.device import keep_freed_memory, settled
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import forward, initial, predicted
from safescale_ammt.training.checkpoint import Checkpoints, Log
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import SINGLE_PROCESS, Placement, ProcessGroup
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.roles import ROLES, Role
from safescale_ammt.training.sampling import CellSampler, RowOrders
from safescale_ammt.training.stateful import Stateful
from safescale_ammt.training.step_stats import StepStats, plain, require_quorum
from safescale_ammt.training.sync import Sharing

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
    encoded: EncodedDataset,
    genome: Genome,
    config: TrainingConfig,
    constitution: Constitution,
    *,
    log: Log,
    twin: bool = True,
    process_group: ProcessGroup = SINGLE_PROCESS,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Trains k agents and the twin.

    Args:
        encoded: the dataset as tensors.
        genome: architecture of all nets.
        config: the training section.
        constitution: names the enforced principles.
        log: receives every event, a JSON mapping.
        twin: whether to train the twin; a short run of the search needs none.
        process_group: joins the processes that the nets are spread over.
        checkpoints: where the run is kept and taken up again; None is nowhere.

    Raises:
        ConfigError: an unknown role.
        DataError: too few rows for the folds.
        SafescaleError: too few agents take steps at all (their gradients are not
            finite, or too long).
        PeerLost: another process went away.
        Interrupted: SIGTERM came and a checkpoint was taken.
    """
    keep_freed_memory()
    checkpoints = checkpoints or Checkpoints()
    with settled(config.threads), checkpoints.listening(process_group, log) as note:
        plan = make_plan(encoded, genome, config, constitution)
        if not checkpoints.resumed:
            for reason in plan.constraints.left_out:
                note({"event": "left_out", "reason": reason})
        learner = _trunk(plan, note, checkpoints, process_group)
        slots = (*plan.roles, *(TWIN,) * twin)
        placement = Placement(len(slots), process_group)
        dual_update = _dual_update(plan, learner, constitution, placement)
        return _specialise(
            plan, learner, dual_update, note, slots=slots, checkpoints=checkpoints
        )


def _trunk(
    plan: Plan, log: Log, checkpoints: Checkpoints, process_group: ProcessGroup
) -> Learner:
    """Trains the one net that all agents and the twin start from.

    Every process does, for none has anything else to do; rank 0's counts.
    """
    config, n_out = plan.config, plan.encoded.n_out
    learner = Learner(
        plan.genome,
        plan.rows,
        initial(plan.genome, plan.rows.x.shape[1], n_out, [plan.seed("weights")]),
        n_out=n_out,
        ema=config.ema,
        stability=config.gradient_stability_threshold,
        seed=plan.seed("dropout"),
    )
    orders = RowOrders([plan.order(-1, ROLES["generalist"], "trunk")])
    nothing = torch.zeros(1, 0, dtype=torch.long)
    step_stats = StepStats(1)
    parts: dict[str, Stateful] = {
        "learner": learner,
        "orders": orders,
        "watch": step_stats,
    }
    for step in range(
        checkpoints.resume("trunk", parts, Placement(1)), plan.trunk_steps
    ):
        if step and step % config.sync_every == 0:
            checkpoints.visit(step, "trunk", parts, Placement(1))
            require_quorum(plan, step, step_stats.usable())
            log({"event": "trunk", "step": step, "loss": plain(step_stats.losses())})
            step_stats.clear()
        batch = orders.deal(plan.batch)
        step_stats.add(*learner.step(batch, nothing, torch.zeros(0), plan.rate(step)))
    learner.agree(process_group)
    return learner


def _specialise(
    plan: Plan,
    learner: Learner,
    dual_update: DualUpdate,
    log: Log,
    *,
    slots: tuple[Role, ...],
    checkpoints: Checkpoints,
) -> Trained:
    """Trains agents and the nets beside them (the twin), from the trunk on."""
    config, k, placement = plan.config, len(plan.roles), dual_update.placement
    agents = len(placement.below(k))
    sharing = Sharing(
        learner.theta[0],
        aggregate=config.sharing,
        self_weight=config.self_weight,
        outer_learning_rate=config.outer_learning_rate,
        outer_momentum=config.outer_momentum,
    )
    learner.fork(slots, plan.constraints.cells, placement)
    orders = RowOrders([plan.order(i, slots[i], f"agent {i}") for i in placement.mine])
    sampler = _sampler(plan, placement)
    step_stats = StepStats(len(placement.mine))
    parts: dict[str, Stateful] = {
        "learner": learner,
        "orders": orders,
        "watch": step_stats,
    }
    parts |= {"sampler": sampler, "referee": dual_update, "sharing": sharing}
    start = max(plan.trunk_steps, checkpoints.resume("agents", parts, placement))

    for step in range(start, plan.steps):
        since = step - plan.trunk_steps
        if since % config.sync_every == 0:
            checkpoints.visit(step, "agents", parts, placement)
        if since % config.dual_every == 0:
            finite = placement.gather(learner.finite())[:k]
            dual_report = dual_update.update(learner.weights(agents), finite)
            losses = plain(placement.gather(step_stats.losses()))
            event = {"event": "round", "step": step, **dual_report.to_dict()}
            event |= {"loss": losses[:k], "twin_loss": losses[k:]}
            if since % (_SCORE_EVERY * config.dual_every) == 0:
                event["accuracy"] = accuracies(plan, learner, placement).tolist()
            log(event)
        if since and since % config.sync_every == 0:
            usable = placement.gather(step_stats.usable() & learner.finite())[:k]
            require_quorum(plan, step, usable)
            theta = placement.gather(learner.theta[:agents], upto=k)
            done = sharing.share(
                theta,
                usable=usable,
                teaches=dual_update.teaches,
                fitness=_fitness(plan, learner, placement)[:k],
            )
            learner.theta[:agents] = theta[placement.mine.start :][:agents]
            learner.rejoin(placement.local(done.lost), sharing.consensus)
            if done.eventful:
                log({"event": "share", "step": step, **done.to_dict()})
            step_stats.clear()
        batch, extra = orders.deal(plan.batch), sampler.draw()
        rate = plan.rate(step)
        step_stats.add(*learner.step(batch, extra, dual_update.cell_weights, rate))

    finite = placement.gather(learner.finite())
    for part in (finite[:k], finite[k:]):
        require_quorum(plan, plan.steps, part)
    averaged = placement.gather(learner.averaged)
    return Trained(
        genome=plan.genome,
        agents=averaged[:k].clone(),
        finite=finite[:k],
        twin=averaged[k:].clone(),
        roles=plan.roles,
        constraints=plan.constraints,
        targets=dual_update.targets,
        multipliers=dual_update.multipliers(),
        steps=plan.steps,
    )


def _dual_update(
    plan: Plan, trunk: Learner, constitution: Constitution, placement: Placement
) -> DualUpdate:
    dual_update = DualUpdate(
        plan.genome,
        plan.constraints,
        plan.rows,
        plan.held,
        plan.config,
        placement=placement,
    )
    rows = plan.encoded.rows("constraint", plan.genome.encoding)
    dual_update.aim(constitution, plan.encoded.counts, trunk.weights(), rows)
    return dual_update


def _sampler(plan: Plan, placement: Placement) -> CellSampler:
    inside = plan.constraints.membership(plan.rows.groups, plan.rows.y)
    seen = plan.seen[: placement.nets]
    return CellSampler(inside, seen, plan.seed("cells"), placement.mine)


def accuracies(plan: Plan, learner: Learner, placement: Placement) -> Tensor:
    """Returns every net's accuracy (k + 1,) on *validation*, averaged weights."""
    rows = plan.encoded.rows("validation", plan.genome.encoding)
    with torch.no_grad():
        x = rows.x[None]
        out = forward(plan.genome, learner.weights(), x, lone=learner.lone).mean(1)
    return placement.gather((predicted(out) == rows.y).to(torch.float64).mean(1))


def _fitness(plan: Plan, learner: Learner, placement: Placement) -> Tensor:
    """Scores the agents for the one aggregate that asks for it."""
    if plan.config.sharing == "fitness":
        return accuracies(plan, learner, placement)
    return torch.zeros(placement.nets, dtype=torch.float64)
