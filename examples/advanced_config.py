"""A constitution, roles of one's own, a folder of checkpoints; images in a Dataset.

`python examples/advanced_config.py` trains a small network with batch norm on made-up
pictures of two kinds, whose brightness differs by group.
"""

from __future__ import annotations

import sys
import tempfile

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from safescale_ammt import Role, SAFESCALEAMMTTrainer, TrainingConfig

CONSTITUTION = {
    "schema": 1,
    "constitution": {"id": "pictures", "version": "1.0.0", "owner": "examples"},
    "principles": [
        {
            "id": "equal-opportunity",
            "text": "Pictures of one kind are found as often in every light.",
            "constraint": {"metric": "tpr_gap", "group": "light", "threshold": 0.3},
        },
        {
            "id": "useful",
            "constraint": {
                "metric": "accuracy",
                "reference": "unconstrained_twin",
                "delta": -0.2,
            },
        },
    ],
    "groups": {"min_n": 20, "min_pos": 10},
}
ROLES = (
    Role("careful", "the constitution: three times the weight", constraint_weight=3.0),
    Role("noisy", "pictures seen through noise", noise=0.1),
    Role("small", "small weights", weight_decay=0.1),
)


class Pictures(Dataset[tuple[Tensor, int, str]]):
    """Made-up pictures: a bar that lies or stands, by day or by night."""

    def __init__(self, rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.kind = torch.randint(0, 2, (rows,), generator=generator)
        self.night = torch.randint(0, 2, (rows,), generator=generator)
        self.at = torch.randint(0, 8, (rows,), generator=generator)
        self.noise = torch.randn(rows, 1, 8, 8, generator=generator)

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: int) -> tuple[Tensor, int, str]:
        picture = (0.4 + 0.3 * self.night[index]) * self.noise[index]
        bar = (
            picture[0, self.at[index]]
            if self.kind[index]
            else picture[0, :, self.at[index]]
        )
        bar += 1
        return picture, int(self.kind[index]), "night" if self.night[index] else "day"


def main(steps: int = 120) -> float:
    """Trains in this thread, inside a running loop too; returns the accuracy."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, 2),
    )
    config = TrainingConfig(
        num_agents=3,
        steps=steps,
        trunk_steps=steps // 3,
        batch_size=64,
        learning_rate=0.005,
        warmup_steps=10,
        checkpoint_every=1,
        sensitive=["light"],
        seed=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = SAFESCALEAMMTTrainer(config, roles=ROLES, checkpoints=folder)
        _, metrics = trainer.train(
            model, Pictures(400, 1), Pictures(200, 2), CONSTITUTION
        )
    for agent in metrics["agents"]:
        print(f"{agent['role']}: {agent['accuracy']:.3f}")
    print(f"accuracy {metrics['final_accuracy']:.3f}, device {metrics['device']}")
    print(f"may be released: {metrics['may_be_released']}")
    return metrics["final_accuracy"]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
