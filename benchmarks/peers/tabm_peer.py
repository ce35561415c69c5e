"""TabM (Gorishniy et al. 2025) by its own package: k heads that share their matrices.

As its documentation does: the loss is the mean over the heads' own losses, and the
answer the mean of their chances. Widths, dropout, batches, schedule, weight average and
Adam are those of our nets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from tabm import TabM
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.plan import POOL, make_plan
from safescale_ammt.training.sampling import trunk_batches


def trained(
    nets: GenomeNets, config: TrainingConfig, constitution: Constitution
) -> Callable[[EncodedRows], Tensor]:
    """Trains TabM; returns what answers rows with the logarithms of chances.

    Args:
        nets: say the rows, and the widths.
        config: the training section; its agents are the heads.
        constitution: names the strata of the plan.
    """
    alone = replace(config, num_agents=1, trunk_steps=config.steps)
    plan = make_plan(nets, alone, constitution, twin=False)
    batches, classes = trunk_batches(plan), len(nets.classes)
    rows = nets.rows(*POOL)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(plan.seed("tabm"))
        model = TabM.make(
            n_num_features=nets.rows("train").width,
            cat_cardinalities=[],
            d_out=classes,
            n_blocks=len(nets.genome.widths),
            d_block=nets.genome.widths[0],
            dropout=nets.genome.dropout,
            k=config.num_agents,
        )
        average = torch.optim.swa_utils.AveragedModel(
            model, avg_fn=lambda mean, new, _: torch.lerp(new, mean, config.ema)
        )
        optimizer = torch.optim.Adam(model.parameters())
        for step in range(plan.steps):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate(step)
            index = batches.draw()[0][0]
            out = model(rows.batch(index))
            label = rows.y[index][:, None].expand(-1, out.shape[1])
            optimizer.zero_grad()
            loss = f.cross_entropy(out.flatten(0, 1), label.flatten())
            torch.autograd.backward(loss)
            optimizer.step()
            average.update_parameters(model)

    def logits(rows: EncodedRows) -> Tensor:
        average.eval()
        with torch.no_grad():
            each = torch.cat([average(rows.batch(b)) for b in rows.blocks()])
        found = torch.logsumexp(torch.log_softmax(each, 2), 1) - math.log(each.shape[1])
        # Of two classes our nets have one logit.
        return found[:, 1:] - found[:, :1] if classes == 2 else found

    return logits
