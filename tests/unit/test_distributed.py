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
from placement_world import CASES, NARROW_CASES, Outcome, load, outcome, start, wait
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
def several(
    request: Any, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """All cases, trained by two processes and by four."""
    out = tmp_path_factory.mktemp("several")
    ends = wait(start(request.param, str(dataset), str(out)))
    assert ends == [(0, "")] * request.param
    return out


@pytest.fixture(scope="module")
def single(encoded: EncodedDataset) -> Callable[[str], Outcome]:
    """Outcomes of one process, each case trained once."""
    return cache(lambda name: outcome(encoded, {**CASES, **NARROW_CASES}[name]))


@pytest.mark.parametrize("name", CASES)
def test_processes_train_what_one_process_trains_bit_for_bit(
    name: str, several: Path, single: Callable[[str], Outcome]
) -> None:
    one, result = single(name), load(several, name)
    assert result.sentence == one.sentence
    assert result.tensors.keys() == one.tensors.keys()
    for key, tensor in one.tensors.items():
        assert torch.equal(result.tensors[key], tensor), key
    assert result.events == one.events


@pytest.mark.parametrize("name", NARROW_CASES)
def test_widths_that_fill_no_vector_register_agree_within_rounding(
    name: str, several: Path, single: Callable[[str], Outcome]
) -> None:
    one, result = single(name), load(several, name)
    for key, tensor in one.tensors.items():
        close = {"rtol": 0.0, "atol": 1e-5}
        torch.testing.assert_close(result.tensors[key], tensor, **close)


def test_the_cases_hold_agents_that_are_lost_or_apart_and_runs_that_end_early(
    single: Callable[[str], Outcome],
) -> None:
    ends = [e["event"] for e in single("patient").events][-2:]
    assert ends == ["stopped", "violations"]
    assert [e for e in single("lost").events if e.get("lost")]
    assert [e for e in single("apart").events if e.get("shift")]
    assert "had no finite gradient" in single("hopeless").sentence


@pytest.mark.parametrize(
    ("signum", "timeout"), [(signal.SIGKILL, "600"), (signal.SIGSTOP, "10")]
)
def test_a_process_that_dies_or_hangs_ends_the_others_in_one_sentence(
    dataset: Path, signum: signal.Signals, timeout: str
) -> None:
    names = ["plain"] * 200
    processes = start(2, str(dataset), "nowhere", *names, TIMEOUT=timeout)
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(0.3)
    processes[1].send_signal(signum)
    code, sentence = wait(processes[:1])[0]
    processes[1].kill()
    wait(processes[1:])
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
    ({"queue": "q"}, "training.queue is 'q', expected '' without backend: trainjob"),
    (
        {"runtime": "r", "backend": "torchrun"},
        "training.runtime is 'r', expected 'safescale-torch' without backend: trainjob",
    ),
    ({"restarts": 5}, "training.restarts is 5, expected 2 with backend: local"),
    (
        {"checkpoint_every": -1},
        "training.checkpoint_every is -1, expected a value >= 0",
    ),
]


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_together_is_one_sentence(case: Any) -> None:
    changes, sentence = case
    with pytest.raises(ConfigError, match=sentence):
        brief(**changes)


def test_how_training_is_run_is_no_part_of_the_section_s_digest() -> None:
    how = {"backend": "trainjob", "processes": 4, "nodes": 2, "queue": "q"}
    assert brief(**how, checkpoint_every=5, restarts=5).digest == brief().digest
    assert brief(seed=1).digest != brief().digest


# --- placement ---


class Rank(ProcessGroup):
    """One of several processes, without the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("nets", range(1, 12))
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_net_has_one_process_and_shares_are_even(nets: int, size: int) -> None:
    slots = [Placement(nets, Rank(rank, size)).local_slots for rank in range(size)]
    assert [slot for local in slots for slot in local] == list(range(nets))
    assert max(map(len, slots)) - min(map(len, slots)) <= 1


def test_a_process_knows_its_own_agents_by_their_rows() -> None:
    second = Placement(9, Rank(1, 2))
    assert second.local_slots == range(5, 9)
    assert second.local_below(8) == range(5, 8)
    assert second.local_rows([0, 5, 7]) == [0, 2]
    assert not second.one_of_several()
    assert Placement(3, Rank(1, 2)).one_of_several()
    assert not Placement(1, Rank(0, 1)).one_of_several()
    assert Placement(9, Rank(0, 2)).local_below(8) == range(5)


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
        single = out[i : i + 1].detach().clone().requires_grad_()
        single_loss = task_loss(single, label[i : i + 1], brier[i : i + 1])
        (single_grad,) = torch.autograd.grad(single_loss.sum(), single)
        assert torch.equal(single_loss[0], loss[i])
        assert torch.equal(single_grad[0], grad[i])
