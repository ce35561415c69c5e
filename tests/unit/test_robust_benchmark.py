"""The benchmark of robust error: its attacks, and its goals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.robust_error import (
    ATTACKS,
    LEAST,
    THREAT,
    answer_of,
    figures,
    scored,
    splits,
)
from safescale_ammt.attacks.ball import Ball


@pytest.mark.parametrize("name", ["pgd-2", "fgsm"])
def test_the_other_attacks_stay_in_the_ball_and_raise_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    x, y = (part[:50] for part in splits(0)[0])
    ball = Ball(THREAT, x[None], torch.ones(1))
    moved = ATTACKS[name](answer_of(model), y[None], ball, [])[0]
    assert float((moved - x).abs().max()) <= THREAT.eps + 1e-6
    assert (float(moved.min()), float(moved.max())) == (0.0, 1.0)
    with torch.no_grad():
        losses = [float(nn.functional.cross_entropy(model(z), y)) for z in (x, moved)]
    assert losses[1] > losses[0]
    found = scored(model, 0, ATTACKS[name])
    assert found["robust"] <= found["inner"] <= found["clean"]


def test_goals_are_those_of_the_promise_and_may_be_missed() -> None:
    raw = [
        {"seed": 1, "way": way, "clean": 0.9, "robust": robust, "inner": 0.6}
        for way, robust in (("plain", 0.1), ("promised", 0.5), ("fgsm", 0.4))
    ]
    goals = [row for row in figures(raw) if row["goal"] is not None]
    assert [row["what"].split(":")[0] for row in goals] == ["promised"] * 2
    assert (goals[0]["goal"], goals[0]["value"]) == (LEAST, 0.5)
