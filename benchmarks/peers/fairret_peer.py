"""fairret: a regularisation term beside the loss (blind).

As its README does: `NormLoss` of a statistic is added to the loss. The statistic is
taken on as many rows of every cell, since a batch without a group would cost a flat 1.
It knows no tolerance, only a strength. Tried: strengths of .03, .1, .3 and 1.
"""

from __future__ import annotations

import torch

from benchmarks.peers.bases import Base
from benchmarks.peers.network import new_net
from benchmarks.transfer_tasks import Answer, Case

STATISTICS = {
    True: "TruePositiveRate",
    False: "FalsePositiveRate",
    None: "PositiveRate",
}


def norm_loss(
    case: Case,
    base: Base,  # noqa: ARG001
    aim: float,  # noqa: ARG001
    strength: float = 0.3,
) -> Answer:
    """Trains the base network with the term."""
    from fairret import statistic
    from fairret.loss import NormLoss

    cells = case.plan.constraints.cells
    net, primal = new_net(case)
    blocks: dict[bool | None, list[int]] = {}
    for i, cell in enumerate(cells):
        blocks.setdefault(cell.condition, []).append(i)
    terms = {c: NormLoss(getattr(statistic, STATISTICS[c])()) for c in blocks}
    for step in net.steps(case, primal):
        loss, each = step.loss, step.cells.shape[1]
        for condition, members in blocks.items():
            logits = step.cells[members].reshape(-1, 1)
            groups = torch.eye(len(members)).repeat_interleave(each, 0)
            label = torch.full_like(logits, float(condition or 0))
            known = () if condition is None else (label,)
            loss = loss + strength * terms[condition](logits, groups, *known)
        primal.zero_grad()
        torch.autograd.backward(loss)
        primal.step()
    score = net.score(case.sealed.x)
    return Answer((score >= 0.5).astype(int), score)
