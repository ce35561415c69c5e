"""Branching: how long the agents stay one net, which is as long as it pays.

Steps that follow each other buy what steps side by side cannot. Of the net-steps that
k agents would take,

    N = trunk_steps + k (steps - trunk_steps),

the trunk may take the share `training.branch`, and each agent a k-th of the rest. The
trunk ends sooner where *validation* has shown no gain for as long as `trunk_steps`
steps, and the agents part from it as it was at its best. Its rate falls as that of one
net which takes all N, so that it is high when they part; theirs is warm again
(Loshchilov and Hutter 2017) and falls to 0. What they end as lies around one minimum,
and their mean in its midst (Izmailov et al. 2018; Wortsman et al. 2022). To part late is
post-local SGD (Lin et al. 2020).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.training.learner import Learner
from safescale_ammt.training.patience import LEAST_LOSS, mean_losses
from safescale_ammt.training.placement import Placement, ProcessGroup
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.stateful import StateDict, Tensors

LOOKS = 4
"""Looks in as many steps as `trunk_steps`, and those without a gain that end it."""


class Branching:
    """Decides when the trunk has learnt what it can, and keeps it at its best.

    Args:
        plan: of the agents.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._every = max(1, plan.config.trunk_steps // LOOKS)
        # The least loss, that of the last gain, looks since, and the step kept.
        self._seen = torch.tensor([math.inf, math.inf, 0, 0], dtype=torch.float64)
        self._kept: Tensors = {}
        self._taken = plan.trunk_steps

    def ends(self, step: int, learner: Learner, process_group: ProcessGroup) -> bool:
        """Looks if it is time, and says whether the agents part before this step.

        Args:
            step: that would come next.
            learner: of the trunk; nets that still race for it are not looked at.
            process_group: takes rank 0's word for the loss.
        """
        waits = not step or step % self._every or len(learner.theta) > 1
        if waits or not self._plan.net_steps:
            return False
        ends = self._look(step, learner, process_group) >= LOOKS
        if ends:
            self._taken = step
        return ends

    def part(
        self, learner: Learner, process_group: ProcessGroup
    ) -> dict[str, Any] | None:
        """Gives the trunk the weights, averages and optimizer of its best look.

        Args:
            learner: of the trunk, after its last step.
            process_group: as above.

        Returns:
            The event that says so; None without a look, as where a run goes on behind
            its trunk.
        """
        if not self._kept:
            return None
        if self._taken == self._plan.trunk_steps:
            self._look(self._taken, learner, process_group)
        for name, tensor in _tensors(learner).items():
            # In place: what a net computes with may be a view of its row.
            tensor.copy_(self._kept[name])
        loss, at = float(self._seen[0]), int(self._seen[3])
        return {
            "event": "branch",
            "step": at,
            "taken": self._taken,
            "loss": loss,
            "reason": f"The agents part from the trunk as it was before step {at}, when "
            f"its loss on validation was least, {loss:.4f}; it took {self._taken} of "
            f"{self._plan.trunk_steps} steps (training.branch).",
        }

    def _look(self, step: int, learner: Learner, process_group: ProcessGroup) -> int:
        """Looks, and returns how many looks in a row have shown no gain."""
        loss = mean_losses(self._plan, learner, Placement(1))
        # A comparison: every process takes rank 0's figure.
        process_group.broadcast(loss)
        least, mark, since, _ = self._seen.tolist()
        now = float(loss)
        gains = now < mark - LEAST_LOSS * abs(mark) if mark < math.inf else now < mark
        self._seen[1], self._seen[2] = (now, 0) if gains else (mark, since + 1)
        if now < least:
            self._seen[0], self._seen[3] = now, step
            self._kept = {n: t.clone() for n, t in _tensors(learner).items()}
        return int(self._seen[2])

    def state_dict(self) -> StateDict:
        """Returns what was seen, and the trunk at its best."""
        kept = {f"kept {name}": tensor.cpu() for name, tensor in self._kept.items()}
        return StateDict(common={"seen": self._seen} | kept)

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        kept = dict(state.common)
        self._seen = kept.pop("seen")
        self._kept = {name.removeprefix("kept "): t for name, t in kept.items()}


def _tensors(learner: Learner) -> dict[str, Tensor]:
    both = {"theta": learner.theta, "averaged": learner.averaged}
    return both | learner.adam.tensors()
