"""Transfer: what another network is fooled by, a stand-in of the target's own too.

The stand-in learns the target's answers at points of the ball around the rows, half of
them moved against itself (Papernot et al. 2017, arXiv:1602.02697): whatever hides the
target's slopes, those of a network that answers alike are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from safescale_ammt.attacks.apgd import climb
from safescale_ammt.attacks.attempt import Attempt, Classifier
from safescale_ammt.attacks.losses import Loss, cross_entropy, margin
from safescale_ammt.attacks.slopes import exact, lent

BATCH, RATE = 64, 2e-3
Made = TypeVar("Made")


def transfer(
    attempt: Attempt, surrogate: nn.Module, steps: int, loss: Loss = cross_entropy
) -> Tensor:
    """Returns points that APGD finds with the slopes of another network.

    Args:
        attempt: the rows.
        surrogate: answers the same rows with as many classes, `deployed`.
        steps: of the climb.
        loss: what is made larger there.
    """
    slopes = lent(Classifier(surrogate), attempt.target, loss)
    start = attempt.ball.start(attempt.generator)
    return climb(attempt, slopes, attempt.aims[:, 0], start, steps)


def network(shape: torch.Size, classes: int) -> nn.Sequential:
    """Returns a small network for images (channels, h, w) or other rows."""
    if len(shape) == 3 and min(shape[1:]) >= 4:
        flat = 32 * math.ceil(shape[1] / 4) * math.ceil(shape[2] / 4)
        return nn.Sequential(
            nn.Conv2d(shape[0], 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, classes),
        )
    d = math.prod(shape)
    layers = [nn.Flatten(), nn.Linear(d, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, classes))


def seeded(generator: torch.Generator, make: Callable[[], Made]) -> Made:
    """Returns what a call makes whose weights are drawn by a generator's next number.

    Args:
        generator: one number is drawn from it.
        make: the call.
    """
    seed = int(torch.randint(0, 2**31, (1,), generator=generator))
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return make()


def distilled(attempt: Attempt, steps: int) -> nn.Sequential:
    """Returns a network that has learnt what the target answers in the balls.

    Args:
        attempt: the rows, all that are attacked.
        steps: of Adam, on 64 points each.
    """
    generator, centre = attempt.generator, attempt.ball.centre
    classes = attempt.aims.shape[1] + 1
    model = seeded(generator, lambda: network(centre.shape[1:], classes)).to(centre)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    own = exact(Classifier(model), margin)
    for _ in range(steps):
        at = torch.randint(0, len(centre), (BATCH,), generator=generator)
        part = attempt.part(at)
        x = part.ball.start(generator)
        # Halfway in at random, so that the rows' own surroundings are learnt as well.
        share = torch.rand((BATCH, *[1] * (x.dim() - 1)), generator=generator).to(x)
        x = part.ball.centre + share * (x - part.ball.centre)
        slopes = own(x, part.y, part.y)[2]
        moved = part.ball.moved(x, slopes, 0.5)
        x = torch.where(share > 0.5, moved, x)
        optimizer.zero_grad()
        with torch.enable_grad():
            answers = attempt.target.codes(x).clamp(min=0)
            loss = f.cross_entropy(model(x), answers)
        torch.autograd.backward(loss)
        optimizer.step()
    return model.eval()
