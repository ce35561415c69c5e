"""Devices: nets train where they are told to, and no tensor is forgotten on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from far_device import far_device
from torch import Tensor, nn
from training_world import DP, GENOME, TPR, USEFUL, brief, constitution, prepared

from safescale_ammt import SAFESCALEAMMTTrainer, TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.device import (
    find_device,
    present_device,
    present_for_tables,
    settled,
)
from safescale_ammt.model.genome import Genome
from safescale_ammt.store.folder import FileStore
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import STUDENTS, merge
from safescale_ammt.training.trainer import Trained, train

CPU = torch.device("cpu")
HEADED = Genome(widths=(16,), heads=3, dropout=0.2)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    return EncodedDataset(Dataset.load(prepared(tmp_path_factory.mktemp("loans"))))


def trained_on(
    encoded: EncodedDataset, genome: Genome, device: torch.device, **changes: Any
) -> tuple[Trained, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    nets, checkpoints = GenomeNets(encoded, genome, device), changes.pop("kept", None)
    config = brief(sharing="median", **changes)
    promises = constitution(TPR, DP, USEFUL)
    found = train(nets, config, promises, log=events.append, checkpoints=checkpoints)
    return found, events


# --- the device itself ---


def test_the_far_device_refuses_what_a_gpu_refuses() -> None:
    far = far_device()
    x = torch.ones(3, 2, device=far)
    assert torch.equal((x @ torch.ones(2, 2).to(far)).cpu(), torch.full((3, 2), 2.0))
    assert x[torch.tensor([0])].device == far
    for mixed in (
        lambda: x + torch.ones(2),
        lambda: torch.ones(3)[torch.tensor([1], device=far)],
        lambda: torch.where(x > 0, torch.ones(2), x),
        lambda: torch.cat([x, torch.ones(1, 2)]),
        x.numpy,
    ):
        with pytest.raises(RuntimeError):
            mixed()


# --- nets of a table ---


def test_nets_train_to_the_same_bits_on_a_device_that_computes_alike(
    encoded: EncodedDataset,
) -> None:
    here, events = trained_on(encoded, HEADED, CPU)
    far, far_events = trained_on(encoded, HEADED, far_device())
    assert torch.equal(here.agents, far.agents)
    assert torch.equal(here.twin, far.twin)
    assert far.agents.device == CPU
    # The log says where, and is else the same.
    assert far_events.pop(0) == {**events.pop(0), "device": "far:0"}
    assert events == far_events
    one, other = (merge(found, constitution(TPR, USEFUL)) for found in (here, far))
    assert one.model.form == other.model.form
    for name, weight in one.model.weights.items():
        assert np.array_equal(weight, other.model.weights[name])


@pytest.mark.parametrize("form", STUDENTS)
def test_the_soup_learns_on_there_to_the_same_bits(
    encoded: EncodedDataset, form: str
) -> None:
    made = [
        merge(trained_on(encoded, HEADED, device)[0], constitution(TPR), form=form)
        for device in (CPU, far_device())
    ]
    here, far = (found.model.weights for found in made)
    assert all(np.array_equal(weight, far[name]) for name, weight in here.items())


def test_a_plain_net_is_the_same_net_but_for_rounding(encoded: EncodedDataset) -> None:
    """On a processor its gradient is computed by hand, on a device by autograd."""
    roles = {"agent_specializations": ("generalist", "robust")}
    here, _ = trained_on(encoded, GENOME, CPU, **roles)
    far, _ = trained_on(encoded, GENOME, far_device(), **roles)
    assert torch.allclose(here.agents, far.agents, rtol=1e-2, atol=1e-3)


def test_a_run_on_a_device_goes_on_from_its_checkpoint(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    whole, _ = trained_on(encoded, HEADED, far_device())
    store = FileStore(tmp_path / "kept")

    def stopped(event: dict[str, Any]) -> None:
        if event.get("event") == "round" and event["step"] > 30:
            raise KeyboardInterrupt

    nets, config = GenomeNets(encoded, HEADED, far_device()), brief(sharing="median")
    promises = constitution(TPR, DP, USEFUL)
    kept = Checkpoints(store, every=1, run={"a": "run"})
    with pytest.raises(KeyboardInterrupt):
        train(nets, config, promises, log=stopped, checkpoints=kept)
    again, events = trained_on(
        encoded,
        HEADED,
        far_device(),
        kept=Checkpoints(store, every=1, run={"a": "run"}),
    )
    assert any(event["event"] == "resumed" for event in events)
    assert torch.equal(again.agents, whole.agents)


# --- modules ---


class Normed(nn.Sequential):
    """With running statistics, which are buffers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.1), nn.Linear(12, 2)
        )


def table(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=draw)
    group = (torch.rand(rows, generator=draw) < 0.4).long()
    return x, (x[:, 0] + 0.5 * group > 0).long(), group


@pytest.mark.parametrize("execution", ["loop", "stacked"])
def test_a_module_trains_to_the_same_bits_there(execution: str) -> None:
    def trained(device: torch.device) -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
        module = plain if execution == "stacked" else Normed()
        config = TrainingConfig(
            num_agents=2,
            agent_specializations=("safety", "robust"),
            max_epochs=3,
            batch_size=32,
            execution=execution,
        )
        # A processor that is called a GPU, or the device: the same choice both times.
        here = {"cuda": device}.get
        trainer = SAFESCALEAMMTTrainer(config, present=here)
        promises = {"max_bias": 0.1, "adversarial_budget": 0.1}
        return trainer.train(module, table(240, 0), table(160, 1), promises)

    (here, one), (far, other) = trained(CPU), trained(far_device())
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, far.state_dict()[name].cpu()), name
    assert one["final_accuracy"] == other["final_accuracy"]
    assert one["robust"] == other["robust"]


# --- which one ---


def test_tables_leave_a_tpu_and_an_unnamed_apple_gpu_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    assert find_device("auto", present_for_tables("auto"))[0] == "cpu"
    assert find_device("mps", present_for_tables("mps"))[0] == "mps"
    kind, _, said = find_device("tpu", present_for_tables("tpu"))
    assert (kind, said) == ("cpu", "No tpu is there: training uses the cpu.")


def test_processes_of_one_machine_take_its_devices_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for rank, device in (("0", "cuda:0"), ("1", "cuda:1"), ("2", "cuda:0")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert str(present_device("cuda")) == device
    # Without it products of a GPU have no deterministic form.
    assert find_device("auto", present_for_tables("auto"))[0] == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_what_has_no_deterministic_form_ends_a_run_on_processors_alone() -> None:
    # A trainer that is prepared by itself leaves torch warning, as a caller may.
    torch.set_deterministic_debug_mode("default")
    with settled(1):
        assert torch.get_deterministic_debug_mode() == 2
        with settled(1, torch.device("cuda")):
            assert torch.get_deterministic_debug_mode() == 1
            # A caller has said so for all that it calls.
            with settled(1):
                assert torch.get_deterministic_debug_mode() == 1
        assert torch.get_deterministic_debug_mode() == 2
    assert torch.get_deterministic_debug_mode() == 0
