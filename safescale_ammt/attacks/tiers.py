"""Tiers of the battery: which attacks there are, how long each is, and what escalates.

White-box attacks come first, the cheapest first; each is run on the rows that survive
those before it. Where a check of `sanity` is raised, slopes may be hidden, and the
attacks of `escalation` follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from safescale_ammt.attacks.advgan import advgan, fitted
from safescale_ammt.attacks.apgd import apgd, apgd_targeted
from safescale_ammt.attacks.attempt import Attack, Attempt, Classifier
from safescale_ammt.attacks.fgsm import fgsm, steps_of_pgd
from safescale_ammt.attacks.fmn import fmn
from safescale_ammt.attacks.losses import margin
from safescale_ammt.attacks.slopes import Passing, estimated, smoothed
from safescale_ammt.attacks.square import square
from safescale_ammt.attacks.surrogate import transfer
from safescale_ammt.constitution.threats import Threat

LENGTH = 4.0
"""Radii that all steps of PGD past walls are long together."""
STARTS = 10
"""Of APGD across jumps, each on the rows that those before it left."""
SPREAD = 0.25
"""Standard deviation of points around, in radii (of one number in the L2 norm's)."""


@dataclass(frozen=True)
class Tier:
    """How long attacks are.

    Attributes:
        steps: of APGD and FMN.
        restarts: of APGD.
        aims: most classes that targeted APGD drives a row to.
        queries: of Square; five times as many where it escalates.
        draws: points around a row, for smoothed slopes; eight times as many directions
            for estimated ones.
        learning: steps of the stand-in that learns the target's answers.
        fooling: steps of AdvGAN's generator, on rows of the train split; 0 is none.
        sample: rows, at most, that the checks attack.
        always: escalates whatever the checks say.
    """

    steps: int
    restarts: int
    aims: int
    queries: int
    draws: int
    learning: int
    fooling: int
    sample: int
    always: bool = False


TIERS = {
    "smoke": Tier(20, 1, 3, 100, 4, 100, 0, 100),
    "full": Tier(100, 1, 9, 1000, 8, 300, 400, 200),
    "release": Tier(100, 5, 9, 5000, 16, 1000, 2000, 500, always=True),
}


def white_box(tier: Tier) -> dict[str, Attack]:
    """Returns the attacks that follow the module's own gradient."""
    steps, restarts = tier.steps, tier.restarts
    return {
        "fgsm": fgsm,
        "pgd": steps_of_pgd,
        "apgd-ce": partial(apgd, steps=steps, restarts=restarts),
        "apgd-dlr-t": partial(
            apgd_targeted, steps=steps, aims=tier.aims, restarts=restarts
        ),
        "fmn": partial(fmn, steps=steps),
    }


def from_train(
    tier: Tier,
    target: Classifier,
    rows: Tensor | None,
    threat: Threat,
    draws: torch.Generator,
) -> dict[str, Attack]:
    """Returns the attacks that learn on rows of the train split, learnt.

    Args:
        tier: how long.
        target: what they learn to fool.
        rows: of the train split, if there are any.
        threat: what may be changed.
        draws: what learning draws from.
    """
    if rows is None or not tier.fooling:
        return {}
    generator = fitted(target, rows, threat, draws, tier.fooling)
    return {"advgan": partial(advgan, generator=generator)}


def black_box(tier: Tier, surrogates: Mapping[str, nn.Module]) -> dict[str, Attack]:
    """Returns the attacks that ask the module for answers alone."""
    found: dict[str, Attack] = {
        f"transfer {name}": partial(transfer, surrogate=module, steps=tier.steps)
        for name, module in surrogates.items()
    }
    return found | {"square": partial(square, queries=tier.queries)}


def past_walls(attempt: Attempt) -> Attempt:
    """Returns the attempt of a target whose slopes pass through what hides them."""
    return replace(attempt, target=Passing(attempt.target.module))


def escalation(tier: Tier, stand_in: nn.Module) -> dict[str, Attack]:
    """Returns the attacks for a module that hides its slopes.

    Args:
        tier: how long they are.
        stand_in: has learnt the module's answers (`distilled`).
    """

    def passing_pgd(attempt: Attempt) -> Tensor:
        # Takes each step, also where the loss that it follows shows no rise.
        return steps_of_pgd(past_walls(attempt), tier.steps, LENGTH / tier.steps)

    def passing(attempt: Attempt) -> Tensor:
        return apgd(past_walls(attempt), tier.steps, loss=margin)

    def passing_to_aims(attempt: Attempt) -> Tensor:
        return apgd_targeted(past_walls(attempt), tier.steps, tier.aims)

    def across(attempt: Attempt) -> Tensor:
        seeing = Passing(attempt.target.module, attempt.generator)
        own = replace(attempt, target=seeing)
        return apgd(own, tier.steps, STARTS, loss=margin)

    def around(attempt: Attempt) -> Tensor:
        spread = SPREAD * unit_of(attempt)
        own = smoothed(attempt.target, margin, attempt.generator, spread, tier.draws)
        return apgd(attempt, tier.steps, slopes=own)

    def by_values(attempt: Attempt) -> Tensor:
        # Over stairs that are wider than a step near the row, values are equal.
        spread, draws = unit_of(attempt), 8 * tier.draws
        own = estimated(attempt.target, margin, attempt.generator, spread, draws)
        return apgd(attempt, max(1, tier.steps // 4), slopes=own)

    return {
        "passing-pgd": passing_pgd,
        "passing": passing,
        "passing-dlr-t": passing_to_aims,
        "across": across,
        "smoothed": around,
        "stand-in": partial(transfer, surrogate=stand_in, steps=tier.steps),
        "square x 5": partial(square, queries=5 * tier.queries),
        "estimated": by_values,
    }


WHITE: Sequence[str] = ("fgsm", "pgd", "apgd-ce", "apgd-dlr-t", "fmn", "advgan")
ESCALATED_WHITE: Sequence[str] = (
    "passing-pgd",
    "passing",
    "passing-dlr-t",
    "across",
    "smoothed",
)
"""Those of the escalation that follow gradients too."""


def unit_of(attempt: Attempt) -> float:
    """Returns how far one number moves where all move alike to the ball's surface."""
    numbers = attempt.ball.centre[0].numel()
    eps = attempt.ball.threat.eps
    return eps if attempt.ball.threat.norm == "linf" else eps / float(numbers) ** 0.5
