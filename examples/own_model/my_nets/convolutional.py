"""A small convolutional net with residual blocks, for datasets of images."""

import torch
from torch import nn


class Block(nn.Module):
    """x + bn(conv(relu(bn(conv(x))))), then relu (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns images of the same size (n, width, height, width of an image)."""
        return torch.relu(x + self.inner(x))


class Net(nn.Module):
    """Convolutions at half and at a quarter of the size, then a linear answer."""

    def __init__(self, shape: tuple[int, int, int], outputs: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, stride=2, padding=1),
            nn.ReLU(),
            Block(width),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits of rows (n, pixels)."""
        return self.layers(x.view(-1, *self.shape))


def build(rows, width=16):
    """Returns the net for rows of this format."""
    if rows.image is None:
        raise ValueError("my_nets.convolutional reads images, and the rows have none")
    return Net(rows.image, rows.outputs, width)
