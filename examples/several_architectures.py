"""Two architectures that teach each other, and one of them comes back.

`python examples/several_architectures.py` trains agents that are a convolution and
agents that are a perceptron on scikit-learn's digits. What comes back is one module of
one of the two kinds; the metrics say of which, and what each can do alone.
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from safescale_ammt import Codistillation, SAFESCALEAMMTTrainer, TrainingConfig


class Convolution(nn.Module):
    """Takes a row of 64 numbers for an image of 8 x 8 points."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.last = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, 10) of rows (B, 64)."""
        return self.last(torch.relu(self.filters(x.view(-1, 1, 8, 8))).flatten(1))


def main(steps: int) -> float:
    """Trains both; returns the accuracy of what comes back."""
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x / 16 - 0.3, dtype=torch.float32)
    held = torch.arange(len(y)) % 4 == 0
    perceptron = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    config = TrainingConfig(
        num_agents=4, steps=steps, trunk_steps=steps // 3, batch_size=64
    )
    trainer = SAFESCALEAMMTTrainer(config, codistillation=Codistillation(weight=0.5))
    model, metrics = trainer.train(
        [Convolution(), perceptron], (x[~held], y[~held]), (x[held], y[held])
    )
    for each in metrics["architectures"]:
        print(f"{each['module']}: soup {each['soup']:.3f}, best {each['best']:.3f}")
    accuracy = metrics["final_accuracy"]
    print(f"accuracy {accuracy:.3f}, {metrics['choice']}, a {type(model).__name__}")
    return accuracy


if __name__ == "__main__":
    asked = [*map(int, sys.argv[1:])] or [300]
    main(asked[0])
