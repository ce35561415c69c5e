"""Sync: one operator by which agents share what they learnt.

    m = A({theta_i});  d = g_prev - m;  g = OuterOpt(g_prev, d)
    theta_i <- alpha theta_i + (1 - alpha) g

with the aggregate A, the outer optimizer SGD with Nesterov momentum, and
alpha = `self_weight`. Known methods are its corners:

    alpha = 1                                  independent agents
    alpha = 0, mean, SGD(1)                    local SGD (Stich 2019)
    alpha = 0, mean, Nesterov(.7, .9)          DiLoCo (Douillard et al. 2023)
    alpha = .99, mean, SGD(1), every 10 steps  PAPA (Jolicoeur-Martineau et al. 2024)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.training_log import Log, discard

Aggregate = Callable[[Tensor, Tensor], Tensor]
FAR = 10.0
"""Median lengths from which on an update is a fault and no step, wherever it leads."""
_TRIM = 0.2
# Agents that learn, whatever their roles, had updates of up to 1.94 median lengths.
_LONG = 2.0
# Fitness is validation accuracy, so that one standard error on three thousand rows
# (.006) is worth about a factor of twenty.
_TEMPERATURE = 0.002


def mean(theta: Tensor, fitness: Tensor) -> Tensor:
    """Averages the rows (k, P) -> (P,)."""
    del fitness
    return theta.mean(0)


def fitness_weighted(theta: Tensor, fitness: Tensor) -> Tensor:
    """Averages with weights softmax(fitness / .002)."""
    return torch.softmax(fitness / _TEMPERATURE, 0).to(theta) @ theta


def trimmed_mean(theta: Tensor, fitness: Tensor) -> Tensor:
    """Averages each coordinate without its largest and smallest fifth."""
    del fitness
    cut = int(len(theta) * _TRIM)
    return theta.sort(0).values[cut : len(theta) - cut].mean(0)


def median(theta: Tensor, fitness: Tensor) -> Tensor:
    """Takes each coordinate's median; of an even number, the middle pair's mean."""
    del fitness
    # `torch.median` would take the lower of the middle pair.
    ordered = theta.sort(0).values
    k = len(theta)
    return (ordered[(k - 1) // 2] + ordered[k // 2]) / 2


AGGREGATES: dict[str, Aggregate] = {
    "mean": mean,
    "fitness": fitness_weighted,
    "trimmed_mean": trimmed_mean,
    "median": median,
}


@dataclass(frozen=True)
class Round:
    """What happened in one sync round.

    Attributes:
        shared: whether the consensus moved (a quorum of teachers was there).
        teachers: which agents taught (k,).
        lost: agents without a usable step, with non-finite weights or far away from
            all others; they copied g.
        outlying: agents whose update was excluded as an outlier.
        word: weights (t, P) whose answers agents of other architectures learn from.
    """

    shared: bool
    teachers: tuple[bool, ...]
    lost: tuple[int, ...]
    outlying: tuple[int, ...]
    word: Tensor = field(default_factory=lambda: torch.zeros(0, 0), compare=False)

    @classmethod
    def of_lost(cls, agents: int) -> Round:
        """Returns a round in which all of so many agents begin again."""
        return cls(False, (False,) * agents, tuple(range(agents)), ())

    @property
    def eventful(self) -> bool:
        """Whether anything but a round of all agents happened."""
        return not all(self.teachers)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            name: list(v) if isinstance(v, tuple) else v
            for name, v in vars(self).items()
            if not isinstance(v, Tensor)
        }


class Sharing:
    """The consensus g and the rule that moves agents and consensus together.

    Args:
        start: the first consensus (P,).
        config: `sharing` names the aggregate; `self_weight`, and learning rate and
            momentum of the outer optimizer.

    Attributes:
        consensus: g (P,).
        self_weight: alpha, a number, or of each agent its own (k, 1).
    """

    def __init__(self, start: Tensor, config: TrainingConfig) -> None:
        self.consensus = start.clone()
        self._aggregate = AGGREGATES[config.sharing]
        # One for all agents, or a column of each agent's own (k, 1).
        self.self_weight: float | Tensor = config.self_weight
        self._rate = config.outer_learning_rate
        self._momentum = config.outer_momentum
        self._velocity = torch.zeros_like(start)

    def share(
        self,
        theta: Tensor,
        *,
        usable: Tensor,
        eligible: Tensor,
        fitness: Callable[[], Tensor],
        step: int = 0,
        log: Log = discard,
    ) -> Round:
        """Runs one sync round; changes theta (k, P) in place.

        Args:
            theta: the agents' weights, one row each.
            usable: (k,) booleans; other agents are lost and copy the consensus, as
                do those with non-finite weights and, unless agents are independent,
                those whose update is `FAR` times as long as the median.
            eligible: (k,) booleans, who may teach.
            fitness: returns (k,) scores, asked by the aggregate `fitness` alone.
            step: at which it runs.
            log: receives a round that was anything but one of all agents.
        """
        finite = theta.isfinite().all(1).cpu() & usable
        far, outlying = _outlying(theta, self.consensus, finite)
        # Independent agents have nowhere to come back to.
        if isinstance(self.self_weight, Tensor) or self.self_weight < 1:
            finite = finite & ~far
        teachers = finite & ~far & ~outlying & eligible
        # Whoever teaches: every process asks, and what is asked may gather.
        asked = self._aggregate is fitness_weighted
        scores = fitness() if asked else torch.zeros(len(theta), dtype=torch.float64)
        # Below half, a few teachers would speak for all: the round is skipped.
        shared = int(teachers.sum()) >= math.ceil(len(theta) / 2)
        if shared:
            aggregate = self._aggregate(theta[teachers], scores[teachers])
            # SGD(1) is the aggregate itself; g - (g - m) would round it.
            if self._rate == 1 and self._momentum == 0:
                self.consensus = aggregate
            else:
                # Outer step: v <- mu v + d, then g <- g - rate (d + mu v).
                pull = self.consensus - aggregate
                self._velocity = self._momentum * self._velocity + pull
                move = pull + self._momentum * self._velocity
                self.consensus = self.consensus - self._rate * move
            # An agent that may not teach still learns from those that may.
            alpha = self.self_weight
            own = alpha[finite].to(theta) if isinstance(alpha, Tensor) else alpha
            theta[finite] = torch.lerp(self.consensus, theta[finite], own)
        theta[~finite] = self.consensus
        done = Round(
            shared,
            tuple(teachers.tolist()),
            tuple((~finite).nonzero()[:, 0].tolist()),
            tuple(outlying.nonzero()[:, 0].tolist()),
        )
        if done.eventful:
            log({"event": "share", "step": step, **done.to_dict()})
        return done

    def restart(self, *consensus: Tensor) -> None:
        """Begins again from a consensus (P,), without velocity."""
        (self.consensus,) = (own.clone() for own in consensus)
        self._velocity = torch.zeros_like(self.consensus)

    def state_dict(self) -> StateDict:
        """Returns consensus and velocity."""
        return StateDict(
            common={"consensus": self.consensus, "velocity": self._velocity}
        )

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        self.consensus = state.common["consensus"]
        self._velocity = state.common["velocity"]


def _outlying(
    theta: Tensor, consensus: Tensor, finite: Tensor
) -> tuple[Tensor, Tensor]:
    """Marks updates that are far away, and others too long and against the rest.

    Returns:
        Both (k,) booleans: `FAR` times the median length; and over the median + 3 MAD
        and turned away from what the others do.
    """
    far, outlying = torch.zeros(2, len(theta), dtype=torch.bool)
    # Of two updates neither can be the odd one out.
    if int(finite.sum()) < 3:
        return far, outlying
    updates = theta[finite] - consensus
    norms = updates.norm(dim=1)
    middle = norms.quantile(0.5)
    deviation = (norms - middle).abs().quantile(0.5)
    # Where most stand still, any step would be far.
    far[finite] = ((norms > FAR * middle) & (middle > 0)).cpu()
    # Without the longest, or one of them would itself be the common way.
    common = updates[norms <= _LONG * middle].sum(0)
    # Length alone excludes nobody nearer: an agent ahead on the common way may teach.
    against = updates @ common < 0
    outlying[finite] = ((norms > middle + 3 * deviation) & against).cpu()
    return far, outlying & ~far
