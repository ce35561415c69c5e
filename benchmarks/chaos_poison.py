"""Ways to poison one agent of several, and the plain mean that guards against none.

    sign flip       the agent sends its update reversed (Li et al. 2019, RSA)
    reversed x10    ten times as long, so that it outvotes the others (Chen et al. 2018)
    scaled x100     its own update, a hundred times as long (Bagdasaryan et al. 2020)
    same value      the same value in every weight (Li et al. 2019, RSA)
    nan weights     one weight is not a number
    nan gradients   no gradient is a number
    label flip      it learns the other label of each of its rows (Biggio et al. 2012)

The first five change what the agent hands to every sync round, the other two how it
learns; the agents before the first round, which are copies of the trunk, are sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.training.genome_nets import GenomeLearner
from safescale_ammt.training.gradients import Backprop
from safescale_ammt.training.sync import Round, Sharing

POISONED = 0
"""The agent that is poisoned."""
PLAIN = "plain mean"
"""Mean of all agents, whoever they are."""


def times(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what scales an update."""
    return lambda theta, consensus: consensus + factor * (theta - consensus)


MESSAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sign flip": times(-1.0),
    "reversed x10": times(-10.0),
    "scaled x100": times(100.0),
    "same value": lambda theta, _: torch.ones_like(theta),
    "nan weights": lambda theta, _: torch.where(
        torch.arange(len(theta)) == 0, torch.nan, theta
    ),
}
WAYS = ("none", *MESSAGES, "nan gradients", "label flip")


@contextmanager
def poisoned(way: str, sharing: str) -> Iterator[None]:
    """Poisons one agent of every training in the body; `PLAIN` guards none."""
    share, gradient = Sharing.share, GenomeLearner.gradient
    call: Callable[..., tuple[Tensor, Tensor]] = Backprop.__call__

    def shared(self: Sharing, theta: Tensor, **known: Any) -> Round:
        if way in MESSAGES:
            theta[POISONED] = MESSAGES[way](theta[POISONED], self.consensus)
        if sharing != PLAIN:
            return share(self, theta, **known)
        self.consensus = theta.mean(0)
        theta.copy_(torch.lerp(self.consensus, theta, self.self_weight))
        return Round(True, (True,) * len(theta), (), ())

    def graded(self: GenomeLearner, *known: Any) -> tuple[Tensor, Tensor]:
        loss, grad = gradient(self, *known)
        if way == "nan gradients" and len(grad) > 1:
            grad[POISONED] = torch.nan
        return loss, grad

    def flipped(self: Backprop, theta: Tensor, *known: Any) -> tuple[Tensor, Tensor]:
        *rows, objective = known
        if way == "label flip" and len(theta) > 1:
            label = objective.label.clone()
            label[POISONED] = 1 - label[POISONED]
            objective = replace(objective, label=label)
        return call(self, theta, *rows, objective)

    Sharing.share = shared  # type: ignore[method-assign]
    GenomeLearner.gradient = graded  # type: ignore[assignment,method-assign]
    Backprop.__call__ = flipped  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Sharing.share = share  # type: ignore[method-assign]
        GenomeLearner.gradient = gradient  # type: ignore[method-assign]
        Backprop.__call__ = call  # type: ignore[method-assign]
