"""Checks of the attacks themselves, on a sample of the rows that are answered right.

zero gradient           share of rows whose margin has no slope at all
values jump             along the way to the point of the single step, slopes do not add
                        up to what the margin L changes by: d sum_k grad L(x + (k + 1/2)
                        d), k < 16, d a sixteenth of the way, is off by over a quarter
iterated < single       PGD breaks less than its single step does
not monotone            the attack breaks less in twice the ball, or more in half of it
whole range             rows survive where every input of the range is allowed
square > white box      random search breaks more than all that follow gradients
planted masks           (tier release) layers that only hide slopes, put into a network
                        that answers like the module, make it survive more

Of two attacks on the same rows, that one breaks more by over a point has to be shown by
the exact paired test at level .001 (`binomial.paired`). A check that is raised calls
for the escalation; what counts is the check after it, with slopes that pass through
what hides them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safescale_ammt.attacks.apgd import apgd, apgd_targeted
from safescale_ammt.attacks.attempt import Attempt, RowBall
from safescale_ammt.attacks.fgsm import fgsm, steps_of_pgd
from safescale_ammt.attacks.fmn import loss_and_slope
from safescale_ammt.attacks.losses import margin
from safescale_ammt.attacks.slopes import gradient
from safescale_ammt.binomial.paired import gain_p_above
from safescale_ammt.constitution.threats import Threat

TOLERANCE, LEVEL = 0.01, 0.001
"""A point of accuracy, and the level of the test that it is exceeded."""
APART, JUMPING, PIECES = 0.25, 0.05, 16
"""Error of a row's sum of slopes, share of such rows that is too large, and d's."""
ROUNDING = 1e-4
"""Share of the margins that a change of them is lost below."""
STEPS = 50
"""Steps of the attack that has the whole range."""


@dataclass(frozen=True)
class Flag:
    """What one check says.

    Attributes:
        name: of the check.
        raised: whether something is wrong with the attacks, or hidden from them.
        value: share of rows of the sample that speak for it.
        rows: of the sample.
        p: of the test; None where the value alone decides.
    """

    name: str
    raised: bool
    value: float
    rows: int
    p: float | None = None


def compared(name: str, more: Tensor, less: Tensor) -> Flag:
    """Says whether one attack breaks more rows than another that should be stronger.

    Args:
        name: of the check.
        more: rows that the attack breaks that should be the weaker (n,).
        less: rows that the other one breaks (n,).
    """
    only, other = int((more & ~less).sum()), int((less & ~more).sum())
    n = len(more)
    p = gain_p_above(only, other, n, TOLERANCE) if only > other else 1.0
    return Flag(name, p <= LEVEL, (only - other) / max(1, n), n, p)


def broken(attempt: Attempt, moved: Tensor) -> Tensor:
    """Returns which rows are answered wrong at points (B,)."""
    return attempt.target.codes(moved) != attempt.y


def under(attempt: Attempt, threat: Threat) -> Attempt:
    """Returns the attempt of the same rows under another threat."""
    return replace(attempt, ball=RowBall(threat, attempt.ball.centre))


def unsummed(attempt: Attempt, moved: Tensor) -> Tensor:
    """Returns how far slopes on the way are from what the margin changes by (B,).

    Args:
        attempt: the rows.
        moved: points (B, ...) where the ways end.

    Returns:
        |change - sum| / (|change| + |sum|); 0 where both are lost in rounding.
    """
    x = attempt.ball.centre
    way, (before, _, _) = moved - x, loss_and_slope(attempt, x)
    after, total = loss_and_slope(attempt, moved)[0], torch.zeros_like(before)
    for k in range(PIECES):
        slope = loss_and_slope(attempt, x + (k + 0.5) / PIECES * way)[2]
        total = total + (slope * way).flatten(1).sum(1) / PIECES
    change = after - before
    size = change.abs() + total.abs()
    lost = size <= ROUNDING * (before.abs() + after.abs())
    return torch.where(lost, 0.0, (change - total).abs() / size)


def checks(
    attempt: Attempt, white: Tensor, square: Tensor, past: Callable[[Attempt], Attempt]
) -> Iterator[Flag]:
    """Yields a flag for each check.

    Args:
        attempt: of the sample.
        white: rows that the attacks which follow gradients have broken (n,).
        square: rows that random search breaks (n,).
        past: returns the attempt with the slopes that attacks are to follow.
    """
    threat, seen = attempt.ball.threat, past(attempt)
    x, y = attempt.ball.centre, attempt.y
    none = (gradient(attempt.target, margin, x, y, y)[2] == 0).flatten(1).all(1)
    share = float(none.double().mean())
    yield Flag("zero gradient", share > TOLERANCE, share, len(y))
    share = float((unsummed(attempt, fgsm(attempt)) > APART).double().mean())
    yield Flag("values jump", share > JUMPING, share, len(y))
    single, iterated = (
        broken(attempt, attack(seen)) for attack in (fgsm, steps_of_pgd)
    )
    yield compared("iterated < single", single, iterated)
    for factor, name in ((0.5, "half of the ball"), (2.0, "twice the ball")):
        other = under(seen, replace(threat, eps=factor * threat.eps))
        there = broken(attempt, steps_of_pgd(other))
        small, large = (there, iterated) if factor < 1 else (iterated, there)
        yield compared(f"not monotone, {name}", small, large)
    yield compared("square > white box", square, white)
    if threat.range is not None:
        width = threat.range[1] - threat.range[0]
        whole = width * (math.sqrt(x[0].numel()) if threat.norm == "l2" else 1.0)
        free = under(seen, replace(threat, eps=whole))
        left = ~broken(attempt, apgd(free, STEPS))
        rest = left.nonzero()[:, 0]
        if len(rest):
            moved = apgd_targeted(free.part(rest), STEPS, attempt.aims.shape[1])
            left[rest] = ~broken(attempt.part(rest), moved)
        share = float(left.double().mean())
        yield Flag("whole range", share > 0, share, len(y))
