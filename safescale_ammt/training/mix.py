"""Mix: which role each agent plays and how far it follows the others.

Both change what an agent gives the agents' soup and not what it is worth alone: by its
own loss every role would turn generalist, and every agent would follow the soup. They
are tuned by the agent's *contribution*, what the soup's loss on *validation* would rise
by without it:

    c_i = mean over rows of  loss(soup without agent i) - loss(soup)

    every `tune_every` steps
      rank      agents with a proven violation behind all others, then by c_i
      exploit   an agent of the last quarter plays the role, and has the sharing weight,
                of one of the first, if rows tell the two apart (`SURELY` standard
                errors of the paired difference) or one of them breaks a promise
      explore   its pull 1 - alpha is then multiplied by a random factor, and with
                probability `OTHER` it plays any of the section's roles

Weights, optimizer, fold and rows stay: what changes is the loss or the data that an
agent goes on with, as where a person had dealt the roles out otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.sampling import Batches
from safescale_ammt.training.stateful import Tensors
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.tuned_settings import QUANTILE, row_losses

SURELY = 2.0
"""Standard errors that contributions differ by where one agent follows another."""
PULLS = (0.01, 1.0)
"""Least and greatest 1 - alpha: sharing weights from .99 down to 0."""
START, EXPLORE = 3.0, 2.0
"""Greatest factors on the section's pull at the start, and of a step that explores."""
OTHER = 0.25
"""Probability that a step which explores plays any role of the section."""


class Mix:
    """Roles and sharing weights of the agents.

    Args:
        plan: of the agents; its section's `tune_also` names what is tuned.
        placement: of agents and twin.
        sharing: pulls each agent by its own weight.
        batches: draws each agent's rows by its role.
        learner: the nets of this process.
        play: gives the agents (k) their roles.
    """

    def __init__(
        self,
        plan: Plan,
        placement: Placement,
        sharing: Sharing,
        batches: Batches,
        *,
        learner: Learner,
        play: Callable[[Sequence[Role]], None],
    ) -> None:
        self._plan, self._placement, self._learner = plan, placement, learner
        self._play, self._sharing, self._batches = play, sharing, batches
        also, k = plan.config.tune_also, len(plan.roles)
        self._generator = torch.Generator().manual_seed(plan.seed("mix"))
        self.menu = tuple(dict.fromkeys(plan.nets.roles(plan.config)))
        self.played = torch.tensor([self.menu.index(role) for role in plan.roles])
        self._plays = "roles" in also and len(self.menu) > 1
        self.pulls = torch.zeros(0, dtype=torch.float64)
        if "self_weight" in also:
            order = torch.randperm(k, generator=self._generator)
            places = torch.linspace(-1, 1, k, dtype=torch.float64)[order]
            pull = max(PULLS[0], 1 - plan.config.self_weight)
            self.pulls = (pull * START ** (places * (k > 1))).clamp(*PULLS)
            self._apply()

    def tune(self, eligible: Tensor) -> dict[str, Any] | None:
        """Compares what the agents give the soup; the last follow the first.

        Args:
            eligible: agents without a proven violation (k,).

        Returns:
            The decision with its evidence, for the log; None if nothing is tuned.
        """
        k = len(self.played)
        if k < 2 or not (self._plays or len(self.pulls)):
            return None
        averaged = self._placement.gather(self._learner.averaged.cpu())[:k]
        given = contributions(self._plan, averaged)
        # A comparison turns a bit of difference between processors into another choice.
        self._placement.broadcast(given)
        means = given.mean(1)
        ranks = sorted(
            range(k), key=lambda i: (not bool(eligible[i]), -float(means[i]), i)
        )
        moving = min(k // 2, max(1, round(QUANTILE * k)))
        pairs = list(zip(ranks[k - moving :], ranks[:moving], strict=True))
        apart = [distance(given[source], given[to]) for to, source in pairs]
        moves = [
            (to, source)
            for (to, source), errors in zip(pairs, apart, strict=True)
            if errors > SURELY or bool(eligible[source]) > bool(eligible[to])
        ]
        shown = self.told()
        for to, source in moves:
            self.follow(to, source)
        if moves:
            self._apply()
        return {
            **shown,
            "contribution": [c if math.isfinite(c) else None for c in means.tolist()],
            "apart": [round(e, 2) if math.isfinite(e) else None for e in apart],
            "moves": [[*pair] for pair in moves],
            "reason": f"Agent {ranks[0]} gives the soup most and agent {ranks[-1]} "
            f"least; {len(moves)} of {moving} follow the first.",
        }

    def follow(self, to: int, source: int) -> None:
        """Gives an agent the role and the weight of another, and explores."""
        factor, chance = torch.rand(2, generator=self._generator, dtype=torch.float64)
        other = torch.randint(len(self.menu), (), generator=self._generator)
        if len(self.pulls):
            pull = self.pulls[source] * EXPLORE ** (2 * factor - 1)
            self.pulls[to] = pull.clamp(*PULLS)
        if self._plays:
            self.played[to] = other if chance < OTHER else self.played[source]

    def told(self) -> dict[str, list[Any]]:
        """Returns the roles that are played and the sharing weights, as events do."""
        weights = [round(1 - pull, 4) for pull in self.pulls.tolist()]
        roles = [self.menu[i].name for i in self.played.tolist()]
        return {"roles": roles, **({"self_weight": weights} if weights else {})}

    def _apply(self) -> None:
        if len(self.pulls):
            self._sharing.self_weight = (1 - self.pulls)[:, None].float()
        if self._plays:
            roles = [self.menu[i] for i in self.played.tolist()]
            self._batches.play(self._plan, self._placement, roles)
            self._play(roles)

    def tensors(self) -> Tensors:
        """Returns roles, pulls and the generator; nothing if nothing is tuned."""
        if not (self._plays or len(self.pulls)):
            return {}
        own = {"played": self.played, "pulls": self.pulls}
        return own | {"drawn": self._generator.get_state()}

    def load_tensors(self, played: Tensor, pulls: Tensor, drawn: Tensor) -> None:
        """Continues from there, before nets and batches take their own states."""
        self.played, self.pulls = played, pulls
        self._generator.set_state(drawn)
        self._apply()


def contributions(plan: Plan, averaged: Tensor) -> Tensor:
    """Returns what each agent gives the soup on each row (k, n), float64.

    Minus infinity for an agent whose weights are not finite: the soup is without it.

    Args:
        plan: of the run.
        averaged: the agents' averaged weights (k, P).
    """
    finite = averaged.isfinite().all(1)
    agents = averaged[finite]
    if len(agents) < 2:
        return torch.zeros(len(averaged), 1, dtype=torch.float64)
    whole = agents.mean(0, keepdim=True)
    # The mean of the others: (k m - theta_i) / (k - 1).
    without = (len(agents) * whole - agents) / (len(agents) - 1)
    losses = row_losses(plan, torch.cat([whole, without]))
    found = losses.new_full((len(averaged), losses.shape[1]), -math.inf)
    found[finite] = losses[1:] - losses[0]
    return found


def distance(more: Tensor, less: Tensor) -> float:
    """Returns by how many standard errors one row of figures is above another.

    Args:
        more: a figure of each row (n,).
        less: another, of the same rows (n,).
    """
    if not bool(less.isfinite().all()):
        return math.inf if bool(more.isfinite().all()) else 0.0
    apart = more - less
    error = float(apart.std()) / math.sqrt(len(apart))
    return float(apart.mean()) / error if error > 0 else 0.0
