"""Sealed: the battery on a released model, whose own definition has the last word."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.attacks.battery import run_battery
from safescale_ammt.attacks.outcome import VERSION
from safescale_ammt.attacks.released import check_same, module_of
from safescale_ammt.constitution.image_threats import ImageThreat
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.judging.batteries import BatteryRecord, CheckRecord
from safescale_ammt.model.predictor import Deployable

DRAWN, ASKED = "drawn points", 16
"""The attack on the released form itself, and the points that it asks of each row."""
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
        answers = model.answer(points.numpy())
        # An answer that is no number is right for no label.
        lost = torch.from_numpy(~np.isfinite(answers.score))
        return (torch.from_numpy(answers.prediction) != labels) | lost

    outcome = run_battery(
        module,
        torch.from_numpy(np.asarray(x, np.float32)),
        torch.from_numpy(np.asarray(y, np.int64)),
        threat.ball,
        tier=threat.tier,
        secret=seed,
        confirmed=confirmed,
    )
    # Slopes are followed in torch's form of the model: where the two part ways, away
    # from rows of data, nobody but the released form would say so.
    broken_by = np.array(outcome.broken_by)
    standing = np.flatnonzero(broken_by < 0)
    points = drawn_points(x[standing], threat.ball, seed)
    for moved in points:
        wrong = confirmed(torch.from_numpy(moved), torch.from_numpy(y[standing]))
        broken_by[standing[wrong.numpy()]] = len(outcome.attacks)
    checks = tuple(
        CheckRecord(flag.name, flag.raised, flag.value, flag.rows, flag.p)
        for flag in outcome.flags
    )
    kept = BatteryRecord(
        threat.name,
        VERSION,
        seed.hex(),
        (*outcome.attacks, DRAWN),
        outcome.escalated,
        checks,
    )
    return broken_by, kept


def drawn_points(
    x: NDArray[np.float32], ball: Threat, seed: bytes
) -> Iterator[NDArray[np.float32]]:
    """Yields points of the balls around rows, at random, half of them in corners.

    Args:
        x: rows (n, width), in [0, 1].
        ball: norm and radius.
        seed: of the draws.
    """
    rng = np.random.default_rng(list(seed))
    for i in range(ASKED):
        way = rng.uniform(-1, 1, x.shape)
        if ball.norm == "l2":
            way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-12)
        elif i % 2:
            way = np.sign(way)
        # A little less than the radius, whatever float32 makes of it.
        moved = np.clip(x + ball.eps * (1 - 1e-5) * way, 0, 1)
        yield moved.astype(np.float32)
