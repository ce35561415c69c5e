"""Small problems for modules, and a section that takes a fraction of a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer

BRIEF: dict[str, Any] = {
    "num_agents": 2,
    "agent_specializations": ["generalist"],
    "steps": 30,
    "trunk_steps": 10,
    "batch_size": 32,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "ema": 0.8,
    "sync_every": 5,
    "dual_every": 5,
}


def brief(**changes: Any) -> TrainingConfig:
    """Returns the brief section, with changes."""
    return TrainingConfig.from_params({**BRIEF, **changes})


def rows(
    n: int = 240, seed: int = 0, classes: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns inputs, labels and groups; one group has the higher labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    group = torch.randint(0, 2, (n,), generator=generator)
    x[:, 3] = group
    score = x[:, 0] + 0.8 * group + 0.3 * torch.randn(n, generator=generator)
    edges = torch.linspace(-0.5, 1.0, classes - 1) if classes > 2 else torch.zeros(1)
    return x, torch.bucketize(score, edges), group


def both(n: int = 240, classes: int = 2) -> tuple[TensorDataset, TensorDataset]:
    """Returns rows for training and for validation."""
    return TensorDataset(*rows(n, 1, classes)), TensorDataset(
        *rows(max(160, n // 2), 2, classes)
    )


def net(n_out: int = 1, *layers: nn.Module) -> nn.Sequential:
    """Returns a small network, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 8), *layers, nn.ReLU(), nn.Linear(8, n_out))


def trained(model: nn.Module, *data: Any, **changes: Any) -> tuple[nn.Module, Any]:
    """Trains with the brief section; `options` are the trainer's."""
    options = changes.pop("options", {})
    promises = changes.pop("promises", None)
    trainer = SAFESCALEAMMTTrainer(brief(**changes), **options)
    given, held = data or both()
    return trainer.train(model, given, held, promises)
