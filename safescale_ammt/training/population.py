"""Population: the agents' settings move to where training goes well.

Population-based training (Jaderberg et al. 2017, arXiv:1711.09846), counted in steps:

    start        settings around the one that won the race for the trunk
    every `tune_every` steps
      rank       agents with a proven violation behind all others (constrained
                 domination, Deb 2000), then by the loss on *validation*
      exploit    an agent of the last quarter takes setting, weights and optimizer of
                 one of the first; where its fold is to judge it, the setting alone
      explore    its setting is then multiplied by random factors, within the ranges

      mix        roles and sharing weights, where the section tunes them too (`mix`)

      keep       the agents whose soup has the least loss of all rounds: they are what
                 training ends with, so that too many steps do no harm

An agent's role stays, and so do its fold and its rows. Weights that have learnt a fold
would be measured there: with promises, or with `num_agents: auto`, they go from agent
to agent by sharing alone, and none are kept: early ones would not heed the promises.
The twin has no rank, as it stands for what the promises
cost: its rate and decay are the agents' geometric means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.mix import Mix
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.race import Race
from safescale_ammt.training.sampling import Batches
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.training_log import Log
from safescale_ammt.training.tuned_settings import (
    QUANTILE,
    RATE,
    Ranges,
    apply,
    middle,
    row_losses,
    told,
    validation_losses,
)

EXPLORE = (2.0, 4.0, 1.25)
"""Greatest factors of a step that explores."""


class Population:
    """The settings of agents and twin.

    Args:
        plan: of the agents.
        learner: the nets of this process.
        placement: of agents and twin.
        race: that the trunk has won; of itself alone where nothing is tuned.
        shared: the consensus and the rows of each step, which go by the roles and the
            sharing weights that `mix` tunes; None where nobody does.
    """

    def __init__(
        self,
        plan: Plan,
        learner: Learner,
        placement: Placement,
        race: Race,
        shared: tuple[Sharing, Batches] | None = None,
    ) -> None:
        self._plan, self._learner, self._placement = plan, learner, placement
        self._ranges, self._roles = Ranges.of(plan.config), list(plan.slots)
        self._generator = torch.Generator().manual_seed(plan.seed("population"))
        # Whether rates on the folds steer or decide something.
        counted = len(plan.config.agent_counts) > 1
        self._folds_judge = counted or bool(plan.constraints.pairs)
        self._kept, self._least, self._kept_at = torch.zeros(0), math.inf, -1
        self.settings = race.settings
        if len(race.settings):
            slots, agents = len(plan.slots), len(plan.roles)
            around = self._ranges.around(race.settings, agents, self._generator)
            # The twin keeps the winner's.
            twin = race.settings.repeat(slots - agents, 1)
            self.settings = torch.cat([around, self._ranges.clamp(twin)])
            self._apply()
        self.mix: Mix | None = None
        if shared and plan.config.tune_also:
            common = plan, placement, *shared
            self.mix = Mix(*common, learner=learner, play=self.play)

    def tune(
        self, since_fork: int, step: int, eligible: Tensor
    ) -> dict[str, Any] | None:
        """Ranks the agents if it is time; the last take after the first.

        Args:
            since_fork: steps since the agents parted.
            step: the step that comes next.
            eligible: agents without a proven violation (k,).

        Returns:
            The decision with its evidence, for the log; None if it is not time.
        """
        due = since_fork and since_fork % self._plan.config.tune_every == 0
        if not (due and len(self.settings)):
            return None
        self.keep(step)
        mixed = self.mix.tune(eligible) if self.mix else None
        k = len(self._plan.roles)
        losses = validation_losses(self._plan, self._learner, self._placement)
        losses = losses[:k].mean(1)
        ranks = sorted(
            range(k), key=lambda i: (not bool(eligible[i]), float(losses[i]), i)
        )
        moving = min(k // 2, max(1, round(QUANTILE * k)))
        last, first = ranks[k - moving :], ranks[:moving]
        before = self.settings.clone()
        most = torch.tensor(EXPLORE, dtype=torch.float64)
        for to, source in zip(last, first, strict=True):
            self.settings[to] = self._ranges.perturb(
                before[source], most, self._generator
            )
        if not self._folds_judge:
            self._learner.take_over(dict(zip(last, first, strict=True)))
        self._apply()
        best = ranks[0]
        return {
            "event": "population",
            "step": step,
            "settings": [told(setting) for setting in before[:k]],
            "loss": [loss if math.isfinite(loss) else None for loss in losses.tolist()],
            "eligible": eligible.tolist(),
            "exploit": [[*pair] for pair in zip(last, first, strict=True)],
            "explored": [told(self.settings[to]) for to in last],
            "weights": not self._folds_judge,
            **({"mix": mixed} if mixed else {}),
            "reason": f"Tuning: after step {step} agent {best} leads, with learning "
            f"rate {before[best, RATE]:.2g} and loss {losses[best]:.4f} on validation; "
            f"{len(last)} of {k} take over from the first.",
        }

    def play(self, roles: Sequence[Role]) -> None:
        """Gives the agents (k) other roles, with the settings that they have."""
        self._roles[: len(roles)] = roles
        self._apply()

    def keep(self, step: int) -> None:
        """Remembers all nets if the agents' soup is better than ever before.

        Args:
            step: the step that comes next.
        """
        if self._folds_judge or not len(self.settings):
            return
        averaged = self._placement.gather(self._learner.averaged.cpu()).clone()
        agents = averaged[: len(self._plan.roles)]
        soup = agents[agents.isfinite().all(1)].mean(0, keepdim=True)
        loss = row_losses(self._plan, soup).mean()
        # Every process has all weights here, but not always the same bits of a loss.
        self._placement.broadcast(loss)
        if float(loss) <= self._least:
            self._kept, self._least, self._kept_at = averaged, float(loss), step

    def best(
        self, taken: int, averaged: Tensor, log: Log
    ) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Returns the weights that training hands on, and what they trained under.

        Args:
            taken: steps that were taken.
            averaged: weights of all nets after the last of them (nets, P).
            log: receives the decision, if they are of an earlier one.

        Returns:
            Weights (nets, P), the agents' geometric mean of their settings (1, 3), or
            none where nothing is tuned (0, 3), and the roles they have played last.
        """
        self.keep(taken)
        k = len(self._plan.roles)
        ended = middle(self.settings[:k]), tuple(r.name for r in self._roles[:k])
        if self._kept_at in {-1, taken}:
            return averaged, *ended
        event = {
            "event": "tuning",
            "step": taken,
            "phase": "end",
            "kept_from": self._kept_at,
            "loss": self._least,
            "reason": f"Tuning: the agents of step {self._kept_at} are handed on, as "
            f"their soup's loss on validation ({self._least:.4f}) is the least.",
        }
        log(event)
        return self._kept, *ended

    def _apply(self) -> None:
        k = len(self._plan.roles)
        if len(self._plan.slots) > k:
            self.settings[k:] = middle(self.settings[:k])
        apply(self._learner, self.settings, self._roles, self._plan.config)

    def state_dict(self) -> StateDict:
        """Returns the settings and the generator; nothing if nothing is tuned."""
        if not len(self.settings):
            return StateDict()
        own = {"settings": self.settings, "generator": self._generator.get_state()}
        best = torch.tensor([self._least, self._kept_at], dtype=torch.float64)
        mixed = self.mix.tensors() if self.mix else {}
        return StateDict(common=own | {"best": best, "kept": self._kept} | mixed)

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there, before nets and batches take their own states."""
        if state.common:
            if self.mix and (own := {n: state.common[n] for n in self.mix.tensors()}):
                self.mix.load_tensors(**own)
            self.settings = state.common["settings"]
            self._generator.set_state(state.common["generator"])
            self._least, at = state.common["best"].tolist()
            self._kept, self._kept_at = state.common["kept"], int(at)
            self._apply()
