"""Race: nets under different settings compete to be the trunk.

Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) that goes on with the
survivors' weights, as Li et al. 2020 (arXiv:1810.05934) do, all in one program:

    n nets         equal weights and batches, each its own learning rate and decay
    at a rung      the loss of averaged weights on *validation*; one in `ETA` goes on
    the last rung  of those within one standard error of the least loss, the one with
                   the least learning rate is the trunk (Breiman et al. 1984)

Rows of *validation* may be few, and a rate that looks best after a short time is often
too high for a long one: what the rows cannot tell apart is decided for the calmer net.
The trunk takes as many steps as without a race.

The first of them has the section's own learning rate and the least decay, so that what
the user asked for is in the race. Nothing depends on a clock: a budget in steps says
how many nets there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from safescale_ammt.config.roles import ROLES
from safescale_ammt.errors import SafescaleError
from safescale_ammt.training.branching import Branching
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import Placement, ProcessGroup
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.sampling import Batches, trunk_batches
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.step_stats import StepStats
from safescale_ammt.training.training_log import Log
from safescale_ammt.training.tuned_settings import (
    DECAY,
    RATE,
    Ranges,
    apply,
    told,
    validation_losses,
)

ETA = 2
"""One in so many goes on at a rung."""
RUNGS = (0.3, 1.0)
"""Where the rungs end, parts of the trunk's steps."""
MOST = 256
"""Most nets in a race."""


def rung_ends(plan: Plan) -> list[int]:
    """Returns the step before which each rung ends."""
    steps = plan.config.trunk_steps
    return [max(i, round(part * steps)) for i, part in enumerate(RUNGS, 1)]


def fields(plan: Plan) -> list[int]:
    """Returns how many nets run each rung: the most whose steps the budget allows."""
    ends, sizes = rung_ends(plan), [1] * len(RUNGS)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    for first in range(2, MOST + 1):
        tried = [max(1, first // ETA**rung) for rung in range(len(RUNGS))]
        spent = sum(n * length for n, length in zip(tried, lengths, strict=True))
        if spent <= plan.config.tune_budget:
            sizes = tried
    return sizes


def race_steps(plan: Plan) -> int:
    """Returns the steps of single nets that a race takes."""
    ends = rung_ends(plan)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return sum(n * each for n, each in zip(fields(plan), lengths, strict=True))


def entries(plan: Plan, count: int) -> Tensor:
    """Returns the settings that begin (count, 3)."""
    ranges = Ranges.of(plan.config)
    generator = torch.Generator().manual_seed(plan.seed("race"))
    settings = ranges.draw(count, generator)
    settings[:1, RATE], settings[:1, DECAY] = plan.config.learning_rate, 0.0
    return ranges.clamp(settings)


Rung = tuple[Batches, StepStats, Iterator[int]]
"""The rows of the nets' steps, what those were like, and the steps to take."""


class Race:
    """The nets that compete to be the trunk; without `tune` there is one.

    Args:
        plan: of the run.
        learner: the net that they begin as.

    Attributes:
        learner: the nets that are still in the race; in the end the one that has won.
        settings: of the nets that are still in the race (n, 3); none without `tune`.
    """

    def __init__(self, plan: Plan, learner: Learner) -> None:
        self._plan, self.learner = plan, learner
        self._branching = Branching(plan)
        tuned = plan.config.tune == "population"
        self._sizes, self._ends = [len(learner.theta)], [plan.trunk_steps]
        if tuned:
            # Who has won goes on alone, if the trunk may.
            alone = [plan.trunk_steps] if plan.net_steps else []
            self._sizes = [*fields(plan), *(1 for _ in alone)]
            self._ends = [*rung_ends(plan), *alone]
        self.settings = entries(plan, self._sizes[0] if tuned else 0)

    def rungs(
        self, log: Log, checkpoints: Checkpoints, process_group: ProcessGroup
    ) -> Iterator[Rung]:
        """Yields each rung for its steps to be taken, and then decides who goes on.

        Args:
            log: receives the decisions.
            checkpoints: where the race is saved and resumed from.
            process_group: takes rank 0's word for who has won.

        Raises:
            SafescaleError: no net has a finite loss.
        """
        plan, tuned = self._plan, len(self.settings) > 0
        learner, batches = self.learner, trunk_batches(plan)
        order, begin = None, 0
        for rung, (size, end) in enumerate(zip(self._sizes, self._ends, strict=True)):
            placement, stats = Placement(size), StepStats(size)
            if tuned:
                learner.fork([ROLES["generalist"]] * size, placement, order)
            start = checkpoints.begin(
                f"race {rung}" if tuned else "trunk",
                placement,
                race=self,
                branching=self._branching,
                learner=learner,
                batches=batches,
                stats=stats,
            )
            if tuned:
                apply(learner, self.settings, learner.roles, plan.config)
            steps = range(max(begin, start), end)
            yield batches, stats, self._branching.steps(steps, learner, process_group)
            if parted := self._branching.part(learner):
                log(parted)
            order, begin = torch.arange(self._following(rung)), end
            # With a checkpoint of a later phase to come, this was decided before.
            if tuned and rung < len(RUNGS) and not checkpoints.phase:
                order = self._decide(learner, rung, log)
            self.settings = self.settings[order[: len(self.settings)]]
        if tuned:
            learner.fork(learner.roles[:1], Placement(1), order)
        # Every process trains the trunk, for none has anything else to do, but rank 0's
        # word counts: on another kind of processor a bit may differ, and the fork must
        # copy one net.
        learner.broadcast(process_group)
        process_group.broadcast(self.settings)

    def _following(self, rung: int) -> int:
        return [*self._sizes, 1][rung + 1]

    def _decide(self, learner: Learner, rung: int, log: Log) -> Tensor:
        """Returns which nets go on, the best first."""
        losses = validation_losses(self._plan, learner, learner.placement)
        order = losses.mean(1).argsort(stable=True)[: self._following(rung)]
        if rung + 1 == len(RUNGS):
            order = calmest(losses, self.settings[:, RATE])
        means, of = losses.mean(1), self._plan.config.trunk_steps
        log(decision(self.settings, means, order, step=self._ends[rung], of=of))
        return order

    def state_dict(self) -> StateDict:
        """Returns the settings; every process trains the whole race."""
        return StateDict(common={"settings": self.settings})

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        self.settings = state.common["settings"]


def calmest(losses: Tensor, rates: Tensor) -> Tensor:
    """Returns which net has the least rate of those about as good as the best (1,).

    Args:
        losses: of each net on the same rows (nets, n).
        rates: learning rate of each net (nets,).
    """
    more = losses - losses[losses.mean(1).argmin()]
    error = more.std(1) / math.sqrt(max(1, losses.shape[1]))
    # Infinity less infinity is no number, and no number is below another.
    close = more.mean(1) <= error.nan_to_num(0)
    return torch.where(close, rates, math.inf).argmin()[None]


def decision(
    settings: Tensor, losses: Tensor, order: Tensor, *, step: int, of: int
) -> dict[str, object]:
    """Returns the event of a rung: every net with its loss, and who goes on.

    Raises:
        SafescaleError: no net has a finite loss.
    """
    best = int(order[0])
    if not math.isfinite(losses[best]):
        raise SafescaleError(
            f"Training stopped at step {step}: none of {len(losses)} candidates for "
            "the trunk has a finite loss on validation; lower the numbers of "
            "training.tune_learning_rate."
        )
    rate, decay, _ = settings[best].tolist()
    reason = (
        f"Tuning: of {len(losses)} candidates for the trunk, {len(order)} "
        f"{'goes' if len(order) == 1 else 'go'} on after step {step} of {of}; the best "
        f"has learning rate {rate:.2g}, weight decay {decay:.2g} and loss "
        f"{losses[best]:.4f} on validation."
    )
    known = [loss if math.isfinite(loss) else None for loss in losses.tolist()]
    return {
        "event": "tuning",
        "step": step,
        "phase": "trunk",
        "settings": [told(setting) for setting in settings],
        "loss": known,
        "kept": order.tolist(),
        "reason": reason,
    }
