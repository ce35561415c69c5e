"""The training loop: one trunk, k agents that specialise and share, one twin.

    trunk       one net, all rows, no constraints; with `tune` several race for it, and
                with `branch` it goes on for as long as it gains
    fork        k agents and the twin start as copies of the trunk; agent i sets
                fold i aside and takes up its role
    specialise  every `sync_every` steps: a checkpoint, if one is due
                every `dual_every` steps: the dual update moves the multipliers,
                and training ends if `patience` looks have shown no gain
                every `tune_every` steps: settings move, if they tune themselves
                every `sync_every` steps: the agents share what they learnt
                every step: Adam on the loss + multipliers x soft rates

What is due at the same step runs in this order. The twin is one more net in the same
program, unconstrained and unshared: it takes as many steps as an agent and sees all
rows. What the constitution costs is measured against it. Nets of several architectures
have a trunk each, share within one, and teach each other (`codistillation`).

The nets may be placed on several processes: each steps its own, and `gather` shows
all of them to the dual update and to the sharing rule, which every process runs
alike. A run in one process is the same program with nothing to gather.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.model.device import keep_freed_memory
from safescale_ammt.training.beginning import begun
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.codistillation import sharing_of
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.decisions import BEFORE
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.flatness import are_enough
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.monitor import watch
from safescale_ammt.training.nets import Nets, SteppedNets
from safescale_ammt.training.patience import Patience
from safescale_ammt.training.placement import SINGLE_PROCESS, Placement, ProcessGroup
from safescale_ammt.training.plan import Plan, attempts
from safescale_ammt.training.population import Population
from safescale_ammt.training.race import Race
from safescale_ammt.training.sampling import agent_batches
from safescale_ammt.training.step_stats import StepStats, require_quorum
from safescale_ammt.training.training_log import Log, only

_ACCURACY_EVERY = 5
"""Dual updates between two measurements of accuracy: a look, and no decision."""
_LOOKED_AT = 1 << 16
"""Most rows that accuracy is measured on meanwhile: it then errs by .002."""


@dataclass(frozen=True)
class Trained:
    """What training hands on.

    Attributes:
        nets: what was trained.
        agents: averaged weights of the k agents (k, P).
        finite: which agents ended with finite weights (k,).
        twin: averaged weights of the unconstrained twin (1, P).
        constraints: what was enforced.
        targets: gap that each pair aimed at (pairs,).
        steps: optimizer steps of each net; of those of a trunk that branches some were
            left out, as its event says.
        cell_weights: what each cell weighed in the Lagrangian at the end (cells,).
        config: the training section.
        setting: that the agents came to (1, 3), if settings tune themselves.
        roles: by name, that the agents have played last.
    """

    nets: Nets
    agents: Tensor
    finite: Tensor
    twin: Tensor
    constraints: Constraints
    targets: Tensor
    steps: int
    cell_weights: Tensor
    config: TrainingConfig
    setting: Tensor | None = None
    roles: tuple[str, ...] = ()


def train(
    nets: SteppedNets,
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
        nets: what is trained, on which dataset.
        config: the training section.
        constitution: names the enforced principles.
        log: receives every event, a JSON mapping.
        twin: whether to train the twin; a short run of the search needs none.
        process_group: the processes that the nets are placed on.
        checkpoints: where the run is saved and resumed from; None is nowhere.

    Raises:
        ConfigError: an unknown role, or a budget too small for a training.
        DataError: too few rows for the folds.
        SafescaleError: too few agents take steps at all (their gradients are not
            finite, or too long).
        PeerLost: another process went away.
        Interrupted: SIGTERM came and a checkpoint was taken.
    """
    checkpoints, since = checkpoints or Checkpoints(), time.perf_counter()
    with begun(
        *(nets, config, constitution),
        log=log,
        twin=twin,
        process_group=process_group,
        checkpoints=checkpoints,
    ) as (plan, record):
        # Only now: what reading has freed goes back.
        keep_freed_memory()
        decided = plan
        for decide in BEFORE:
            decided = decide(
                *(decided, nets, record, checkpoints, process_group), since=since
            )
        for attempt in attempts(decided, checkpoints):
            trunk = learner_of(nets, attempt)
            race = _train_trunk(attempt, trunk, record, checkpoints, process_group)
            placement = Placement(len(attempt.slots), process_group)
            trained = _specialise(attempt, race, record, checkpoints, placement)
            if are_enough(attempt, trained, placement, record):
                break
        return trained


def learner_of(nets: SteppedNets, plan: Plan) -> Learner:
    """Returns the one net that a plan's trunk trains."""
    # What grows behind the trunk does so over the steps that are left there.
    own = replace(plan.config, steps=plan.steps, trunk_steps=plan.trunk_steps)
    return nets.learner(plan.rows, plan.constraints.cells, own)


def _train_trunk(
    plan: Plan,
    learner: Learner,
    log: Log,
    checkpoints: Checkpoints,
    process_group: ProcessGroup,
) -> Race:
    """Trains the one net that all agents and the twin start from.

    Returns:
        The race that it has won: of itself alone where nothing is tuned.
    """
    # A fork leaves no trunk. For more agents it is trained again, quickly beside them,
    # so that no checkpoint has to hold it: to the same bits, or further (`branching`).
    if plan.before:
        log, checkpoints = only("branch", log), Checkpoints()
    race, unconstrained = Race(plan, learner), torch.zeros(0)
    for batches, stats, steps in race.rungs(log, checkpoints, process_group):
        for step in steps:
            if step and step % plan.config.sync_every == 0:
                checkpoints.save_if_due(step)
                # One net that learns is enough: of several that race, most may not.
                require_quorum(plan, step, stats.usable().any()[None])
                losses = [x for x in stats.losses(Placement(1)) if x is not None]
                loss = [min(losses, default=None)]
                log({"event": "trunk", "step": step, "loss": loss})
                stats.clear()
            rows = (part.expand(len(learner.theta), -1) for part in batches.draw())
            batch, extra = rows
            rate = plan.learning_rate(step)
            stats.add(*learner.step(batch, extra, unconstrained, rate))
    return race


def _specialise(
    plan: Plan,
    race: Race,
    log: Log,
    checkpoints: Checkpoints,
    placement: Placement,
) -> Trained:
    """Forks the trunk, trains agents and twin: checkpoint, dual, tune, share, step."""
    learner: Learner = race.learner
    dual = DualUpdate.start(plan, learner.averaged, placement)
    config, k = plan.config, len(dual.eligible)
    # What all processes look at lies with the processor, wherever nets are computed.
    sharing = sharing_of(plan, learner.theta.cpu())
    # The twin is a slot in the same program and not a run of its own: it takes as many
    # steps at the same rates, so that a difference to it is the constitution's.
    learner.fork(plan.slots, placement)
    batches = agent_batches(plan, placement)
    population = Population(plan, learner, placement, race, (sharing, batches))
    stats = StepStats(len(learner.theta))
    monitor = watch(
        plan,
        log,
        placement,
        learner=learner,
        dual=dual,
        sharing=sharing,
        batches=batches,
    )
    patience = Patience(plan, placement, log)
    # Checkpoints are numbered on from those of fewer agents.
    start = checkpoints.begin(
        f"{k} agents",
        placement,
        monitor=monitor,
        population=population,
        learner=learner,
        batches=batches,
        stats=stats,
        dual=dual,
        sharing=sharing,
        patience=patience,
    )

    taken = plan.steps
    for step in range(max(plan.trunk_steps, start - plan.before), plan.steps):
        since_fork = step - plan.trunk_steps
        is_sync_round = since_fork % config.sync_every == 0
        if is_sync_round:
            # Here nothing is half done: weights, multipliers, consensus and statistics
            # are all of the same step, in every process.
            checkpoints.save_if_due(step + plan.before)

        # The dual update comes before the share, which asks it who may teach: its word
        # is then of this round and not of the one before. It also sees a lost agent
        # as lost, before the share restarts it.
        if since_fork % config.dual_every == 0:
            finite = placement.gather(learner.finite())[:k]
            report = dual.update(learner.averaged, finite)
            losses = stats.losses(placement)
            event = {"event": "round", "step": step, **report}
            event |= {"loss": losses[:k], "twin_loss": losses[k:]}
            looks = since_fork % (_ACCURACY_EVERY * config.dual_every) == 0
            if looks:
                event["accuracy"] = accuracies(plan, learner, placement).tolist()
            log(event)
            monitor.look(step, report["violation"])
            if looks and patience.ends(step, learner, report["violation"]):
                monitor.stop(step)
                taken = step
                break

        # After the dual update, which says who breaks a promise.
        if decision := population.tune(since_fork, step, dual.eligible):
            log(decision)

        if is_sync_round and since_fork:
            usable = placement.gather(stats.usable() & learner.finite())[:k]
            require_quorum(plan, step, usable)
            # Whole weights are gathered, and every process computes the consensus:
            # a reduction adds in another order, and its sum is another model.
            theta = placement.gather(learner.theta.cpu())[:k]
            sync_round = sharing.share(
                theta,
                usable=usable,
                eligible=dual.eligible,
                fitness=lambda: accuracies(plan, learner, placement)[:k],
                step=step,
                log=log,
            )
            learner.adopt(theta, sync_round)
            stats.clear()

        rate = plan.learning_rate(step)
        stats.add(*learner.step(*batches.draw(), dual.cell_weights, rate))

    finite = placement.gather(learner.finite())
    # Apart, or one agent more would make up for a lost twin.
    require_quorum(plan, plan.steps, finite[:k])
    require_quorum(plan, plan.steps, finite[k:])
    averaged = placement.gather(learner.averaged.cpu())
    averaged, setting, roles = population.best(taken, averaged, log)
    finite = averaged.isfinite().all(1) & finite
    return Trained(
        nets=plan.nets,
        agents=averaged[:k].clone(),
        finite=finite[:k],
        twin=averaged[k:].clone(),
        constraints=plan.constraints,
        targets=dual.targets,
        steps=taken,
        cell_weights=dual.cell_weights,
        config=plan.config,
        setting=setting,
        roles=roles,
    )


def accuracies(plan: Plan, learner: Learner, placement: Placement) -> Tensor:
    """Returns every net's accuracy on *validation*, averaged weights (nets,)."""
    nets, rows = plan.nets, plan.nets.rows("validation").part(_LOOKED_AT)
    alone, found = placement.one_of_several(), []
    for block in rows.blocks(len(learner.theta)):
        out = nets.logits(learner.averaged, rows, block[None], one_of_several=alone)
        found.append(nets.worth(out, rows.y[block]))
    return placement.gather(torch.cat(found, 1).mean(1))
