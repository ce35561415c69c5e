"""Checkpoints in a store that is ill, on a disk that is full: training goes on."""

from __future__ import annotations

import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sick_store import QUICK, SickStore, sick_store
from trained_world import build

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import Interrupted, StorageError
from safescale_ammt.files.artifacts import MANIFEST
from safescale_ammt.model.genome import Genome
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.trainer import Trained, train

IMPATIENT = replace(QUICK, retries=1, read=0.2, total=0.5)
MANY = 10_000
CONFIG = TrainingConfig(
    num_agents=3,
    steps=60,
    trunk_steps=20,
    batch_size=64,
    warmup_steps=5,
    sync_every=5,
    dual_every=5,
    folds=4,
)


class Task:
    """A small training; every call trains it anew."""

    def __init__(self, folder: Path) -> None:
        world = build(folder)
        self.encoded = EncodedDataset(Dataset.load(world.inputs[0]))
        self.promises = Constitution.from_dict(world.constitution)

    def train(
        self, store: Store | None, *, every: int = 1, stop_at: int = -1
    ) -> tuple[Trained, list[dict[str, Any]]]:
        events: list[dict[str, Any]] = []

        def log(event: dict[str, Any]) -> None:
            events.append(event)
            if (event["event"], event.get("step")) == ("round", stop_at):
                signal.raise_signal(signal.SIGTERM)

        checkpoints = Checkpoints(store, every=every, run={"of": "this"})
        genome = Genome(widths=(8,))
        done = train(
            *(GenomeNets(self.encoded, genome), CONFIG, self.promises),
            log=log,
            checkpoints=checkpoints,
        )
        return done, events


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return Task(tmp_path_factory.mktemp("task") / "world")


@pytest.fixture(scope="module")
def undisturbed(task: Task) -> Trained:
    return task.train(None)[0]


def same(one: Trained, other: Trained) -> None:
    assert torch.equal(one.agents, other.agents)
    assert torch.equal(one.twin, other.twin)


def told(events: list[dict[str, Any]], kind: str) -> list[str]:
    return [e["reason"] for e in events if e["event"] == kind]


# --- while it trains ---


@pytest.mark.parametrize(
    "symptom", ["403 AccessDenied", "500", "503 SlowDown", "stall", "not-s3", "404"]
)
def test_a_store_that_is_ill_is_told_of_once_and_training_goes_on(
    task: Task, undisturbed: Trained, symptom: str
) -> None:
    with sick_store(*[symptom] * MANY) as server:
        done, events = task.train(server.store(IMPATIENT))
    same(done, undisturbed)
    assert len(told(events, "checkpoint_failed")) == 1
    assert "very-secret" not in str(events)


def test_a_store_that_recovers_takes_the_next_ones(
    task: Task, undisturbed: Trained
) -> None:
    with sick_store(*["500"] * 2) as server:
        done, events = task.train(server.store(IMPATIENT))
        same(done, undisturbed)
        assert len(told(events, "checkpoint_failed")) == 1
        again, events = task.train(server.store(IMPATIENT))
        same(again, undisturbed)
        assert [e["step"] for e in events if e["event"] == "resumed"] == [55]


def test_uploads_that_end_halfway_leave_nothing_that_a_run_resumes_from(
    task: Task, undisturbed: Trained
) -> None:
    with sick_store() as server:
        task.train(server.store(IMPATIENT))
        (newest, *_) = sorted(k for k in server.objects if k.endswith(MANIFEST))[::-1]
        state = newest.replace(MANIFEST, "state.safetensors")
        server.objects[state] = server.objects[state][:100]
        done, events = task.train(server.store(IMPATIENT))
    same(done, undisturbed)
    assert len(told(events, "checkpoint_ignored")) == 1
    assert [e["step"] for e in events if e["event"] == "resumed"] == [50]


@contextmanager
def smallest_files(most: int) -> Iterator[None]:
    """Lets no file grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_of_once_and_training_goes_on(
    task: Task, undisturbed: Trained, tmp_path: Path
) -> None:
    store = open_store((tmp_path / "kept").as_uri())
    with smallest_files(500):
        done, events = task.train(store)
    same(done, undisturbed)
    (sentence,) = told(events, "checkpoint_failed")
    assert "no room left" in sentence
    assert not list(tmp_path.rglob("*.safetensors"))


def test_no_place_for_what_is_written_aside_is_no_end_either(
    task: Task, undisturbed: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    done, events = task.train(open_store((tmp_path / "kept").as_uri()))
    same(done, undisturbed)
    assert len(told(events, "checkpoint_failed")) == 1


# --- when it is stopped ---


def test_sigterm_says_where_the_checkpoint_is_or_why_there_is_none(
    task: Task, tmp_path: Path
) -> None:
    place = (tmp_path / "kept").as_uri()
    with pytest.raises(Interrupted, match=r"the checkpoint in file:///.* is of that"):
        task.train(open_store(place), every=0, stop_at=25)
    assert len(list((tmp_path / "kept").glob("step-*/manifest.json"))) == 1
    with (
        sick_store(*["403 AccessDenied"] * MANY) as server,
        pytest.raises(Interrupted, match="no checkpoint could be taken: "),
    ):
        task.train(server.store(IMPATIENT), every=0, stop_at=25)


# --- before it begins, and after ---


def test_a_store_that_cannot_say_what_it_holds_ends_the_training_at_once(
    task: Task,
) -> None:
    """To begin anew would throw away what it may hold."""
    with sick_store() as server:
        server.bucket = "/another"
        store = server.store(IMPATIENT)
        with pytest.raises(StorageError):
            task.train(store)


def test_a_checkpoint_that_is_broken_does_not_count_as_one_of_the_two(
    task: Task, undisturbed: Trained, tmp_path: Path
) -> None:
    store = open_store((tmp_path / "kept").as_uri())
    task.train(store)
    whole = sorted((tmp_path / "kept").glob(f"step-*/{MANIFEST}"))
    first, second = (manifest.parent for manifest in whole)
    # A step that this run takes none at: what is broken there is never replaced.
    broken = second.with_name(second.name.replace("00000055", "00000058"))
    second.rename(broken)
    (broken / "state.safetensors").write_bytes(b"")
    with pytest.raises(Interrupted):
        task.train(store, every=0, stop_at=50)
    left = sorted((tmp_path / "kept").glob("step-*/manifest.json"))
    assert [p.parent.name[:13] for p in left][:1] == [first.name[:13]]
    assert broken not in {p.parent for p in left}
    assert len(left) == 2
    same(task.train(store)[0], undisturbed)


def test_checkpoints_that_cannot_be_deleted_do_not_end_what_is_done(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    with sick_store() as server:
        store = server.store(IMPATIENT)
        task.train(store)
        refuse(server)
        Checkpoints(store, run={"of": "this"}).clear()
    assert "Checkpoints of this training stay: " in capsys.readouterr().out


def refuse(server: SickStore) -> None:
    server.script = ["403 AccessDenied"] * MANY
