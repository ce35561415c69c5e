"""Decisions about a plan that are made before the first step, and recorded.

Each reads in the checkpoints what a run that goes on has decided, so that nothing which
depends on a clock, or costs much, is decided twice.
"""

from __future__ import annotations

from typing import Protocol

from safescale_ammt.training.batch_choice import with_batch
from safescale_ammt.training.budget import within_budget
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.nets import SteppedNets
from safescale_ammt.training.placement import ProcessGroup
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.training_log import Log


class DecisionBefore(Protocol):
    """Returns the plan as it goes on."""

    def __call__(
        self,
        plan: Plan,
        nets: SteppedNets,
        log: Log,
        checkpoints: Checkpoints,
        process_group: ProcessGroup,
        *,
        since: float,
    ) -> Plan:
        """Decides.

        Args:
            plan: of the run.
            nets: what is trained.
            log: receives the decision.
            checkpoints: hold the decision of a run that goes on.
            process_group: takes rank 0's word.
            since: when the training began, as `time.perf_counter` has it.
        """


BEFORE: tuple[DecisionBefore, ...] = (within_budget, with_batch)
"""How long training is, and then the batch for that length."""
