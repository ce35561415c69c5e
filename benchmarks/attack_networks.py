"""The networks that attacks are held against, trained here, the most telling first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from safescale_ammt.attacks.ball import Ball
from safescale_ammt.attacks.interval_bounds import bounds
from safescale_ammt.attacks.pgd import pgd
from safescale_ammt.attacks.planted import (
    Detached,
    Noise,
    Quantised,
    Saturated,
    Winners,
)
from safescale_ammt.constitution.threats import Threat

BATCH, RATE = 128, 2e-3
Loss = Callable[[nn.Module, Tensor, Tensor, Threat, float], Tensor]


def plain(middle: Callable[[], nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Returns the layers of a small network, two of them what is asked for."""
    return [
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), middle()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), middle()),
        *(nn.Flatten(), nn.Linear(32 * 49, 10)),
    ]


def clean(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, at: float) -> Tensor:
    """Returns the log loss of rows as they are."""
    del threat, at
    return f.cross_entropy(model(x), y)


def attacked(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, at: float
) -> Tensor:
    """Returns the log loss of rows after three steps of PGD (Madry et al. 2018)."""
    ball = Ball(threat, x[None], torch.full((1,), min(1.0, 2 * at)))
    moved = pgd(lambda part: model(part[0])[None], y[None], ball, 3, 0.5)
    return f.cross_entropy(model(moved[0]), y)


def bounded(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, at: float
) -> Tensor:
    """Returns half of the log loss, and half of that of its worst interval bounds."""
    radius = threat.eps * min(1.0, 2 * at)
    low, high = bounds(model, (x - radius).clamp(0, 1), (x + radius).clamp(0, 1))
    own = f.one_hot(y, 10).bool()
    worst = f.cross_entropy(torch.where(own, low, high), y)
    return (f.cross_entropy(model(x), y) + worst) / 2


def quantised(layers: list[nn.Module]) -> list[nn.Module]:
    """Rounds the input."""
    return [Quantised(), *layers]


def saturated(layers: list[nn.Module]) -> list[nn.Module]:
    """Multiplies the logits."""
    return [*layers, Saturated()]


def detached(layers: list[nn.Module]) -> list[nn.Module]:
    """Cuts slopes off behind the first layer."""
    return [*layers[:2], Detached(), *layers[2:]]


def noisy(layers: list[nn.Module]) -> list[nn.Module]:
    """Adds what looks like noise to the input."""
    return [Noise(), *layers]


def unchanged(layers: list[nn.Module]) -> list[nn.Module]:
    """Returns the layers as they are."""
    return layers


Mask = Callable[[list[nn.Module]], list[nn.Module]]
NETWORKS: dict[str, tuple[Mask, Loss, Callable[[], nn.Module], int]] = {
    "undefended": (unchanged, clean, nn.ReLU, 2000),
    "adversarial": (unchanged, attacked, nn.ReLU, 1000),
    "quantised": (quantised, clean, nn.ReLU, 2000),
    "saturated": (saturated, clean, nn.ReLU, 2000),
    "detached": (detached, clean, nn.ReLU, 2000),
    "winners": (unchanged, clean, Winners, 1000),
    "noise": (noisy, clean, nn.ReLU, 2000),
    "bounded": (unchanged, bounded, nn.ReLU, 1500),
}
"""By name: the mask planted after training, loss, activation and steps."""
MASKED = ("quantised", "saturated", "detached", "winners", "noise")
"""Networks that nothing defends, though their slopes are hidden."""


def network(name: str, x: Tensor, y: Tensor, threat: Threat, seed: int) -> nn.Module:
    """Trains a network on rows (n, 1, 28, 28), and plants its mask.

    Args:
        name: one of `NETWORKS`.
        x: rows.
        y: labels (n,).
        threat: that it is defended against.
        seed: of weights and batches.
    """
    mask, loss, middle, steps = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layers = plain(middle)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        at = torch.randint(0, len(y), (BATCH,), generator=generator)
        value = loss(model, x[at], y[at], threat, step / steps)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        cosine.step()
    return nn.Sequential(*mask(layers)).eval()
