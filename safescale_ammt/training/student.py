"""Student: one net that learns on where the agents have come together.

It begins as their soup, sees the rows that they train on, none set aside, and takes as
many steps as one of them, its rate warm again (Loshchilov and Hutter 2017). *Refined*
it learns the labels, *distilled* the agents' word beside them (Hinton et al. 2015):

    target = (1 - s) label + s mean_i P_i(class | row)

Where numbers are predicted, their mean stands in the place of chances. What the
constitution weighed at the end of the agents' training it weighs here from the first
step to the last: the multipliers stay, as nobody holds out rows to move them by. Where
settings tune themselves its own is the agents' geometric mean. Kept
are the weights whose Lagrangian on *validation* was least, the soup's among them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.training.constraints import ATTACKED
from safescale_ammt.training.learner import soft_rates
from safescale_ammt.training.nets import Nets, Rows, SteppedNets, asked
from safescale_ammt.training.plan import make_plan
from safescale_ammt.training.sampling import Batches, CellSampler, RowOrder
from safescale_ammt.training.tuned_settings import apply

if TYPE_CHECKING:
    from safescale_ammt.training.trainer import Trained

SOFT = 0.5
"""Share of the agents' word where they are distilled, s above."""
_LOOKS = 8
"""Times that a student is looked at."""
_LOOKED_AT = 1 << 16
"""Most rows that it is looked at with."""


def soft_answers(nets: Nets, agents: Tensor, rows: Rows) -> Tensor:
    """Returns what agents say of rows on average: chances, or numbers.

    Args:
        nets: that the agents are of.
        agents: their weights (k, P).
        rows: that are answered.

    Returns:
        Of one logit the chance of class 1 (n,), else a column for each class or number
        (n, n_out), float32.
    """
    found = []
    for block in rows.blocks(len(agents)):
        out = nets.logits(agents, rows, block[None])
        if not nets.classes:
            found.append(out.mean(0))
        elif out.shape[2] == 1:
            found.append(torch.sigmoid(out[..., 0]).mean(0))
        else:
            found.append(torch.softmax(out, 2).mean(0))
    return torch.cat(found)


def learnt_on(
    trained: Trained,
    constitution: Constitution,
    *,
    soft: float = SOFT,
    start: Tensor | None = None,
) -> Tensor:
    """Trains a student of agents; returns its averaged weights at their best (1, P).

    Args:
        trained: the agents, and the section that they were trained under.
        constitution: the promises.
        soft: share of the agents' word in what it learns.
        start: weights that it begins with (1, P); None is the agents' soup.
    """
    nets, config = trained.nets, trained.config
    # The config refuses students of trees.
    assert isinstance(nets, SteppedNets)
    agents = trained.agents[trained.finite]
    plan = make_plan(nets, config, constitution, twin=False, agents=1)
    # Its steps have one rate, and agents that nothing gained any more took fewer.
    steps = min(plan.steps, trained.steps) if config.patience else plan.steps
    plan = replace(plan, steps=steps, net_steps=0)
    everything = plan.views[-1]
    inside = trained.constraints.membership(plan.rows.groups, plan.rows.y)
    cells = CellSampler(inside, [everything], plan.seed("student's cells"))
    order = RowOrder(everything, None, plan.seed("student"))
    batches = Batches(plan.batch_size, [order], cells)
    rows = softened(nets, agents, plan.rows, soft) if soft else plan.rows
    learner = nets.learner(rows, trained.constraints.cells, plan.config)
    begun = agents.mean(0, keepdim=True) if start is None else start
    for tensor in (learner.theta, learner.averaged):
        # In place: copies of a module are views of these rows.
        tensor.copy_(begun)
    if trained.setting is not None and len(trained.setting):
        # The section's own rate is then a guess that nobody stands by.
        apply(learner, trained.setting, learner.roles, plan.config)
    held = nets.rows("validation").part(_LOOKED_AT)
    least, kept = lagrangian(trained, begun, held), begun
    for step in range(plan.steps):
        rate = plan.learning_rate(step)
        learner.step(*batches.draw(), trained.cell_weights, rate)
        # Agents that have taken all the steps that pay only have to forget.
        if (step + 1) % max(1, plan.steps // _LOOKS) == 0:
            found = lagrangian(trained, learner.averaged, held)
            if found < least:
                least, kept = found, learner.averaged.clone()
    return kept.cpu()


def lagrangian(trained: Trained, theta: Tensor, rows: Rows) -> float:
    """Returns a net's loss on rows, and what the cells' soft rates weigh in it.

    Args:
        trained: says what is enforced, and each cell's weight.
        theta: its weights (1, P).
        rows: with labels.
    """
    nets, constraints = trained.nets, trained.constraints
    found, weights = 0.0, trained.cell_weights
    for threat in (None, *constraints.threats):
        # An attack takes many answers: of a part of the rows.
        part = rows if threat is None else rows.part(ATTACKED)
        blocks = [b[None] for b in part.blocks()]
        out = torch.cat([asked(nets, theta, part, b, threat)[0] for b in blocks])
        if threat is None:
            found = float(nets.row_losses(out, rows.y).mean())
        inside = constraints.membership(part.groups, part.y)
        for i in constraints.under(threat).nonzero()[:, 0].tolist():
            cell, mask = constraints.cells[i], inside[i]
            if bool(mask.any()):
                own = part.y[None, mask]
                soft = soft_rates(out[None, mask], [cell], own)
                found += float(weights[i]) * float(soft)
    return found


def softened(nets: Nets, agents: Tensor, rows: Any, soft: float) -> Rows:
    """Returns rows whose labels the agents' word is mixed into.

    Args:
        nets: that the agents are of.
        agents: their weights (k, P).
        rows: a dataclass, with labels or numbers.
        soft: share of the agents' word.
    """
    said, label = soft_answers(nets, agents, rows), rows.y
    if said.dim() > label.dim():
        label = f.one_hot(label, said.shape[1])
    mixed: Rows = replace(rows, y=torch.lerp(label.to(said.dtype), said, soft))
    return mixed
