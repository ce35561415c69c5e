"""Several processes train as one does: bit for bit, and they end together."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from spread_world import CASES, NARROW_CASES, Outcome, ended, load, outcome, start
from training_world import brief, prepared

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.learner import task_loss
from safescale_ammt.training.placement import Placement, ProcessGroup


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)


@pytest.fixture(scope="module")
def encoded(dataset: Path) -> EncodedDataset:
    return EncodedDataset(Dataset.load(dataset))


@pytest.fixture(scope="module", params=[2, 4])
def spread_out(
    request: Any, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """All cases, trained by two processes and by four."""
    out = tmp_path_factory.mktemp("spread")
    said = ended(start(request.param, str(dataset), str(out)))
    assert said == [(0, "")] * request.param
    return out


@pytest.fixture(scope="module")
def alone(encoded: EncodedDataset) -> Callable[[str], Outcome]:
    """What one process gives, each case trained once."""
    return cache(lambda name: outcome(encoded, {**CASES, **NARROW_CASES}[name]))


@pytest.mark.parametrize("name", CASES)
def test_processes_train_what_one_process_trains_bit_for_bit(
    name: str, spread_out: Path, alone: Callable[[str], Outcome]
) -> None:
    one, several = alone(name), load(spread_out, name)
    assert several.sentence == one.sentence
    assert several.tensors.keys() == one.tensors.keys()
    for key, tensor in one.tensors.items():
        assert torch.equal(several.tensors[key], tensor), key
    assert several.events == one.events


@pytest.mark.parametrize("name", NARROW_CASES)
def test_widths_that_fill_no_vector_register_agree_within_rounding(
    name: str, spread_out: Path, alone: Callable[[str], Outcome]
) -> None:
    one, several = alone(name), load(spread_out, name)
    for key, tensor in one.tensors.items():
        close = {"rtol": 0.0, "atol": 1e-5}
        torch.testing.assert_close(several.tensors[key], tensor, **close)


def test_the_cases_hold_agents_that_are_lost_and_a_run_without_quorum(
    alone: Callable[[str], Outcome],
) -> None:
    assert [e for e in alone("lost").events if e.get("lost")]
    assert "had no finite gradient" in alone("hopeless").sentence


@pytest.mark.parametrize(
    ("signum", "patience"), [(signal.SIGKILL, "600"), (signal.SIGSTOP, "10")]
)
def test_a_process_that_dies_or_hangs_ends_the_others_in_one_sentence(
    dataset: Path, signum: signal.Signals, patience: str
) -> None:
    names = ["plain"] * 200
    processes = start(2, str(dataset), "nowhere", *names, PATIENCE=patience)
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(0.3)
    processes[1].send_signal(signum)
    code, sentence = ended(processes[:1])[0]
    processes[1].kill()
    ended(processes[1:])
    assert code == 1
    assert sentence.startswith("Training lost touch with another of its processes")


# --- the section ---

BAD = [
    ({"processes": 2}, "training.processes is 2, expected 1 with backend local"),
    ({"processes": 5}, "expected 1 to 4, a net for each: 3 agents and the twin"),
    ({"processes": 0}, "training.processes is 0"),
    ({"processes": 2.5}, "training.processes must be a whole number"),
    ({"backend": "mpi"}, "training.backend"),
    ({"backend": "torchrun", "processes": 2, "nodes": 2}, "nodes is 2, expected 1"),
    (
        {"backend": "trainjob", "processes": 3, "nodes": 2},
        r"nodes is 2, expected a divisor of training.processes \(3\)",
    ),
    ({"runtime": ""}, "training.runtime is '', expected a Kubernetes name"),
    ({"queue": "Team A"}, "training.queue is 'Team A', expected a Kubernetes name"),
    ({"checkpoint_every": -1}, "training.checkpoint_every is -1, expected >= 0"),
]


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_together_is_one_sentence(case: Any) -> None:
    changes, said = case
    with pytest.raises(ConfigError, match=said):
        brief(**changes)


def test_how_training_is_run_is_no_part_of_the_section_s_digest() -> None:
    spread_out = {"backend": "trainjob", "processes": 4, "nodes": 2, "queue": "q"}
    assert brief(**spread_out, checkpoint_every=5).digest == brief().digest
    assert brief(seed=1).digest != brief().digest


# --- who holds what ---


class Pretended(ProcessGroup):
    """One of several processes, without the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("nets", range(1, 12))
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_net_has_one_process_and_shares_are_even(nets: int, size: int) -> None:
    shares = [Placement(nets, Pretended(rank, size)).mine for rank in range(size)]
    assert [slot for share in shares for slot in share] == list(range(nets))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_knows_its_own_agents_by_their_rows() -> None:
    second = Placement(9, Pretended(1, 2))
    assert second.mine == range(5, 9)
    assert second.below(8) == range(5, 8)
    assert second.local([0, 5, 7]) == [0, 2]
    assert not second.lone()
    assert Placement(3, Pretended(1, 2)).lone()
    assert not Placement(1, Pretended(0, 1)).lone()
    assert Placement(9, Pretended(0, 2)).below(8) == range(5)


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("rows", [37, 64])
def test_a_net_s_loss_has_the_same_bits_beside_others_and_alone(
    n_out: int, rows: int
) -> None:
    out = torch.randn(5, 2, rows, n_out, requires_grad=True)
    label, brier = torch.randint(max(2, n_out), (5, rows)), torch.full((5,), 0.5)
    loss = task_loss(out, label, brier)
    (grad,) = torch.autograd.grad(loss.sum(), out)
    for i in range(5):
        mine = out[i : i + 1].detach().clone().requires_grad_()
        one = task_loss(mine, label[i : i + 1], brier[i : i + 1])
        (own,) = torch.autograd.grad(one.sum(), mine)
        assert torch.equal(one[0], loss[i])
        assert torch.equal(own[0], grad[i])
