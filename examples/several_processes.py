"""Agents in two processes: `torchrun --nproc-per-node 2 examples/several_processes.py`.

By itself the script trains the same model, to the last bit, in one process. Each
process builds the model and reads all rows; the trainer does the rest.
"""

from __future__ import annotations

import hashlib
import os
import sys

import torch
from torch import nn
from torch.utils.data import TensorDataset

from safescale_ammt import SAFESCALEAMMTTrainer, TrainingConfig


def made_up(rows: int, seed: int) -> TensorDataset:
    """Returns inputs, labels and groups."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator)
    group = (torch.rand(rows, generator=generator) < 0.4).long()
    noise = 0.5 * torch.randn(rows, generator=generator)
    return TensorDataset(x, (x[:, 0] + 0.8 * group + noise > 0.3).long(), group)


def main(steps: int = 300, checkpoints: str | None = None) -> None:
    """Trains; each process prints what it has, which is the same."""
    torch.manual_seed(0)
    initial_model = nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(16, 1),
    )
    config = TrainingConfig(num_agents=4, steps=steps, trunk_steps=steps // 3)
    trainer = SAFESCALEAMMTTrainer(config, checkpoints=checkpoints)
    model, metrics = trainer.train(
        initial_model, made_up(600, seed=1), made_up(300, seed=2), {"max_bias": 0.1}
    )
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.double().numpy().tobytes())
    print(
        f"process {int(os.environ.get('RANK', '0')) + 1} of {metrics['processes']}: "
        f"accuracy {metrics['final_accuracy']:.3f}, weights {digest.hexdigest()[:12]}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
