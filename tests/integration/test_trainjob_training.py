"""Real training in a TrainJob: the same model as in the stage's own process."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cluster.api import ClusterApi
from patience import PATIENCE
from preparing import environ_of, lay_apart
from trainjob_world import QUICK, Trained, World, trained_locally

from safescale_ammt.errors import SafescaleError
from safescale_ammt.files.artifacts import MANIFEST, read_manifest
from safescale_ammt.stages import train_agents
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.environment import DATASET_STORE
from safescale_ammt.store.uri import STORE, open_store

SLOW = replace(QUICK, retry=replace(QUICK.retry, read=10.0), grace=30.0)
"""Training imports torch, and here several engineers share two cores."""


@pytest.fixture(scope="module")
def local_training(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_locally(tmp_path_factory.getbasetemp() / "trainjob-world")


LONGER = {"steps": 240}


@pytest.fixture(scope="module")
def undisturbed(
    local_training: Trained, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The identity of the longer training's model, made by one process in one go."""
    given, model = local_training, tmp_path_factory.mktemp("undisturbed") / "model"
    section = {**given.training, **LONGER}
    train_agents.run(given.dataset, given.architecture, given.rules, section, model)
    return read_manifest(model).identity


@pytest.fixture
def world(
    local_training: Trained, s3_server: EmbeddedStore, tmp_path: Path
) -> Iterator[World]:
    with ClusterApi() as api:
        store = f"{s3_server.uri}/training-{uuid.uuid4().hex}"
        keys = {k: v for k, v in s3_server.environ.items() if k.startswith("AWS_")}
        yield World(
            api, local_training, tmp_path, store, keys, timeouts=SLOW, program=()
        )


@pytest.mark.slow
def test_the_stage_with_a_trainjob_writes_the_model_that_it_writes_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pod("step-1")
    for name, value in world.environment("step-1").items():
        monkeypatch.setenv(name, value)
    model = world.folder / "staged" / "model"
    given = world.trained
    section = {**given.training, "backend": "trainjob", "processes": 1}
    with world.trainer() as trainer:
        shown = train_agents.run(
            given.dataset, given.architecture, given.rules, section, model
        )
        assert trainer.started == 1
        world.until(lambda: not world.left())
    assert shown["model"] == read_manifest(given.model).identity
    assert read_manifest(model).identity == read_manifest(given.model).identity
    assert world.stored() == {
        "inputs/dataset",
        "inputs/architecture",
        "request.json",
        "model",
    }


@pytest.mark.slow
def test_rows_that_lie_apart_are_read_by_the_pods_and_not_handed_over(
    world: World, tmp_path: Path
) -> None:
    apart = lay_apart(world.trained.dataset, tmp_path / "dataset")
    shards = environ_of(tmp_path / "dataset")[STORE]
    world.environ[DATASET_STORE] = shards
    world.trained = replace(world.trained, dataset=tmp_path / "dataset")
    with world.trainer():
        model = world.step(processes=2, nodes=2)
    alone = read_manifest(world.trained.model)
    assert read_manifest(model).identity == alone.identity
    store = open_store(world.store, environ=world.environ)
    sent = {info.key.rpartition("/")[2] for info in store.list("inputs/dataset/")}
    inside = {name for name, entry in apart.files.items() if not entry.apart}
    assert sent == {MANIFEST, *inside}


@pytest.mark.slow
def test_two_nodes_train_the_model_that_one_process_trains(world: World) -> None:
    world.reports = True
    with world.trainer() as trainer:
        model = world.step(processes=2, nodes=2)
        assert trainer.started == 2
    found, alone = read_manifest(model), read_manifest(world.trained.model)
    assert found.identity == alone.identity
    assert any("Merged into one model" in said for said in world.said)
    assert any(re.search(r"TrainJob .*: \d+ %, .*step \d+", s) for s in world.said)


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on_from_its_checkpoint(
    world: World, undisturbed: str
) -> None:
    world.pod("step-1")
    world.pod("step-2")
    every = {"checkpoint_every": 1, **LONGER}
    with world.trainer() as trainer:
        with world.start("step-1", **every) as process:
            world.until(lambda: "checkpoints" in world.stored())
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        world.until(lambda: not world.left())
        assert "checkpoints" in world.stored()
        model = world.step("step-2", **every)
        assert trainer.started == 2
    assert any("Went on from the checkpoint" in said for said in world.said)
    assert read_manifest(model).identity == undisturbed
    assert "checkpoints" not in world.stored()


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_in_the_same_step(
    world: World, undisturbed: str
) -> None:
    world.pod("step-1")
    every = {"checkpoint_every": 1, **LONGER}
    with world.trainer() as trainer, world.stepping("step-1", **every) as step:
        world.until(lambda: "checkpoints" in world.stored())
        os.killpg(trainer.pods[0].process.pid, signal.SIGKILL)
        model = step.result(PATIENCE)
        assert trainer.started == 2
        world.until(lambda: not world.left())
    assert any("2 of 2 times left" in said for said in world.said)
    assert any("Went on from the checkpoint" in said for said in world.said)
    assert read_manifest(model).identity == undisturbed
    assert "checkpoints" not in world.stored()


@pytest.mark.slow
def test_what_the_worker_refuses_ends_the_step_with_its_code(world: World) -> None:
    with world.trainer(), pytest.raises(SafescaleError) as caught:
        world.step(learning_rate=1e30)
    assert caught.value.exit_code == SafescaleError.exit_code
    assert "had no finite gradient" in str(caught.value)
    store = open_store(world.store, environ=world.environ)
    (key,) = [i.key for i in store.list() if i.key.endswith("request.json")]
    assert world.environ["AWS_SECRET_ACCESS_KEY"].encode() not in store.get(key)
    world.until(lambda: not world.left())
