"""Sixteen agents, one module, promises in short: `python examples/basic_training.py`.

The data are made up: a score that favours one of two groups, and a label that
follows it. Every wish of the config that cannot apply here is said once.
"""

from __future__ import annotations

import asyncio
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


async def main(epochs: int = 100) -> float:
    """Trains, and returns the accuracy on the rows for validation."""
    config = TrainingConfig(
        num_agents=16,
        agent_specializations=["vision", "language", "safety", "efficiency"],
        max_epochs=epochs,
        safety_threshold=0.95,
        bias_tolerance=0.05,
        human_oversight_enabled=True,
        precision_switching_enabled=True,
        memory_threshold=0.85,
        gradient_stability_threshold=2.0,
        architecture_mutation_rate=0.1,
        evolution_frequency=50,
        tpu_pods=32,
        mixed_precision=True,
        gradient_checkpointing=True,
    )
    initial_model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    trainer = SAFESCALEAMMTTrainer(config)
    _, metrics = await trainer.train_model(
        initial_model,
        made_up(400, seed=1),
        made_up(200, seed=2),
        {"max_bias": 0.05, "min_fairness": 0.9, "adversarial_budget": 0.1},
    )
    print(f"accuracy {metrics['final_accuracy']:.3f} of the {metrics['choice']}")
    for finding in metrics["findings"]:
        print(finding["reason"])
    print(f"robust accuracy at most {metrics['robust']['accuracy']:.3f}")
    return metrics["final_accuracy"]


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
