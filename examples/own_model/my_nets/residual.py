"""A residual net with layer norm (Gorishniy et al. 2021, arXiv:2106.11959)."""

import torch
from torch import nn


class Block(nn.Module):
    """x + W2 dropout(relu(W1 norm(x)))."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns rows of the same width (n, width)."""
        return x + self.inner(x)


def build(rows, width=48, blocks=2, dropout=0.1):
    """Returns the net for rows of this format."""
    return nn.Sequential(
        nn.Linear(rows.inputs, width),
        *(Block(width, 2 * width, dropout) for _ in range(blocks)),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Linear(width, rows.outputs),
    )
