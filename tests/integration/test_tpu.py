"""Modules on a TPU: on a stand-in always, and with `pytest --tpu` on one that is there.

The stand-in is `far_device`, under the TPU's name: what it shows is that the trainer
asks for the device, moves to it and comes back, and nothing of how a TPU computes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from far_device import far_device
from torch import Tensor, nn

from safescale_ammt import SAFESCALEAMMTTrainer, TrainingConfig
from safescale_ammt.model.device import present_device

Present = Callable[[str], torch.device | None]
SETTINGS: dict[str, Any] = {
    "device": "tpu",
    "num_agents": 2,
    "steps": 60,
    "trunk_steps": 20,
    "batch_size": 64,
    "learning_rate": 0.01,
    "sync_every": 10,
    "dual_every": 10,
    "ema": 0.9,
}


@pytest.fixture(params=["stand-in", "tpu"])
def present(request: pytest.FixtureRequest) -> Present:
    """What finds the devices: the stand-in alone, or torch_xla's TPU."""
    if request.param == "stand-in":
        return {"tpu": far_device(), "cpu": torch.device("cpu")}.get
    if not request.config.getoption("--tpu"):
        pytest.skip("a TPU is tried by pytest --tpu alone")
    if present_device("tpu") is None:
        pytest.skip("--tpu: torch_xla does not import here, or reaches no TPU")
    return present_device


class Remembering(nn.Linear):
    """Remembers which devices its inputs lay on."""

    seen: set[str]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(str(x.device))
        return super().forward(x)


def net() -> tuple[nn.Module, set[str]]:
    torch.manual_seed(0)
    first = Remembering(4, 8)
    first.seen = Seen()
    return nn.Sequential(
        first, nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1)
    ), first.seen


class Seen(set[str]):
    """A set that copies of a module share."""

    def __deepcopy__(self, memo: Any) -> Seen:
        return self


def rows(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    group = torch.randint(0, 2, (n,), generator=generator)
    return x, (x[:, 0] + 0.5 * group > 0.2).long(), group


def train(present: Present, **options: Any) -> tuple[nn.Module, Any, set[str]]:
    model, seen = net()
    config = TrainingConfig(**{**SETTINGS, **options.pop("settings", {})})
    trainer = SAFESCALEAMMTTrainer(config, present=present, **options)
    promises = {"max_bias": 0.3, "adversarial_budget": 0.05}
    return *trainer.train(model, rows(400, 1), rows(240, 2), promises), seen


def test_a_module_trains_on_the_device_and_comes_back(present: Present) -> None:
    found, metrics, seen = train(present)
    assert metrics["device"] == "tpu"
    assert str(present("tpu")) in seen
    assert {tensor.device.type for tensor in found.state_dict().values()} == {"cpu"}
    x, y, _ = rows(240, 2)
    accuracy = float(((found(x)[:, 0] >= 0).long() == y).double().mean())
    assert accuracy == pytest.approx(metrics["final_accuracy"], abs=0.02)
    assert accuracy > 0.7
    assert metrics["robust"]["accuracy"] <= metrics["final_accuracy"]


def test_a_seed_says_it_all_on_the_device_and_so_does_a_checkpoint(
    present: Present, tmp_path: Path
) -> None:
    first, again = (train(present)[0].state_dict() for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["step"] == 40:
            raise KeyboardInterrupt

    kept: dict[str, Any] = {
        "checkpoints": tmp_path,
        "settings": {"checkpoint_every": 1},
    }
    with pytest.raises(KeyboardInterrupt):
        train(present, log=stop, **kept)
    resumed = train(present, **kept)[0].state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.parametrize("fewer", ["mixed_precision", "gradient_checkpointing"])
def test_what_takes_less_time_or_memory_trains_on_the_device(
    fewer: str, present: Present
) -> None:
    if fewer == "mixed_precision" and present is not present_device:
        pytest.skip("torch has no autocast for the stand-in")
    _, metrics, _ = train(present, settings={fewer: True})
    assert metrics["device"] == "tpu"
    assert metrics["final_loss"] < 0.8


@pytest.mark.parametrize(
    ("option", "library", "says"),
    [
        ((), "", "2 skipped"),
        (("--tpu",), "", "torch_xla does not import here"),
        # A library that calls this processor its device: the tests run on it.
        (
            ("--tpu",),
            "import torch\n\ndef device():\n    return torch.device('cpu')",
            "",
        ),
    ],
)
def test_the_option_tries_a_tpu_or_says_that_it_skips(
    option: tuple[str, ...], library: str, says: str, tmp_path: Path
) -> None:
    if library:
        (tmp_path / "torch_xla.py").write_text(library)
    elif present_device("tpu") is not None:
        pytest.skip("a TPU is there")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    chosen = "tpu and (comes_back or memory)"
    command = [*("-m", "pytest", "-n0", "-p", "no:cacheprovider", __file__), *option]
    done = subprocess.run(
        [sys.executable, *command, "-k", f"{chosen} and not stand-in and not mixed"],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": path},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout
    assert says in done.stdout
    assert ("2 passed" in done.stdout) == bool(library)
