"""Branching: how long the agents stay one net, which is as long as it pays.

Steps that follow each other buy what steps side by side cannot. Of the net-steps that
k agents would take,

    N = trunk_steps + k (steps - trunk_steps),

the trunk may take the share `training.branch`, and each agent a k-th of the rest. The
trunk ends sooner where *validation* has shown no gain for as long as `trunk_steps`
steps, and the agents part from it as it was at its best. Its rate falls as that of one
net which takes all N, so that it is high when they part; theirs is warm again
(Loshchilov and Hutter 2017) and falls to 0. What they end as lies around one minimum,
and their mean in its midst (Izmailov et al. 2018; Wortsman et al. 2022). To part late
is post-local SGD (Lin et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
        self._taken = 0

    def steps(
        self, steps: range, learner: Learner, process_group: ProcessGroup
    ) -> Iterator[int]:
        """Yields the steps of a trunk for as long as it gains.

        Args:
            steps: at most; those that end sooner than the trunk may are of a race.
            learner: takes each step before the next is asked for.
            process_group: takes rank 0's word for the loss.
        """
        longest, alone = self._plan.trunk_steps, Placement(1)
        looks = self._plan.net_steps and steps.stop == longest
        for step in steps:
            yield step
            taken = step + 1
            if not looks or (taken < longest and taken % self._every):
                continue
            loss = mean_losses(self._plan, learner, alone)
            # A comparison: every process takes rank 0's figure.
            process_group.broadcast(loss)
            least, mark, since, _ = self._seen.tolist()
            now, self._taken = float(loss), taken
            enough = LEAST_LOSS * abs(mark) if mark < math.inf else 0.0
            since = 0 if now < mark - enough else since + 1
            self._seen[1], self._seen[2] = mark if since else now, since
            if now < least:
                self._seen[0], self._seen[3] = now, taken
                self._kept = {n: t.clone() for n, t in _tensors(learner).items()}
            if since >= LOOKS:
                return

    def part(self, learner: Learner) -> dict[str, Any] | None:
        """Gives the trunk the weights, averages and optimizer of its best look.

        Args:
            learner: of the trunk, after its last step.

        Returns:
            The event that says so; None without a look, as where a run goes on behind
            its trunk.
        """
        if not self._kept:
            return None
        for name, tensor in _tensors(learner).items():
            # In place: what a net computes with may be a view of its row.
            tensor.copy_(self._kept[name])
        loss, at = float(self._seen[0]), int(self._seen[3])
        return {
            "event": "branch",
            "step": at,
            "taken": self._taken,
            "left": self._plan.trunk_steps - self._taken,
            "loss": loss,
            "reason": f"The agents part from the trunk as it was before step {at}: "
            f"its loss on validation was then least, {loss:.4f}. It took {self._taken} "
            f"of {self._plan.trunk_steps} steps (training.branch).",
        }

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
    return both | learner.optimizer.tensors()
