"""FGSM and PGD on an attempt: one and ten steps of `pgd`, from the rows themselves.

    x <- clip(x + stride eps step(grad), ball of x0)

(Goodfellow et al. 2015, arXiv:1412.6572; Madry et al. 2018, arXiv:1706.06083).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safescale_ammt.attacks.attempt import Attempt
from safescale_ammt.attacks.ball import Ball
from safescale_ammt.attacks.pgd import STEPS, STRIDE, pgd


def steps_of_pgd(
    attempt: Attempt, steps: int = STEPS, stride: float = STRIDE
) -> Tensor:
    """Returns points after projected gradient steps on the log loss.

    Args:
        attempt: the rows.
        steps: how many.
        stride: length of each, in units of the radius.
    """

    def answer(stacked: Any) -> Tensor:
        return attempt.target.answer(stacked[0])[0][None]

    ball = Ball(attempt.ball.threat, attempt.ball.centre[None], torch.ones(1))
    found: Tensor = pgd(answer, attempt.y[None], ball, steps, stride)[0]
    return found.detach()


def fgsm(attempt: Attempt) -> Tensor:
    """Returns points after one step of the whole radius."""
    return steps_of_pgd(attempt, 1, 1.0)
