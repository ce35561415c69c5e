"""Stages on a dataset whose rows lie apart: what they make is what it always was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import preparing
import pytest
from laptop import WORKLOAD
from trained_world import World, build

from safescale_ammt.data.local_table import Held
from safescale_ammt.errors import InputError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json
from safescale_ammt.files.shards import is_shard
from safescale_ammt.stages import (
    evaluate_safety,
    prepare_data,
    search_architecture,
    train_agents,
)
from safescale_ammt.store.uri import STORE

TWO = {**WORKLOAD["training"], "backend": "torchrun", "processes": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run's artifacts, its rows inside of its dataset."""
    return build(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def apart(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same dataset with its rows in a store, which the environment names."""
    preparing.lay_apart(world.inputs[0], tmp_path / "dataset")
    world.kept_in(preparing.store_of(tmp_path / "dataset"))
    for name, value in preparing.environ_of(tmp_path / "dataset").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "dataset"


def searched(dataset: Path, world: World, out: Path) -> str:
    rule, sections = world.constitution, (WORKLOAD["search"], WORKLOAD["training"])
    search_architecture.run(dataset, rule, *sections, out)
    return read_manifest(out).identity


def judged(inputs: tuple[Path, ...], world: World, out: Path, **safety: Any) -> str:
    environ = preparing.environ_of(out)
    evaluate_safety.run(*inputs, world.constitution, safety, out, environ=environ)
    return read_manifest(out).identity


def test_search_training_and_judge_do_the_same_on_rows_apart(
    world: World, apart: Path, tmp_path: Path
) -> None:
    _, holdout, architecture, model = world.inputs
    found = searched(apart, world, tmp_path / "architecture")
    assert found == read_manifest(architecture).identity

    train_agents.run(apart, architecture, world.constitution, TWO, tmp_path / "model")
    assert read_manifest(tmp_path / "model").identity == read_manifest(model).identity

    inside = tmp_path / "inside"
    world.kept_in(preparing.store_of(inside / "verdict"))
    for name, safety in {"verdict": {}, "rehearsed": {"rehearse": True}}.items():
        there = (apart, holdout, architecture, model)
        here = judged(world.inputs, world, inside / name, **safety)
        assert judged(there, world, tmp_path / name, **safety) == here
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        *("dataset", "store", "inside"),
        *("architecture", "model", "verdict", "rehearsed"),
    }


def test_a_process_that_finds_no_store_says_so(
    world: World, apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STORE)
    with pytest.raises(InputError, match="has its rows apart"):
        train_agents.run(
            apart, world.inputs[2], world.constitution, TWO, tmp_path / "model"
        )
    with pytest.raises(InputError, match="has its rows apart"):
        searched(apart, world, tmp_path / "architecture")
    assert not (tmp_path / "model").exists()


def test_shards_make_the_model_and_the_figures_that_one_file_makes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identities are others, for the files are; what is learnt is not."""
    data = {
        **WORKLOAD["data"],
        "source": (world.folder / "people.csv").as_uri(),
        "sealed_source": (world.folder / "sealed.csv").as_uri(),
    }
    environ = preparing.environ_of(tmp_path / "dataset")
    monkeypatch.setenv(STORE, environ[STORE])
    inside, holdout = tmp_path / "inside", tmp_path / "holdout"
    held = Held(shard_rows=200)
    prepare_data.run(data, inside, holdout, environ=environ, held=held)
    dataset = tmp_path / "dataset"
    files = preparing.lay_apart(inside, dataset).files
    assert len(list(filter(is_shard, files))) > 5 + 5
    assert read_manifest(dataset).identity != read_manifest(world.inputs[0]).identity

    architecture, model = tmp_path / "architecture", tmp_path / "model"
    searched(dataset, world, architecture)
    train_agents.run(
        dataset, architecture, world.constitution, WORKLOAD["training"], model
    )
    inputs = (dataset, holdout, architecture, model)
    judged(inputs, world, tmp_path / "verdict")
    world.kept_in(preparing.store_of(tmp_path / "one" / "verdict"))
    judged(world.inputs, world, tmp_path / "one" / "verdict")

    for name in ("genome.json", "search.json", "power.json"):
        assert read_json(architecture / name) == read_json(world.inputs[2] / name)
    many, one = (read_manifest(m).files for m in (model, world.inputs[3]))
    for name in filter(lambda name: name.endswith(".safetensors"), one):
        assert many[name].sha256 == one[name].sha256
    findings = [
        read_json(folder / "verdict" / "verdict.json")
        for folder in (tmp_path, tmp_path / "one")
    ]
    for key in ("decision", "findings", "figures"):
        assert findings[0][key] == findings[1][key]
