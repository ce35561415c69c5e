"""Batch choice: how many rows a step takes, found before there is a trunk.

Nets of one program take as many rows each, so the batch is one for all, and it is
chosen before anything else: for each of `FACTORS` times the section's batch a field of
nets races for the trunk, one field after another,

    on equal rows      half the batch takes twice the steps: warm-up, average, rounds
                       and the whole training keep their length in rows (`of_length`)
    at scaled rates    each field has the same settings, rates times the root of its
                       factor, as Adam's steps ask for (Malladi et al. 2022,
                       arXiv:2205.10287)

The best net of each field is compared on *validation*, row by row, and the section's
own batch stays unless another's net is surely better (`SURELY`): a smaller one always
seems so early on. The fields are forgotten; the decision is an event of the log, which
checkpoints hold.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from safescale_ammt.config.roles import ROLES
from safescale_ammt.config.sections import LEAST_TRUNK
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.nets import SteppedNets
from safescale_ammt.training.placement import Placement, ProcessGroup
from safescale_ammt.training.plan import Plan, of_length
from safescale_ammt.training.race import RUNGS, entries, fields, rung_ends
from safescale_ammt.training.sampling import trunk_batches
from safescale_ammt.training.training_log import Log
from safescale_ammt.training.tuned_settings import (
    RATE,
    Ranges,
    apply,
    validation_losses,
)

FACTORS = (1.0, 0.5, 2.0, 4.0)
"""Batches that are tried, in units of the section's own, which is the first."""
CUT = 4
"""One in so many of a field goes on from the first rung to the trunk's end."""
SURELY = 2.0
"""Standard errors by which another batch has to be better."""


def with_batch(
    plan: Plan,
    nets: SteppedNets,
    log: Log,
    checkpoints: Checkpoints,
    process_group: ProcessGroup,
    *,
    since: float = 0.0,
) -> Plan:
    """Returns the plan of the batch that does best; the same one if none is tuned.

    Args:
        plan: of the run.
        nets: what is trained.
        log: receives the decision.
        checkpoints: hold the decision of a run that goes on.
        process_group: takes rank 0's word.
        since: no matter here, as nothing depends on a clock.
    """
    del since
    if "batch_size" not in plan.config.tune_also:
        return plan
    tried = of_batches(plan)
    event = checkpoints.recorded("batch")
    if event is None:
        losses = torch.stack([heat(each, nets, plan) for each in tried])
        # A comparison turns a bit of difference between processors into another choice.
        process_group.broadcast(losses)
        chosen = tried[choice(losses)]
        means = losses.mean(1).tolist()
        batches = [each.config.batch_size for each in tried]
        event = {
            "event": "batch",
            "batch_size": chosen.config.batch_size,
            "steps": chosen.steps,
            "tried": batches,
            "loss": [mean if math.isfinite(mean) else None for mean in means],
            "reason": f"Tuning: of batches of {', '.join(map(str, batches))} rows "
            f"{chosen.config.batch_size} is taken, {chosen.steps} steps in all.",
        }
        log(event)
    sizes = [each.config.batch_size for each in tried]
    return tried[sizes.index(event["batch_size"])]


def of_batches(plan: Plan) -> list[Plan]:
    """Returns plans of as many rows, each of another batch; the first is as it was."""
    found = [plan]
    smallest = min(len(view) for view in plan.views)
    for factor in FACTORS[1:]:
        batch = round(plan.config.batch_size * factor)
        # Of fewer steps there is no section that tunes itself.
        if 1 <= batch <= smallest and plan.config.trunk_steps / factor >= LEAST_TRUNK:
            config = of_length(plan.config, round(plan.config.steps / factor))
            found.append(plan.under(replace(config, batch_size=batch)))
    return found


def field_sizes(plan: Plan) -> list[int]:
    """Returns how many nets of a field run each rung: half of those in the race."""
    first = max(2, fields(plan)[0] // 2)
    return [first, *(max(1, first // CUT) for _ in RUNGS[1:])]


def trial_steps(plan: Plan) -> int:
    """Returns the steps of single nets on the plan's batch that all fields take."""
    each = zip(field_sizes(plan), [0, *rung_ends(plan)], rung_ends(plan), strict=False)
    return len(of_batches(plan)) * sum(n * (end - begin) for n, begin, end in each)


def heat(plan: Plan, nets: SteppedNets, own: Plan) -> Tensor:
    """Returns the losses (n,) of a field's best net on *validation*.

    Args:
        plan: of the field's batch.
        nets: what is trained.
        own: of the section's batch.
    """
    sizes, begin, order = field_sizes(own), 0, None
    settings = entries(own, sizes[0])
    settings[:, RATE] *= math.sqrt(plan.config.batch_size / own.config.batch_size)
    settings = Ranges.of(plan.config).clamp(settings)
    learner = nets.learner(plan.rows, plan.constraints.cells, plan.config)
    batches, losses = trunk_batches(plan), torch.zeros(0)
    for size, end in zip(sizes, rung_ends(plan), strict=True):
        placement = Placement(size)
        learner.fork([ROLES["generalist"]] * size, placement, order)
        settings = settings if order is None else settings[order]
        apply(learner, settings, learner.roles, plan.config)
        for step in range(begin, end):
            batch, extra = (part.expand(size, -1) for part in batches.draw())
            learner.step(batch, extra, torch.zeros(0), plan.learning_rate(step))
        losses = validation_losses(plan, learner, placement)
        order, begin = losses.mean(1).argsort(stable=True)[: sizes[-1]], end
    return losses[losses.mean(1).argmin()]


def choice(losses: Tensor) -> int:
    """Returns which batch is taken: the first unless another is surely better.

    Args:
        losses: of the best net of each batch, on the same rows (batches, n).
    """
    best = int(losses.mean(1).argmin())
    more = losses[0] - losses[best]
    error = more.std() / math.sqrt(max(1, losses.shape[1]))
    # Infinity less infinity is no number, and no number is above another.
    return best if bool(more.mean() > SURELY * error.nan_to_num(0)) else 0
