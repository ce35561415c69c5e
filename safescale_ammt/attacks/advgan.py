"""AdvGAN: a network that learns to fool the target, and then needs one pass a row.

Xiao et al. 2018, arXiv:1801.02610. The generator G learns on rows of the train split,
the discriminator D to tell rows from changed ones:

    x'    = P(x + eps tanh G(x))
    L_adv = mean max(0, kappa - (max_{i != y} z_i(x') - z_y(x')) / s)
    L_gan = mean -log sigmoid D(x')
    G <- min L_adv + alpha L_gan,     D <- min -log sigmoid D(x) - log sigmoid -D(x')

P projects into the ball and the range; it stands for the paper's hinge loss, which
keeps changes small without a bound (eq. 3). y is the target's own answer to x, and s
the mean size of a batch's margins, so that large logits are not learnt faster.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from safescale_ammt.attacks.attempt import Attempt, Classifier, RowBall, rowwise
from safescale_ammt.attacks.losses import margin
from safescale_ammt.attacks.slopes import sizes
from safescale_ammt.attacks.surrogate import network, seeded
from safescale_ammt.constitution.threats import Threat

BATCH, RATE = 64, 2e-3
KAPPA, ALPHA = 0.5, 0.05
"""By how much an answer should be wrong, and the weight of looking like a row."""
GAIN = 2.0
"""Root of the mean square of what tanh is taken of, in each row."""


class Generator(nn.Module):
    """Returns a number in [-1, 1] for each number of a row.

    Args:
        shape: of a row; images are (channels, h, w).
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        if len(shape) == 3 and min(shape[1:]) >= 4:
            self.layers = nn.Sequential(
                nn.Conv2d(shape[0], 16, 4, stride=2, padding=1),
                nn.InstanceNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.InstanceNorm2d(32),
                nn.ReLU(),
                nn.Upsample(tuple(shape[1:])),
                nn.Conv2d(32, 16, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, shape[0], 3, padding=1),
            )
        else:
            d = math.prod(shape)
            layers = [nn.Flatten(), nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, d)]
            self.layers = nn.Sequential(*layers, nn.Unflatten(1, tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the numbers."""
        raw = self.layers(x)
        # Without a bound on its size tanh saturates in a few steps, and learns nothing.
        found: Tensor = torch.tanh(GAIN * raw / sizes(raw))
        return found


def changed(generator: nn.Module, ball: RowBall) -> Tensor:
    """Returns rows with the changes of a generator, inside ball and range."""
    change = generator(ball.centre)
    if ball.threat.norm == "l2":
        # A row's changes have one length together, whatever their number.
        change = change / rowwise(change.flatten(1).norm(dim=1) + 1e-12, change)
    return ball.project(ball.centre + ball.threat.eps * change)


def fitted(
    target: Classifier,
    rows: Tensor,
    threat: Threat,
    draws: torch.Generator,
    steps: int,
) -> Generator:
    """Returns a generator that has learnt to fool the target.

    Args:
        target: what is attacked; it does not change.
        rows: of the train split (n, ...); labels are what the target answers.
        threat: what may be changed.
        draws: weights and batches are drawn from it.
        steps: of Adam, on 64 rows each.
    """
    rows = rows.detach()
    made = seeded(
        draws, lambda: (Generator(rows.shape[1:]), network(rows.shape[1:], 1))
    )
    generator, judge = made[0].to(rows), made[1].to(rows)
    own, other = (
        torch.optim.Adam(net.parameters(), RATE) for net in (generator, judge)
    )
    for _ in range(steps):
        x = rows[torch.randint(0, len(rows), (BATCH,), generator=draws).to(rows.device)]
        y = target.codes(x).clamp(min=0)
        with torch.enable_grad():
            moved = changed(generator, RowBall(threat, x))
            fooled = margin(target.answer(moved)[0], y, y)
            size = fooled.detach().abs().mean().clamp(min=1e-12)
            loss = (KAPPA - fooled / size).clamp(min=0).mean()
            loss = loss + ALPHA * f.softplus(-judge(moved)).mean()
            told = f.softplus(-judge(x)) + f.softplus(judge(moved.detach()))
        for optimizer, value, net in ((own, loss, generator), (other, told, judge)):
            optimizer.zero_grad()
            torch.autograd.backward(value.mean(), inputs=list(net.parameters()))
            optimizer.step()
    return generator.eval()


@torch.no_grad()
def advgan(attempt: Attempt, generator: nn.Module) -> Tensor:
    """Returns the points of a generator that is `fitted`.

    Args:
        attempt: the rows.
        generator: what changes them.
    """
    return changed(generator, attempt.ball)
