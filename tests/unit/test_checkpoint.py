"""Checkpoints: whatever kills a training, it ends in the same bytes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from children import Fork
from placement_world import CASES, LONG, Case, Outcome, load, outcome, start, wait
from training_world import DP, brief, constitution, prepared

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError, Interrupted
from safescale_ammt.files.artifacts import MANIFEST
from safescale_ammt.launch.request import CHECKPOINTS, checkpoint_place
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.checkpoint_shelf import (
    Checkpoint,
    CheckpointShelf,
    Upload,
)
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.trainer import train

ROLES = CASES["roles"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)


@pytest.fixture(scope="module")
def encoded(dataset: Path) -> EncodedDataset:
    return EncodedDataset(Dataset.load(dataset))


@pytest.fixture(scope="module")
def undisturbed(encoded: EncodedDataset) -> Callable[[str], Outcome]:
    """Outcomes of one process in one go, each case trained once."""
    return cache(lambda name: outcome(encoded, {**CASES, **LONG}[name]))


def saved(store: Store, every: int = 0, run: str = "this") -> Checkpoints:
    return Checkpoints(store, every=every, run={"of": run})


def names(store: Store) -> list[str]:
    return sorted({info.key.partition("/")[0] for info in store.list()})


def same(result: Outcome, expected: Outcome) -> None:
    assert result.sentence == expected.sentence == ""
    for key, tensor in expected.tensors.items():
        assert torch.equal(result.tensors[key], tensor), key
    events = [e for e in result.events if e["event"] not in EXTRA]
    assert events == expected.events


EXTRA = ("resumed", "checkpoint_ignored")


def stop(encoded: EncodedDataset, case: Case, at: int, checkpoints: Checkpoints) -> str:
    """Trains until the log reaches a step, where SIGTERM comes."""

    def log(event: dict[str, Any]) -> None:
        if event.get("step") == at:
            signal.raise_signal(signal.SIGTERM)

    config, promises = brief(**case.changes), constitution(*case.constraints)
    nets = GenomeNets(encoded, case.genome)
    with pytest.raises(Interrupted) as caught:
        train(nets, config, promises, log=log, checkpoints=checkpoints)
    return str(caught.value)


# --- stopped and resumed ---


@pytest.mark.parametrize(
    ("name", "at"),
    [
        *product(["roles", "median", "uneven", "heads"], [10, 20, 25, 45]),
        # Between bets, before a correction's pause, within it, and after two of them.
        *product(["alarmed"], [60, 65, 80, 120]),
        # Between two measurements of the agents' mean, and after one.
        *product(["apart"], [50, 95]),
        # In both rungs of the race, and before and after a round of tuning.
        *product(["tuned", "tuned free"], [2, 6, 14, 25, 45]),
        *product(["mixed"], [2, 14, 45]),
    ],
)
def test_a_run_that_sigterm_stops_goes_on_to_the_same_bits(
    encoded: EncodedDataset,
    undisturbed: Callable[[str], Outcome],
    file_store: Store,
    name: str,
    at: int,
) -> None:
    case = CASES[name]
    steps = [e["step"] for e in undisturbed(name).events if "step" in e]
    at = min(s for s in steps if s >= at)
    before = signal.getsignal(signal.SIGTERM)
    sentence = stop(encoded, case, at, saved(file_store))
    assert sentence.startswith("Training was stopped by SIGTERM before step ")
    assert signal.getsignal(signal.SIGTERM) is before
    again = outcome(encoded, case, checkpoints=saved(file_store))
    same(again, undisturbed(name))
    assert [e["event"] for e in again.events].count("resumed") == 1


def test_a_run_may_be_stopped_again_and_again(
    encoded: EncodedDataset, undisturbed: Callable[[str], Outcome], store: Store
) -> None:
    for at in (10, 25, 35, 45):
        stop(encoded, ROLES, at, saved(store, every=1))
    same(outcome(encoded, ROLES, checkpoints=saved(store)), undisturbed("roles"))


def test_keeping_checkpoints_changes_nothing(
    encoded: EncodedDataset, undisturbed: Callable[[str], Outcome], file_store: Store
) -> None:
    result = outcome(encoded, ROLES, checkpoints=saved(file_store, every=1))
    same(result, undisturbed("roles"))


def test_two_checkpoints_stay_and_none_once_the_model_is_delivered(
    encoded: EncodedDataset, store: Store
) -> None:
    checkpoints = saved(store, every=1)
    outcome(encoded, ROLES, checkpoints=checkpoints)
    assert [name[:13] for name in names(store)] == ["step-00000040", "step-00000050"]
    checkpoints.clear()
    assert names(store) == []


# --- checkpoints that no run resumes from ---


def test_a_folder_store_keeps_no_empty_folder_of_those_that_went(
    encoded: EncodedDataset, file_store: Store
) -> None:
    checkpoints = saved(file_store, every=1)
    outcome(encoded, ROLES, checkpoints=checkpoints)
    root = Path(file_store.uri.removeprefix("file://"))
    assert len(list(root.glob("step-*"))) == 2
    checkpoints.clear()
    assert not list(root.glob("step-*"))


@pytest.fixture
def two(encoded: EncodedDataset, file_store: Store) -> list[Path]:
    """The folders of the checkpoints before steps 40 and 50 of a finished run."""
    outcome(encoded, ROLES, checkpoints=saved(file_store, every=1))
    root = Path(file_store.uri.removeprefix("file://"))
    return [root / name for name in names(file_store)]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a changed byte": lambda folder: flip(folder / "state.safetensors"),
    "a changed step": lambda folder: flip(folder / "checkpoint.json"),
    "half a file": lambda f: (f / "state.safetensors").write_bytes(
        (f / "state.safetensors").read_bytes()[:1000]
    ),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "a forged manifest": lambda folder: flip(folder / MANIFEST),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_ignored_and_the_one_before_is_used(
    encoded: EncodedDataset,
    undisturbed: Callable[[str], Outcome],
    file_store: Store,
    two: list[Path],
    damage: str,
) -> None:
    DAMAGES[damage](two[1])
    result = outcome(encoded, ROLES, checkpoints=saved(file_store))
    same(result, undisturbed("roles"))
    ignored = [e["reason"] for e in result.events if e["event"] == "checkpoint_ignored"]
    assert len(ignored) == 1
    assert ignored[0].startswith(f"{two[1].name}: ")
    assert {"event": "resumed", "step": 40} in result.events


def test_without_a_whole_one_training_begins_anew(
    encoded: EncodedDataset,
    undisturbed: Callable[[str], Outcome],
    file_store: Store,
    two: list[Path],
) -> None:
    for folder in two:
        flip(folder / "state.safetensors")
    result = outcome(encoded, ROLES, checkpoints=saved(file_store))
    same(result, undisturbed("roles"))
    assert not [e for e in result.events if e["event"] == "resumed"]


@pytest.mark.usefixtures("two")
def test_a_checkpoint_of_another_run_is_left_alone_with_one_line(
    encoded: EncodedDataset, undisturbed: Callable[[str], Outcome], file_store: Store
) -> None:
    before = names(file_store)
    result = outcome(encoded, ROLES, checkpoints=saved(file_store, run="another"))
    same(result, undisturbed("roles"))
    ignored = [e["reason"] for e in result.events if e["event"] == "checkpoint_ignored"]
    assert ignored == [f"2 of other data, config or code, such as {before[0]}"]
    assert set(before) <= set(names(file_store))


def test_one_that_was_renamed_to_another_run_is_detected(
    encoded: EncodedDataset,
    undisturbed: Callable[[str], Outcome],
    file_store: Store,
    two: list[Path],
) -> None:
    other = saved(file_store, every=1, run="another")
    outcome(encoded, ROLES, checkpoints=other)
    (ending,) = {n[13:] for n in names(file_store)} - {two[0].name[13:]}
    for folder in two:
        target = folder.with_name(folder.name[:13] + ending)
        for file in target.iterdir():
            file.write_bytes((folder / file.name).read_bytes())
    result = outcome(encoded, ROLES, checkpoints=saved(file_store, run="another"))
    same(result, undisturbed("roles"))
    assert any("it was taken in run sha256:" in str(e) for e in result.events)


def test_what_a_checkpoint_costs_begins_where_the_training_waits_for_it(
    file_store: Store,
) -> None:
    state = StateDict(common={"x": torch.zeros(2)})
    waited = time.monotonic() - 9
    shelf = CheckpointShelf(file_store, {"config": "a"})
    upload = Upload(shelf, Checkpoint(4, "trunk", [], state), waited)
    upload.start()
    upload.join()
    assert 9 <= upload.cost < 9 + upload.seconds + 5
    assert [found.step for found in shelf.whole() if not isinstance(found, str)] == [4]


# --- processes ---


def wait_for_checkpoint(store: Store, processes: list[Fork]) -> None:
    """Waits until there is a whole one of the agents' phase."""
    while all(process.poll() is None for process in processes):
        for info in store.list():
            if info.key.endswith(MANIFEST) and info.key[5:13] > "00000040":
                return
        time.sleep(0.01)
    raise AssertionError([process.communicate()[1] for process in processes])


KILLS = [(1, 1, signal.SIGKILL), (2, 2, signal.SIGKILL), (3, 1, signal.SIGTERM)]


@pytest.mark.parametrize("case", KILLS)
def test_killed_processes_and_as_many_or_others_end_in_the_bits_of_one_process(
    dataset: Path,
    undisturbed: Callable[[str], Outcome],
    tmp_path: Path,
    case: Any,
) -> None:
    before, after, signum = case
    out = tmp_path / "out"
    out.mkdir()
    place = (tmp_path / "checkpoints").as_uri()
    arguments = (str(dataset), str(out), "long")
    first = start(before, *arguments, CHECKPOINTS=place)
    wait_for_checkpoint(open_store(place), first)
    for process in first:
        process.send_signal(signum)
    codes = {code for code, _ in wait(first)}
    assert codes == {-signum if signum == signal.SIGKILL else 1}
    assert not (out / "long").exists() or load(out, "long").sentence
    assert wait(start(after, *arguments, CHECKPOINTS=place)) == [(0, "")] * after
    result = load(out, "long")
    same(result, undisturbed("long"))
    assert any(e["event"] == "resumed" for e in result.events)


# --- places ---


def test_the_environment_names_the_place_if_the_config_needs_one() -> None:
    store = {"SAFESCALE_STORE": "s3://bucket/team/"}
    assert checkpoint_place(brief(), store) == ""
    every = brief(checkpoint_every=3)
    assert checkpoint_place(every, store) == "s3://bucket/team/checkpoints"
    assert checkpoint_place(brief(), {**store, CHECKPOINTS: "/tmp/c"}) == "/tmp/c"
    with pytest.raises(
        ConfigError, match=r"training\.checkpoint_every is 3, but neither"
    ):
        checkpoint_place(every, {})


def test_the_state_is_small_tensors_and_json(two: list[Path]) -> None:
    assert {p.name for p in two[1].iterdir()} == {
        *("state.safetensors", "checkpoint.json", MANIFEST)
    }
    assert CASES["roles"].constraints == (DP,)


def test_a_store_that_takes_no_checkpoint_does_not_stop_training_and_is_told_of_once(
    encoded: EncodedDataset, undisturbed: Callable[[str], Outcome], tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    # A file where the store needs a folder for half-written objects.
    (tmp_path / "store" / ".partial").write_bytes(b"")
    broken = open_store((tmp_path / "store").as_uri())
    result = outcome(encoded, ROLES, checkpoints=saved(broken, every=2))
    failed = [e for e in result.events if e["event"] == "checkpoint_failed"]
    assert len(failed) == 1
    for key, tensor in undisturbed("roles").tensors.items():
        assert torch.equal(result.tensors[key], tensor)


def test_sigterm_after_the_last_round_is_not_lost(
    encoded: EncodedDataset, undisturbed: Callable[[str], Outcome], file_store: Store
) -> None:
    steps = [e["step"] for e in undisturbed("roles").events if "step" in e]
    sentence = stop(encoded, ROLES, max(steps), saved(file_store))
    assert sentence == "Training was stopped by SIGTERM before it was done."
    same(outcome(encoded, ROLES, checkpoints=saved(file_store)), undisturbed("roles"))
