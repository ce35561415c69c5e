"""The ladder of corrections: what an alarm of the monitor sets off, rung by rung.

    1  raise_multiplier    the broken pairs aim lower by what fresh rows exceed the
                           rows that steer, and their multipliers rise at once
    2  halve_rate          the agents' learning rate is halved for good
    3  roll_back           every agent begins again at the last soup that looked
                           feasible, with a new optimizer; none yet: nothing happens
    4  reweight_groups     rows of small group x label strata are drawn more often
    5  ask_a_person        training ends; whoever reads its sentence decides

A training that was corrected also calls for a person at its end, in its log and on its
page, unless fresh rows since then look well. It is judged all the same: the gate's
bounds rest on sealed rows and not on how a model was trained.

From the second rung on what fresh rows exceed is aimed at again, too. No rung touches
the twin. Rungs are in the order of what they cost a training that was alarmed falsely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.errors import Refusal
from safescale_ammt.training.architectures import dealt, soups
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.sampling import Batches
from safescale_ammt.training.stateful import Tensors
from safescale_ammt.training.sync import Round, Sharing

RUNGS = (
    "raise_multiplier",
    "halve_rate",
    "roll_back",
    "reweight_groups",
    "ask_a_person",
)
BALANCE = 0.5
"""Exponent of `Role.balance` that the agents' rows are drawn by after rung 4."""
_REASONS = {
    "raise_multiplier": "Corrected at step {step}: the multipliers were raised.",
    "halve_rate": "Corrected at step {step}: the learning rate was halved.",
    "roll_back": "Corrected at step {step}: the agents go on from {to}.",
    "reweight_groups": "Corrected at step {step}: rows of small groups come more "
    "often.",
}


@dataclass(frozen=True)
class Alarm:
    """What fresh rows have shown.

    Attributes:
        step: of the look.
        differences: rate_a - rate_b of fresh rows (pairs,).
        broken: which pairs have gained by their bets (pairs,).
        reason: a sentence that names principle and pair.
    """

    step: int
    differences: NDArray[np.float64]
    broken: NDArray[np.bool_]
    reason: str


class Ladder:
    """Corrects a training, one rung an alarm.

    Args:
        plan: of the agents.
        placement: of agents and twin.
        learner: the nets of this process.
        dual: the multipliers.
        sharing: the consensus.
        batches: the rows of each step.
    """

    def __init__(
        self,
        plan: Plan,
        placement: Placement,
        *,
        learner: Learner,
        dual: DualUpdate,
        sharing: Sharing,
        batches: Batches,
    ) -> None:
        self.placement = placement
        self._plan, self._learner, self._dual = plan, learner, dual
        self._sharing, self._batches = sharing, batches
        self._halvings, self._balanced = 0, False
        self._of = dealt(plan.nets, plan.roles)
        # The soup of the trunk is no answer to a broken promise.
        self._feasible, self._kept_at = learner.theta[:1].cpu().clone(), -1

    def soups(self) -> Tensor:
        """Returns the mean of the finite agents' averaged weights, (1, P).

        Of several architectures each that has such an agent has one (m, P).

        Of them the merge may leave one out as unsound (docs/decisions.md): here it
        still teaches and is averaged, so that what is watched is what trains.
        """
        k = len(self._plan.roles)
        averaged = self.placement.gather(self._learner.averaged.cpu())[:k]
        found = soups(self._plan.nets, averaged[averaged.isfinite().all(1)])
        return torch.cat([*found.values()])

    def keep(self, soup: Tensor, step: int) -> None:
        """Remembers soups (m, P) that look feasible, for `roll_back`."""
        # An architecture without one could not go back.
        if len(soup) > int(self._of.max()):
            self._feasible, self._kept_at = soup, step

    def take(self, rung: int, alarm: Alarm) -> dict[str, Any]:
        """Takes a rung.

        Args:
            rung: number in `RUNGS`.
            alarm: that set it off.

        Returns:
            The event for the log.

        Raises:
            Refusal: it is the last one.
        """
        name = RUNGS[rung]
        if name == "ask_a_person":
            raise Refusal(
                f"Training stopped at step {alarm.step} of {self._plan.steps} after "
                f"{rung} corrections. {alarm.reason} Have a person look at the labels "
                "that train; training.monitor: observe trains on and leaves the "
                "decision to the gate."
            )
        fresh = torch.from_numpy(alarm.differences).to(torch.float32)
        self._dual.correct(fresh, torch.from_numpy(alarm.broken))
        unseen = self._plan.constraints.by_pair(self._dual.unseen)
        if name == "roll_back" and self._kept_at >= 0:
            k = len(self._plan.roles)
            # As lost agents rejoin: averages and optimizers begin again, too.
            self._learner.adopt(self._feasible[self._of], Round.of_lost(k))
            self._sharing.restart(*self._feasible)
        elif name in {"halve_rate", "reweight_groups"}:
            self._halvings += name == "halve_rate"
            self._balanced |= name == "reweight_groups"
            self.apply()
        to = f"the soup of step {self._kept_at}"
        if self._kept_at < 0:
            to = "where they are, no soup has looked feasible yet"
        return {
            "event": "correction",
            "step": alarm.step,
            "rung": name,
            "unseen": unseen,
            "reason": _REASONS[name].format(step=alarm.step, to=to),
        }

    def apply(self) -> None:
        """Gives nets and batches the pace and the weights that the rungs have set."""
        agents = len(self.placement.local_below(len(self._plan.roles)))
        self._learner.optimizer.pace[:agents] = [0.5**self._halvings] * agents
        if self._balanced:
            self._batches.reweight(self._plan, self.placement, BALANCE)

    def tensors(self) -> Tensors:
        """Returns what the rungs have changed, and the soup that looked feasible."""
        counts = (self._halvings, int(self._balanced), self._kept_at)
        return {"rungs": torch.tensor(counts), "feasible": self._feasible}

    def load_tensors(self, rungs: Tensor, feasible: Tensor) -> None:
        """Continues from there, before nets and batches take their own states."""
        self._feasible = feasible
        self._halvings, balanced, self._kept_at = rungs.tolist()
        self._balanced = bool(balanced)
        self.apply()
