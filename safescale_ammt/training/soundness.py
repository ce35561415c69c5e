"""Soundness: which agents have learnt something that is worth merging.

An agent whose rows, memory or processor are faulty may end with finite weights that say
nothing, or the reverse of what is right. In a mean of weights it would speak for its
share of them. Its loss on *validation* tells: above that of a constant, the base rates
or the mean, it is worse than somebody who has not seen the row.

A role costs an agent some accuracy, a promise too; neither makes it worse than that,
which is why a constant is the mark and not the other agents.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from safescale_ammt.training.trainer import Trained

_CLEARLY = 5.0
"""Standard errors; with 256 agents one sound one in ten thousand runs is left out."""
_LOOKED_AT = 1 << 16
"""Most rows that it is measured on."""


def sound_ones(trained: Trained) -> tuple[Trained, tuple[str, ...]]:
    """Leaves out agents that are clearly worse than the best constant.

    Args:
        trained: agents and twin; *validation* is read.

    Returns:
        The same with `finite` of sound agents alone, and a sentence for each other.
        Where over half would go, all stay: then it is not they that are odd.
    """
    excess, error = excess_loss(trained)
    # A loss that is not finite compares as false.
    sound = trained.finite & (excess <= _CLEARLY * error)
    odd = (trained.finite & ~sound).nonzero()[:, 0].tolist()
    if 2 * len(odd) > int(trained.finite.sum()):
        return trained, ()
    sentences = []
    for i in odd:
        loss = float(excess[i])
        worse = f"{loss:.3f} above that of the best constant"
        sentences.append(
            f"Agent {i} of {len(sound)} is left out of the merge: its loss on "
            f"validation is {worse if math.isfinite(loss) else 'not finite'}."
        )
    return replace(trained, finite=sound), tuple(sentences)


def excess_loss(trained: Trained) -> tuple[Tensor, Tensor]:
    """Returns each agent's loss above the best constant's (k,), and its error (k,)."""
    nets, agents = trained.nets, trained.agents
    rows = nets.rows("validation").part(_LOOKED_AT)
    blocks = list(rows.blocks(len(agents)))
    logits = torch.cat([nets.logits(agents, rows, block[None]) for block in blocks], 1)
    y = rows.y[torch.cat(blocks)]
    constant = best_constant(y, len(nets.classes), logits.shape[2])
    base = nets.row_losses(constant.expand(len(y), -1), y)
    losses = torch.stack([nets.row_losses(of_agent, y) for of_agent in logits])
    excess = losses.double() - base
    return excess.mean(1), excess.std(1) / math.sqrt(len(y))


def best_constant(y: Tensor, classes: int, n_out: int) -> Tensor:
    """Returns logits of the base rates, or the mean of numbers (n_out,)."""
    if not classes:
        return y.float().mean().expand(n_out)
    # Half a row more of each: a class without any has a rate, if a small one.
    shares = torch.bincount(y.long(), minlength=classes) + 0.5
    logs = (shares / shares.sum()).log()
    return (logs[1:] - logs[:1]) if n_out == 1 else logs
