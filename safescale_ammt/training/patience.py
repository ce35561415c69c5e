"""Patience: training ends where held-out rows no longer show that it gains.

Every so many dual updates it looks at two figures, each on rows that the nets do not
train on: the agents' mean loss on *validation*, and the worst violation, of which the
dual update measures each agent on the fold that it set aside. *select* and sealed rows
are never read. `training.patience` looks in a row at which neither is better than ever
before end the training.

The loss is not taken of the folds: the trunk has seen them, and what the agents forget
of them would look like a loss that rises.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.training_log import Log

LEAST_LOSS, LEAST_VIOLATION = 1e-3, 1e-3
"""What counts as better: a part of the best loss, and a difference of rates."""
_LOOKED_AT = 1 << 14
"""Most rows that the loss is measured on: it then errs by some thousandths."""


class Patience:
    """Decides when agents that have parted are done.

    Args:
        plan: of the agents.
        placement: of agents and twin.
        log: receives why training has ended.
    """

    def __init__(self, plan: Plan, placement: Placement, log: Log) -> None:
        self._plan, self._placement, self._log = plan, placement, log
        # Loss and violation, the least so far.
        self._best = torch.full((2,), float("inf"), dtype=torch.float64)
        self._looks = 0  # in a row without a better one

    def ends(self, step: int, learner: Learner, violation: Mapping[str, float]) -> bool:
        """Looks, and says whether training ends before this step.

        Args:
            step: that would come next.
            learner: holds this process' nets.
            violation: principle id -> pooled hard gap - tau on held-out rows.
        """
        patience = self._plan.config.patience
        if not patience:
            return False
        losses = mean_losses(self._plan, learner, self._placement)
        losses = losses[: len(self._plan.roles)]
        loss = losses[losses.isfinite()].mean()
        # A promise that is kept can be kept no better.
        worst = max(0.0, *violation.values(), 0.0)
        now = torch.stack([loss, loss.new_tensor(worst)])
        # A comparison: every process takes rank 0's figures.
        self._placement.broadcast(now)
        least = torch.stack(
            [LEAST_LOSS * self._best[0], now.new_tensor(LEAST_VIOLATION)]
        )
        # Of the first look all is better; a loss that is no number is not.
        better = (self._best.isinf() & now.isfinite()) | (now < self._best - least)
        self._looks = 0 if bool(better.any()) else self._looks + 1
        self._best = torch.where(better, now, self._best)
        if self._looks < patience:
            return False
        best_loss, best_violation = self._best.tolist()
        reason = (
            f"Training ended before step {step} of {self._plan.steps}: for "
            f"{self._looks} looks (training.patience) held-out rows showed neither a "
            f"loss below {best_loss:.4f} nor a violation below {best_violation:.3f}."
        )
        self._log({"event": "stopped", "step": step, "reason": reason})
        return True

    def state_dict(self) -> StateDict:
        """Returns the best figures and the looks since."""
        return StateDict(
            common={"best": self._best, "looks": torch.tensor(self._looks)}
        )

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        self._best = state.common["best"]
        self._looks = int(state.common["looks"])


def mean_losses(plan: Plan, learner: Learner, placement: Placement) -> Tensor:
    """Returns every net's mean loss on *validation*, averaged weights (nets,)."""
    nets, rows = plan.nets, plan.nets.rows("validation").part(_LOOKED_AT)
    alone = placement.one_of_several()
    losses = torch.zeros(len(learner.theta), dtype=torch.float64)
    for block in rows.blocks(len(learner.theta)):
        out = nets.logits(learner.averaged, rows, block[None], one_of_several=alone)
        each = [nets.row_losses(of_net, rows.y[block]).sum() for of_net in out]
        losses += torch.stack(each).double()
    return placement.gather(losses / len(rows))
