"""Patience: training ends where held-out rows show no gain, to the same bits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from module_world import GAP, both, net, same, state, trained
from torch import Tensor
from torch.utils.data import TensorDataset

from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.search.trials import short_run
from safescale_ammt.training import patience as module
from safescale_ammt.training.patience import Patience
from safescale_ammt.training.placement import Placement

pytestmark = pytest.mark.usefixtures("same_start")
LONG: dict[str, Any] = {
    "steps": 4000,
    "trunk_steps": 20,
    "dual_every": 5,
    "patience": 3,
}
TUNING: dict[str, Any] = {"tune": "population", "tune_budget": 100, "tune_every": 7}


def noise() -> tuple[TensorDataset, TensorDataset]:
    """Returns rows of which nothing can be learnt for others."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for data in both():
        x, y, g = data.tensors
        drawn = torch.randint(0, 2, (len(y),), generator=generator)
        found.append(TensorDataset(x, drawn, g))
    return found[0], found[1]


def test_training_ends_where_held_out_rows_gain_nothing_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[dict[str, Any]] = []
    _, metrics = trained(net(), *noise(), **LONG, options={"log": events.append})
    (stopped,) = [event for event in events if event["event"] == "stopped"]
    assert metrics["steps"] == stopped["step"] < 1000
    assert metrics["stopped"] == stopped["reason"]
    assert "for 3 looks (training.patience)" in stopped["reason"]
    assert stopped["reason"] in [record.message for record in caplog.records]
    assert not metrics["left_out"]
    rounds = [event["step"] for event in events if event["event"] == "round"]
    assert max(rounds) == stopped["step"]
    _, whole = trained(net(), *noise(), **{**LONG, "steps": 300, "patience": 0})
    assert (whole["steps"], whole["stopped"]) == (300, "")


def test_what_still_gains_goes_on() -> None:
    settings = {**LONG, "steps": 150, "learning_rate": 0.003}
    _, metrics = trained(net(), **settings)
    assert (metrics["steps"], metrics["stopped"]) == (150, "")


@pytest.mark.parametrize("tuning", [{}, TUNING])
def test_a_patient_run_that_was_stopped_goes_on_to_the_same_end(
    tmp_path: Path, tuning: dict[str, Any]
) -> None:
    whole, one = trained(net(), *noise(), **LONG, **tuning, promises=GAP)

    def stop(event: dict[str, Any]) -> None:
        # After its first look and before its last.
        if event["event"] == "round" and event["step"] == one["steps"] - 20:
            raise KeyboardInterrupt

    settings = {**LONG, **tuning, "promises": GAP, "checkpoint_every": 1}
    options: dict[str, Any] = {"checkpoints": tmp_path, "log": stop}
    with pytest.raises(KeyboardInterrupt):
        trained(net(), *noise(), **settings, options=options)
    events: list[dict[str, Any]] = []
    options = {"checkpoints": tmp_path, "log": events.append}
    resumed, other = trained(net(), *noise(), **settings, options=options)
    assert any(e["event"] == "resumed" and e["step"] > 20 for e in events)
    assert same(state(whole), state(resumed))
    assert one["stopped"] == other["stopped"] != ""
    # A third of the steps is the monitor's burn-in.
    assert "Nothing was monitored" in one["left_out"][-1]


@pytest.mark.parametrize(
    ("figures", "ends"),
    [
        # Loss and violation at each look; two in a row without a gain end it.
        ([(0.5, 0.0), (0.4, 0.0), (0.4, 0.0), (0.4, 0.0)], 3),
        # The loss rises while the promise comes nearer.
        ([(0.5, 0.3), (0.6, 0.2), (0.7, 0.1), (0.8, 0.1), (0.9, 0.1)], 4),
        # A gain of a hundredth of a per cent is none.
        ([(0.5, 0.0), (0.49999, 0.0), (0.49998, 0.0)], 2),
        # A promise that is kept cannot be kept better.
        ([(0.5, -0.1), (0.5, -0.2), (0.5, -0.3)], 2),
        # A gain in between begins anew.
        ([(0.5, 0.0), (0.5, 0.0), (0.3, 0.0), (0.3, 0.0), (0.3, 0.0)], 4),
        # What is no number has not gained, and what follows may.
        ([(float("nan"), 0.0), (0.5, 0.0), (float("nan"), 0.0)], None),
    ],
)
def test_looks_without_a_gain_are_counted(
    figures: list[tuple[float, float]],
    ends: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = TrainingConfig(patience=2)
    plan: Any = SimpleNamespace(config=config, roles=(0, 1), steps=9)
    losses: list[Tensor] = []

    def measured(*_: object) -> Tensor:
        # The twin's loss is behind the agents', and has no say.
        return losses.pop()

    monkeypatch.setattr(module, "mean_losses", measured)
    patience, found = Patience(plan, Placement(3), [].append), None
    for step, (loss, violation) in enumerate(figures):
        losses.append(torch.tensor([loss, loss, -9.0], dtype=torch.float64))
        again = Patience(plan, Placement(3), [].append)
        again.load_state_dict(patience.state_dict())
        patience = again
        learner: Any = None
        if patience.ends(step, learner, {"gap": violation}):
            found = step
            break
    assert found == ends


def test_an_agent_without_a_loss_does_not_hide_those_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan: Any = SimpleNamespace(
        config=TrainingConfig(patience=1), roles=(0, 1), steps=9
    )
    found = iter(torch.tensor([[float("nan"), 0.5, 0.0], [float("nan"), 0.4, 0.0]]))
    monkeypatch.setattr(module, "mean_losses", lambda *_: next(found).double())
    patience = Patience(plan, Placement(3), [].append)
    learner: Any = None
    assert [patience.ends(step, learner, {}) for step in range(2)] == [False, False]


def test_patience_is_of_nets_and_of_no_short_run_of_the_search() -> None:
    with pytest.raises(ConfigError, match=r"training\.patience is -1"):
        TrainingConfig(patience=-1)
    with pytest.raises(ConfigError, match="0 with trees, which do not read it"):
        TrainingConfig(learner="trees", patience=2)
    assert short_run(TrainingConfig(patience=2), SearchConfig()).patience == 0
    assert TrainingConfig(patience=2).digest != TrainingConfig().digest
    pairs = pairwise((TrainingConfig(), TrainingConfig(patience=0)))
    assert all(a.digest == b.digest for a, b in pairs)
