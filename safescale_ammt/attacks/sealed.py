"""Sealed: the battery on a released model, whose own definition has the last word."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.attacks.battery import run_battery
from safescale_ammt.attacks.outcome import VERSION
from safescale_ammt.attacks.released import check_same, module_of
from safescale_ammt.constitution.image_threats import ImageThreat
from safescale_ammt.judging.batteries import BatteryRecord, CheckRecord
from safescale_ammt.model.predictor import Deployable

COMPARED = 256
"""Rows on which the two forms of a model are compared before an attack."""


def attacked(
    model: Deployable,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    threat: ImageThreat,
    seed: bytes,
) -> tuple[NDArray[np.int64], BatteryRecord]:
    """Attacks rows that a model answers right.

    Args:
        model: the model.
        x: encoded rows (n, width), in [0, 1].
        y: their labels, class codes (n,).
        threat: with a tier.
        seed: of all draws.

    Returns:
        Number of the attack that broke a row, -1 of one that stands (n,), and what is
        kept of the battery.

    Raises:
        InputError: the model has no slopes, or torch's form of it departs from it.
    """
    module = module_of(model)
    if not len(x):
        nobody = BatteryRecord(threat.name, VERSION, seed.hex(), (), False, ())
        return np.zeros(0, np.int64), nobody
    # Before an hour of attacks, not after it.
    check_same(module, model, x[:COMPARED])

    def confirmed(points: Tensor, labels: Tensor) -> Tensor:
        # What a row is answered is defined without torch.
        answers = model.answer(points.numpy()).prediction
        return torch.from_numpy(answers) != labels

    outcome = run_battery(
        module,
        torch.from_numpy(np.asarray(x, np.float32)),
        torch.from_numpy(np.asarray(y, np.int64)),
        threat.ball,
        tier=threat.tier,
        secret=seed,
        confirmed=confirmed,
    )
    checks = tuple(
        CheckRecord(flag.name, flag.raised, flag.value, flag.rows, flag.p)
        for flag in outcome.flags
    )
    kept = BatteryRecord(
        threat.name, VERSION, seed.hex(), outcome.attacks, outcome.escalated, checks
    )
    return outcome.broken_by, kept
