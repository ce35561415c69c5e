"""What a process shares with other code of it is as before, however a call ends."""

from __future__ import annotations

import random
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from module_world import BRIEF, GAP, both, brief, rows
from torch import Tensor, nn
from torch.utils import deterministic

from safescale_ammt import (
    AdaptivePrecisionEngine,
    ConstitutionalSafetyLayer,
    SAFESCALEAMMTTrainer,
    Threat,
    run_battery,
)
from safescale_ammt.errors import InputError
from safescale_ammt.model.device import settled
from safescale_ammt.modules.trainer import read_both

pytestmark = pytest.mark.usefixtures("same_start")


class Watched(nn.Linear):
    """Asks somebody before each answer, and draws from each generator."""

    def __init__(self, asked: Callable[[], None]) -> None:
        super().__init__(4, 1)
        self.asked = asked
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        self.asked()
        torch.rand(1)
        random.random()
        np.random.rand()  # noqa: NPY002
        return super().forward(self.dropout(x))

    def __deepcopy__(self, memo: dict[int, Any]) -> Watched:
        copy = Watched(self.asked)
        copy.load_state_dict(self.state_dict())
        return copy.train(self.training)


GENERATORS = ("torch", "numpy", "python")


def shared() -> dict[str, Any]:
    """Returns everything of the process that a call might leave changed."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "mode": torch.get_deterministic_debug_mode(),
        "fills": getattr(deterministic, "fill_uninitialized_memory"),  # noqa: B009
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)],
    }


def trains(model: nn.Module) -> None:
    config = brief(threads=2, steps=12, trunk_steps=4)
    SAFESCALEAMMTTrainer(config).train(model, *both(), GAP)


def prepares(model: nn.Module) -> None:
    given = read_both(*((data, None) for data in both()), ())
    SAFESCALEAMMTTrainer(brief(threads=2)).prepare([model], given, GAP)


def attacks(model: nn.Module) -> None:
    x, y, _ = rows(40)
    run_battery(model, x, y, Threat("linf", 0.1), tier="smoke")


def penalises(model: nn.Module) -> None:
    x, y, group = rows()
    layer = ConstitutionalSafetyLayer(GAP)
    for _ in range(2):
        layer.update(model(x), y, {"group": group})
        layer.penalty(model(x), y, {"group": group}).backward()


def measures(model: nn.Module) -> None:
    engine = AdaptivePrecisionEngine(mixed=True)
    with engine.autocast():
        model(rows()[0])


ENTRIES = {f.__name__: f for f in (trains, prepares, attacks, penalises, measures)}


class Ill(Exception):
    """What a user's own code may raise."""


@pytest.fixture
def unusual() -> Any:
    """Sets what is shared as nobody would guess, for the test alone."""
    kept = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(kept[0])
    torch.set_deterministic_debug_mode(kept[1])


@pytest.mark.parametrize("mode", ["default", "warn", "error"])
@pytest.mark.parametrize("trouble", [None, Ill, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.usefixtures("unusual")
def test_what_the_process_shares_is_as_before(
    entry: str, trouble: type[BaseException] | None, mode: str
) -> None:
    torch.set_deterministic_debug_mode(mode)
    calls, last = 0, 0

    def asked() -> None:
        nonlocal calls
        calls += 1
        if trouble and calls == last:
            raise trouble

    def run() -> None:
        nonlocal calls
        calls = 0
        ENTRIES[entry](model)

    model = Watched(asked)
    before = shared()
    # Where the loop is the user's, a module draws on as it does anywhere.
    drawn = set() if entry in ("trains", "prepares") else {*GENERATORS}
    # At the first answer, at the second and far inside.
    for last in (1, 2, 7):
        wrong = (trouble, InputError) if trouble else ()
        with suppress(*wrong):
            run()
        assert not trouble or calls <= last
        after = shared()
        for key in before.keys() - drawn:
            assert after[key] == before[key], (key, last)


@pytest.mark.usefixtures("unusual")
def test_the_training_does_set_what_it_puts_back() -> None:
    seen: list[dict[str, Any]] = []
    trains(Watched(lambda: seen.append(shared())))
    assert {one["threads"] for one in seen} == {2}
    assert {one["mode"] for one in seen} == {1}
    assert torch.get_num_threads() == 3


def test_a_length_of_threads_that_torch_refuses_changes_nothing() -> None:
    before = shared()
    with pytest.raises(RuntimeError), settled(-1):
        pass
    assert shared() == before


@pytest.mark.filterwarnings("ignore:put_ does not have a deterministic")
def test_preparing_alone_takes_layers_without_a_deterministic_form() -> None:
    assert BRIEF["num_agents"] == 2
    torch.set_deterministic_debug_mode("error")
    try:
        prepares(nn.Sequential(Hard(), nn.Linear(4, 1)))
    finally:
        torch.set_deterministic_debug_mode("default")


class Hard(nn.Module):
    """Answers by an operation of which torch has no deterministic form."""

    def forward(self, x: Tensor) -> Tensor:
        torch.empty(2).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
        return x
