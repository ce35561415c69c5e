"""One process of the distributed benchmark: ours, or data parallel on the same nets.

    python -m benchmarks.distributed_rank ours|data-parallel DATASET STEPS OUT

Both train the same nets (8 agents and the twin, stacked) on the same rows per step.
Ours deals the nets out to the processes. The peer is what torch offers: every
process holds all nets, computes a share of every batch, and
`DistributedDataParallel` averages the gradients at every step; it updates no
multipliers and shares nothing else, which is to its favour. RANK, WORLD_SIZE and
MASTER_* come from the environment. Rank 0 writes OUT.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.device import keep_freed_memory, settled
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.network import Dropout, forward, initial, unflatten
from safescale_ammt.training.adam import Adam
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.learner import soft_rates, task_loss
from safescale_ammt.training.placement import (
    SINGLE_PROCESS,
    GlooGroup,
    Placement,
    ProcessGroup,
)
from safescale_ammt.training.plan import POOL, Plan, make_plan
from safescale_ammt.training.roles import traits
from safescale_ammt.training.sampling import agent_batches
from safescale_ammt.training.trainer import train

GENOME = Genome()
CONSTITUTION = Constitution.from_dict(
    {
        "schema": 1,
        "principles": [
            {
                "id": "equal-opportunity",
                "constraint": {"metric": "tpr_gap", "group": "sex", "threshold": 0.08},
            }
        ],
    }
)


def loopback_bytes() -> int:
    """Returns what the loopback device has carried, headers included."""
    # proc(5): received bytes come first, and on loopback they are the sent ones too.
    lines = Path("/proc/net/dev").read_text().splitlines()
    (line,) = (x for x in lines if x.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def section(steps: int) -> TrainingConfig:
    """Returns the default section, without a trunk: all steps are the agents'."""
    return TrainingConfig(steps=steps, trunk_steps=0, seed=0)


class Clock:
    """Seconds and bytes between the first round and the last."""

    def __init__(self) -> None:
        self.rounds: list[tuple[int, float, float, int]] = []

    def tick(self, step: int) -> None:
        """Notes a round."""
        now = (time.perf_counter(), time.process_time(), loopback_bytes())
        self.rounds.append((step, *now))

    def to_dict(self, process_group: ProcessGroup) -> dict[str, Any]:
        """Returns what lay between, warm-up left out; CPU of all processes."""
        # Not from round 0: the first steps fill caches and load kernels.
        first, last = self.rounds[1], self.rounds[-1]
        cpu = torch.tensor([last[2] - first[2]], dtype=torch.float64)
        every = process_group.all_gather(cpu, [1] * process_group.size)
        return {
            "steps": last[0] - first[0],
            "wall_s": last[1] - first[1],
            "cpu_s": float(every.sum()),
            "loopback_bytes": last[3] - first[3],
        }


def ours(
    encoded: EncodedDataset, steps: int, process_group: ProcessGroup
) -> dict[str, Any]:
    """Trains as the product does."""
    clock, config = Clock(), section(steps)

    def log(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            clock.tick(event["step"])

    nets = GenomeNets(encoded, GENOME)
    trained = train(nets, config, CONSTITUTION, log=log, process_group=process_group)
    weights = torch.cat([trained.agents, trained.twin]).numpy().tobytes()
    digest = hashlib.sha256(weights).hexdigest()[:16]
    sent = process_group.all_gather(
        torch.tensor([process_group.bytes]), [1] * process_group.size
    )
    return {
        **clock.to_dict(process_group),
        "handed_over": int(sent.sum()) / (config.steps // config.sync_every),
        "weights": digest,
    }


class Nets(torch.nn.Module):
    """All nets as one module, whose loss is the sum of theirs."""

    def __init__(self, plan: Plan, kind: GenomeNets) -> None:
        super().__init__()
        self.plan, encoded = plan, kind.encoded
        d_in, nets = encoded.d_in(GENOME.encoding), len(plan.slots)
        start = initial(GENOME, d_in, encoded.n_out, [plan.seed("weights")])
        self.theta = torch.nn.Parameter(start.repeat(nets, 1))
        self.layout = shapes(GENOME, d_in, encoded.n_out)
        self.rows = kind.rows(*POOL)
        self.traits = traits(plan.slots)
        self.dropout = Dropout(GENOME.dropout, plan.seed("dropout"))

    def forward(self, batch: Tensor, extra: Tensor) -> Tensor:
        """Returns the loss of this process' share of the rows."""
        index, size = torch.cat([batch, extra], 1), batch.shape[1]
        x = self.rows.batch(index)
        out = forward(GENOME, unflatten(self.theta, self.layout), x, self.dropout)
        task = task_loss(out[:, :, :size], self.rows.y[batch], self.traits.brier)
        cells = self.plan.constraints.cells
        soft = soft_rates(out[:, :, size:].mean(1), cells)
        return (task + 0.01 * soft.sum(1)).sum()


def data_parallel(
    encoded: EncodedDataset, steps: int, process_group: ProcessGroup
) -> dict[str, Any]:
    """Trains the same nets with an all-reduce of all gradients at every step."""
    kind = GenomeNets(encoded, GENOME)
    plan = make_plan(kind, section(steps), CONSTITUTION)
    nets = Nets(plan, kind)
    model = DistributedDataParallel(nets) if process_group.size > 1 else nets
    # Every process holds all nets, so it draws the rows of all of them.
    batches = agent_batches(plan, Placement(len(plan.slots)))
    adam = Adam(nets.theta.detach(), nets.traits.weight_decay[:, None])
    clock = Clock()
    for step in range(plan.steps):
        if step % plan.config.sync_every == 0:
            clock.tick(step)
        batch, extra = batches.draw()
        share = batch.chunk(process_group.size, 1)[process_group.rank]
        cells = extra.view(len(batch), len(plan.constraints.cells), -1)
        rows = cells.chunk(process_group.size, 2)[process_group.rank].flatten(1)
        model.zero_grad()
        model(share, rows).backward()
        grad = nets.theta.grad
        assert grad is not None
        with torch.no_grad():
            adam.step(nets.theta, grad, plan.learning_rate(step))
    return clock.to_dict(process_group)


def rank(what: str, dataset: str, steps: str, out: str) -> None:
    """Runs one process."""
    process_group = GlooGroup() if int(os.environ["WORLD_SIZE"]) > 1 else SINGLE_PROCESS
    encoded = EncodedDataset(Dataset.load(dataset))
    encoded.joined(("train", "constraint"), GENOME.encoding)
    keep_freed_memory()
    with settled(1):
        run = ours if what == "ours" else data_parallel
        figures = run(encoded, int(steps), process_group)
    if process_group.rank == 0:
        Path(out).write_text(json.dumps(figures))
    process_group.close()


if __name__ == "__main__":
    rank(*sys.argv[1:])
