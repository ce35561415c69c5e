"""cooper: nuPI on proxy constraints (blind).

As its documentation does for rates that have no gradient: the violation of soft rates
moves the weights, the strict violation of hard rates moves the multipliers, through
`SimultaneousOptimizer` and its own nuPI. Hard rates are taken of the whole pool by the
averaged weights every 20 steps, as many as ours has, since those of a batch rest on a
dozen rows; the nets it trains on are then the rows it measures: cooper has no folds.
Tried: Ki of .1 and .3 with Kp of 1 and 3, nu .9.
"""

from __future__ import annotations

from typing import Any

import cooper
import torch
from cooper.optim import nuPI, nuPIInitType

from benchmarks.peers.bases import Base
from benchmarks.peers.network import Net, Step, aims_of, new_net, pool_tensors
from benchmarks.transfer_tasks import Answer, Case
from safescale_ammt.training.constraints import hard_rates
from safescale_ammt.training.learner import soft_rates


class Promise(cooper.ConstrainedMinimizationProblem):
    """The gap of a case as cooper's problem."""

    def __init__(self, case: Case, net: Net) -> None:
        super().__init__()
        self.net, self.constraints_ = net, case.plan.constraints
        self.aims = aims_of(case)
        self.every = case.config.dual_every
        self.x, self.inside = pool_tensors(case)
        outcomes = [cell.outcome for cell in self.constraints_.cells]
        self.outcomes = torch.tensor(outcomes)
        self.gap = cooper.Constraint(
            constraint_type=cooper.ConstraintType.INEQUALITY,
            formulation_type=cooper.formulations.Lagrangian,
            multiplier=cooper.multipliers.DenseMultiplier(
                num_constraints=len(self.constraints_.pairs)
            ),
        )

    def compute_cmp_state(self, step: Step) -> cooper.CMPState:
        """Measures the soft violation, and the strict one every so many steps."""
        cells = self.constraints_.cells
        soft = soft_rates(step.cells.reshape(1, -1, 1), cells)[0]
        due = step.number % self.every == 0
        state = cooper.ConstraintState(
            violation=self.constraints_.differences(soft) - self.aims,
            strict_violation=self.strict() if due else None,
            contributes_to_dual_update=due,
        )
        return cooper.CMPState(loss=step.loss, observed_constraints={self.gap: state})

    def strict(self) -> torch.Tensor:
        """Returns the violation of hard rates on the pool (pairs,)."""
        counted = self.inside.any(0)
        inside = self.inside[:, counted]
        predicted = (self.net.logits(self.x[counted].numpy()) >= 0).to(torch.int64)
        hits = hard_rates(predicted[None], inside, self.outcomes)[0]
        return self.constraints_.differences(hits / inside.sum(1)) - self.aims


def nupi(
    case: Case,
    base: Base,  # noqa: ARG001
    aim: float,  # noqa: ARG001
    ki: float = 0.3,
    kp: float = 3.0,
) -> Answer:
    """Trains the base network under the constraint."""
    net, primal = new_net(case)
    problem = Promise(case, net)
    pairs = torch.ones(len(case.plan.constraints.pairs))
    gains = case.plan.constraints.gains() * pairs
    options: dict[str, Any] = {"init_type": nuPIInitType.ZEROS, "ema_nu": 0.9}
    dual = nuPI(
        problem.dual_parameters(),
        lr=1.0,
        Ki=ki * gains,
        Kp=kp * gains,
        maximize=True,
        **options,
    )
    optimizer = cooper.optim.SimultaneousOptimizer(
        cmp=problem, primal_optimizers=primal, dual_optimizers=dual
    )
    for step in net.steps(case, primal):
        optimizer.roll(compute_cmp_state_kwargs={"step": step})
    score = net.score(case.sealed.x)
    return Answer((score >= 0.5).astype(int), score)
