"""Budget: seconds become a number of steps, once, before the first of them.

    probe       what a step of the trunk, a step of all nets, a dual update, a share and
                a look at *validation* take here, each the mean of several
    steps       the most whose phases fit into what is left of the budget, less
                `RESERVE` for merging, choosing and checkpoints
    decision    is an event of the log, which every checkpoint holds

From there on steps are counted and no clock is asked: a training that is killed reads
the decision again and ends with the same bits. Two trainings that begin anew may
differ in length, as their machines do; `budget_steps` gives one the other's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from safescale_ammt.config.sections import LEAST_BUDGET_STEPS, TrainingConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.training.architectures import dealt
from safescale_ammt.training.batch_choice import trial_steps
from safescale_ammt.training.branching import LOOKS
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.codistillation import sharing_of
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.nets import SteppedNets
from safescale_ammt.training.placement import Placement, ProcessGroup
from safescale_ammt.training.plan import Plan, of_length, parts
from safescale_ammt.training.race import race_steps
from safescale_ammt.training.sampling import agent_batches, trunk_batches
from safescale_ammt.training.training_log import Log
from safescale_ammt.training.tuned_settings import validation_losses

RESERVE = 0.1
"""Part of the budget that no step gets."""
MOST_TIMES, PROBED = 20, 0.004
"""Most repeats of what is timed, and the part of the budget that each may take."""
LOOKS_EVERY = 5
"""Dual updates between two looks at *validation*."""
MOST_STEPS = 1 << 30
"""No budget is more."""


@dataclass(frozen=True)
class Costs:
    """Seconds that the parts of a training take, in its slowest process.

    Attributes:
        trunk: a step of one net.
        agents: a step of all nets.
        update: a dual update.
        share: a sync round.
        look: every net's loss on *validation*.
        halved: a step of all nets on half the rows; 0 if no batch is tuned.
    """

    trunk: float
    agents: float
    update: float
    share: float
    look: float
    halved: float = 0.0

    def of(self, plan: Plan) -> float:
        """Returns the seconds that a training by this plan takes.

        With `num_agents: auto` those of all its numbers, as a budget is a bound.
        """
        config, nets = plan.config, len(plan.slots)
        # Steps on half the rows would be twice as many.
        slower = max(1.0, 2 * self.halved / max(1e-12, self.agents))
        race = 0.0
        if config.tune == "population":
            # Nets that race are stepped together, as the agents are.
            race = race_steps(plan) * self.agents / nets
        trials = 0.0
        if "batch_size" in config.tune_also:
            trials = trial_steps(plan) * self.agents / nets
        looks = 1 / (LOOKS_EVERY * config.dual_every)
        looks += (config.tune == "population") / config.tune_every
        step = self.agents * slower + self.update / config.dual_every
        step += self.share / config.sync_every + self.look * looks
        found = slower * trials
        for k in config.agent_counts:
            more = (nets - config.agent_counts[0] + k) / nets
            # Of more agents' steps the trunk may take more.
            trunk, own = parts(config, k, plan.share)
            # Who has won a race goes on alone.
            raced = max(config.trunk_steps * self.trunk, race)
            alone = (trunk - config.trunk_steps) * self.trunk
            if alone:
                # One net is looked at, so many times in its least steps.
                alone += LOOKS * trunk / config.trunk_steps * self.look / nets
            found += slower * (raced + alone) + own * step * more
        # A student takes as many steps as an agent; auto tries one of several
        # architectures, whose trunks are stepped together.
        several = bool(dealt(plan.nets, plan.roles).any())
        student = config.merge in ("refined", "distilled")
        student |= several and config.merge == "auto"
        return found + student * config.steps * self.trunk


def within_budget(
    plan: Plan,
    nets: SteppedNets,
    log: Log,
    checkpoints: Checkpoints,
    process_group: ProcessGroup,
    *,
    since: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """Returns the plan of as many steps as its section's budget allows.

    Args:
        plan: of the run; without a budget it stays as it is.
        nets: what is trained.
        log: receives the decision.
        checkpoints: hold the decision of a run that goes on.
        process_group: takes rank 0's word.
        since: when the training began, on the clock.
        clock: seconds.

    Raises:
        ConfigError: the budget is too small for a training.
    """
    config = plan.config
    if not config.budget_seconds:
        return plan
    found = checkpoints.recorded("budget")
    if found is None:
        found = decision(plan, nets, process_group, since=since, clock=clock)
        log(found)
    return lengthened(plan, found["budget_steps"])


def decision(
    plan: Plan,
    nets: SteppedNets,
    process_group: ProcessGroup,
    *,
    since: float,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """Returns the event that says how many steps a budget is, and why."""
    config = plan.config
    event = {"event": "budget", "budget_seconds": config.budget_seconds}
    if config.budget_steps:
        count = min(config.budget_steps, most_steps(plan))
        reason = f"Budget: {count} steps, as training.budget_steps says."
        if count < config.budget_steps:
            reason = f"Budget: {count} steps, as training.max_epochs allows no more."
        named = {"budget_steps": count, "steps": lengthened(plan, count).steps}
        return {**event, **named, "reason": reason}
    costs = probe(plan, nets, process_group, clock)
    left = (1 - RESERVE) * (config.budget_seconds - (clock() - since))
    steps = torch.tensor(steps_within(plan, costs, left))
    # A comparison of clocks: every process takes rank 0's word.
    process_group.broadcast(steps)
    count = int(steps)
    expected = costs.of(lengthened(plan, count))
    reason = (
        f"Budget: {config.budget_seconds:g} s are {count} steps here, where one of all "
        f"nets takes {1000 * costs.agents:.3g} ms; training.budget_steps: {count} "
        "gives another run the same length."
    )
    shown = {name: float(f"{value:.4g}") for name, value in asdict(costs).items()}
    event |= {"budget_steps": count, "steps": lengthened(plan, count).steps}
    event |= {"costs": shown, "expected": round(expected, 3)}
    return {**event, "reason": reason}


def steps_within(plan: Plan, costs: Costs, seconds: float) -> int:
    """Returns the most steps that take no more than so many seconds.

    Raises:
        ConfigError: they are too few for a training.
    """
    most = most_steps(plan)
    least = min(LEAST_BUDGET_STEPS, most)
    # A section of fewer steps may be none.
    few, many = least - 1, most + 1
    while many - few > 1:
        middle = (few + many) // 2
        if costs.of(lengthened(plan, middle)) <= seconds:
            few = middle
        else:
            many = middle
    if few < least:
        wanted = plan.config.budget_seconds - seconds / (1 - RESERVE)
        wanted += costs.of(lengthened(plan, least)) / (1 - RESERVE)
        raise ConfigError(
            f"training.budget_seconds is {plan.config.budget_seconds:g}, which is too "
            f"little for {least} steps here; give {wanted:.2g} or more, or fewer "
            "agents."
        )
    return few


def most_steps(plan: Plan) -> int:
    """Returns the steps that a section's epochs allow."""
    batches = math.ceil(len(plan.rows) / plan.config.batch_size)
    return plan.config.max_epochs * batches or MOST_STEPS


def lengthened(plan: Plan, steps: int) -> Plan:
    """Returns the plan of so many steps, whose section has no budget any more."""
    config = of_length(plan.config, steps)
    config = replace(config, budget_seconds=0.0, budget_steps=0)
    return plan.under(config)


def probe(
    plan: Plan,
    nets: SteppedNets,
    process_group: ProcessGroup,
    clock: Callable[[], float],
) -> Costs:
    """Times the parts of a training with nets of its own, which are then forgotten."""
    placement = Placement(len(plan.slots), process_group)
    learner = nets.learner(plan.rows, plan.constraints.cells, plan.config)
    most, rate = PROBED * plan.config.budget_seconds, plan.learning_rate(0)

    def took(work: Callable[[], object], times: int) -> float:
        start = clock()
        for _ in range(times):
            work()
        # A device may still be at it: to read a number waits for it.
        learner.theta[0, 0].item()
        return clock() - start

    def timed(work: Callable[[], object]) -> float:
        # The first makes what the others find made.
        work()
        times = torch.tensor(min(MOST_TIMES, most / max(1e-9, took(work, 1))))
        # As often in every process: they wait for each other in what they gather.
        process_group.broadcast(times)
        count = max(1, int(times))
        each = torch.tensor([[took(work, count) / count]], dtype=torch.float64)
        return float(process_group.all_gather(each, [1] * process_group.size).max())

    one = trunk_batches(plan)

    def of_trunk() -> None:
        # Of several architectures each has one, on the same rows.
        batch, extra = (part.expand(len(learner.theta), -1) for part in one.draw())
        learner.step(batch, extra, torch.zeros(0), rate)

    trunk = timed(of_trunk)
    dual = DualUpdate.start(plan, learner.averaged, placement)
    sharing = sharing_of(plan, learner.theta.cpu())
    learner.fork(plan.slots, placement)
    batches, k = agent_batches(plan, placement), len(plan.roles)
    # As if every promise were broken: then a step computes soft rates, too.
    weights, everyone = torch.ones(len(dual.cell_weights)), torch.ones(k).bool()

    def share() -> None:
        theta = placement.gather(learner.theta.cpu())[:k]
        done = sharing.share(
            theta, usable=everyone, eligible=everyone, fitness=lambda: torch.ones(k)
        )
        learner.adopt(theta, done)

    def halved() -> None:
        batch, extra = batches.draw()
        learner.step(batch[:, : max(1, batch.shape[1] // 2)], extra, weights, rate)

    # Before the agents' steps: from the first round on they may teach each other.
    shared = timed(share)
    smaller = "batch_size" in plan.config.tune_also
    return Costs(
        trunk=trunk,
        agents=timed(lambda: learner.step(*batches.draw(), weights, rate)),
        update=timed(lambda: dual.update(learner.averaged, everyone)),
        share=shared,
        look=timed(lambda: validation_losses(plan, learner, placement)),
        halved=timed(halved) if smaller else 0.0,
    )


def spent(config: TrainingConfig, seconds: float) -> dict[str, Any] | None:
    """Returns the event that holds a training's seconds against its budget.

    Args:
        config: the training section, None is returned if it has no budget.
        seconds: since the training began or, if it was killed, went on.
    """
    if not config.budget_seconds:
        return None
    reason = f"Budget: {seconds:.3g} s of {config.budget_seconds:g} s were taken."
    own = {"budget_seconds": config.budget_seconds, "taken": round(seconds, 3)}
    return {"event": "budget_spent", **own, "reason": reason}
