"""A model and a loss of one's own, numbers to predict, and a loop of one's own.

`python examples/custom_models.py` trains a model with tied weights and a buffer on
arrays under a loss of its own, and then steers a plain torch loop by a safety layer.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor, nn

from safescale_ammt import (
    ConstitutionalSafetyLayer,
    SAFESCALEAMMTTrainer,
    TrainingConfig,
)


class Tied(nn.Module):
    """Two layers that share one matrix, behind a scale that it keeps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.last = nn.Linear(width, 1)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns one number for each row; in training the scale follows the rows."""
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * x.abs().mean(0)
        h = torch.relu(self.first(x / self.scale))
        return self.last(torch.relu(self.second(h)))


def numbers(steps: int) -> float:
    """Predicts numbers under a loss that forgives large errors; returns R2."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6))
    y = 2 * x[:, 0] - np.abs(x[:, 1]) + 0.1 * rng.normal(size=500)
    config = TrainingConfig(
        num_agents=2, steps=steps, trunk_steps=steps // 3, learning_rate=0.01
    )
    trainer = SAFESCALEAMMTTrainer(config, loss=nn.HuberLoss())
    _, metrics = trainer.train(Tied(6), (x[:400], y[:400]), (x[400:], y[400:]))
    print(f"R2 {metrics['final_r2']:.3f} of the {metrics['choice']}")
    return metrics["final_r2"]


def own_loop(steps: int) -> float:
    """Trains by torch alone; the layer's penalty closes the gap. Returns the gap."""
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(0, 2, (2000,), generator=generator)
    x = torch.randn(2000, 4, generator=generator) + group[:, None]
    label = (x[:, 0] + torch.randn(2000, generator=generator) > 0.5).long()
    fitted, held = slice(0, 1000), slice(1000, 2000)
    model = nn.Linear(4, 1)
    layer = ConstitutionalSafetyLayer({"max_bias": 0.1})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):
        if step % 10 == 0:
            gaps = layer.update(model(x[held]), label[held], {"sex": group[held]})
        logits = model(x[fitted])[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, label[fitted].float()
        )
        loss = loss + layer.penalty(logits, label[fitted], {"sex": group[fitted]})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prediction = (model(x[held])[:, 0] >= 0).long()
    for finding in layer.findings(prediction, label[held], {"sex": group[held]}):
        print(finding.reason)
    return max(gaps.values()) + 0.1


if __name__ == "__main__":
    asked = [*map(int, sys.argv[1:])] or [300]
    numbers(asked[0])
    own_loop(asked[0])
