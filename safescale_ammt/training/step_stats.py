"""Step statistics: what the nets' steps were like since the last round."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safescale_ammt.errors import SafescaleError
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.stateful import StateDict


class StepStats:
    """Losses and skipped steps of each net since the last round."""

    def __init__(self, nets: int) -> None:
        self._sum = torch.zeros(nets)
        self._active = torch.zeros(nets)
        self._steps = 0

    def add(self, losses: Tensor, skipped: Tensor) -> None:
        """Counts one step of every net."""
        # The loss of a skipped step may be NaN, and NaN would stay in the sum.
        self._sum += torch.where(skipped, 0.0, losses)
        self._active += ~skipped
        self._steps += 1

    def usable(self) -> Tensor:
        """Returns which nets took at least one step, (nets,) booleans."""
        return (self._active > 0) | (self._steps == 0)

    def losses(self, placement: Placement) -> list[float | None]:
        """Returns the mean loss over its steps of each net of all processes.

        None stands for a loss that is not finite, or of a net without a step.
        """
        # JSON has no NaN, and the log is written with `allow_nan=False`.
        means = placement.gather(self._sum / self._active).tolist()
        return [mean if math.isfinite(mean) else None for mean in means]

    def clear(self) -> None:
        """Starts again after a round."""
        self.__init__(len(self._sum))  # type: ignore[misc]

    def state_dict(self) -> StateDict:
        """Returns the sums."""
        each = {"sum": self._sum, "active": self._active}
        return StateDict(each, {"steps": torch.tensor(self._steps)})

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from the sums."""
        self._sum, self._active = state.each["sum"], state.each["active"]
        self._steps = int(state.common["steps"])


def require_quorum(plan: Plan, step: int, usable: Tensor) -> None:
    """Ends training in one sentence when most nets are lost.

    Raises:
        SafescaleError: fewer than half of the nets are usable.
    """
    lost = int((~usable).sum())
    if lost > len(usable) // 2:
        limit = plan.config.gradient_stability_threshold
        raise SafescaleError(
            f"Training stopped at step {step} of {plan.steps}: {lost} of "
            f"{len(usable)} nets had no finite gradient below "
            f"training.gradient_stability_threshold = {limit:g}; lower "
            f"training.learning_rate ({plan.config.learning_rate:g})."
        )
