"""humancompatible-train: its dual optimizers on soft rates (blind).

As its README does: the Lagrangian of `forward_update(loss, constraints)` is what is
backpropagated, the constraints are the batch's soft rate differences less the gap aimed
at, as inequalities, on as many rows of every cell (its `BalancedBatchSampler` does the
same by group). Tried: ALM at rates .01, .05 and .2, and ALM at .05 with penalty 1.
"""

from __future__ import annotations

from benchmarks.peers.bases import Base
from benchmarks.peers.network import aims_of, new_net
from benchmarks.transfer_tasks import Answer, Case
from safescale_ammt.training.learner import soft_rates


def alm(
    case: Case,
    base: Base,  # noqa: ARG001
    aim: float,  # noqa: ARG001
    rate: float = 0.05,
    penalty: float = 0.0,
) -> Answer:
    """Trains the base network under the constraint."""
    from humancompatible.train.dual_optim import ALM

    constraints = case.plan.constraints
    (net, primal), aims = new_net(case), aims_of(case)
    dual = ALM(m=len(constraints.pairs), lr=rate, penalty=penalty, is_ineq=True)
    for step in net.steps(case, primal):
        soft = soft_rates(step.cells.reshape(1, -1, 1), constraints.cells)[0]
        violation = constraints.differences(soft) - aims
        lagrangian = dual.forward_update(step.loss, violation)
        primal.zero_grad()
        lagrangian.backward()
        primal.step()
    score = net.score(case.sealed.x)
    return Answer((score >= 0.5).astype(int), score)
