"""The training stage: from two artifacts to a model, or one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from far_device import far_device
from torch import Tensor
from training_world import BRIEF, GENOME, TPR, USEFUL, prepared, promises, searched

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import (
    ConfigError,
    ConstitutionError,
    InputError,
    IntegrityError,
    SafescaleError,
)
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import read_json
from safescale_ammt.launch.task import TrainingTask
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.stages import train_agents
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.student import learnt_on

RULES = promises(TPR, USEFUL)
FILES = {
    *("weights.safetensors", "schema.json", "genome.json", "decision.json"),
    *("constitution.json", "training.jsonl"),
    *(f"twin/{n}.json" for n in ("schema", "genome", "decision")),
    "twin/weights.safetensors",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"))


@pytest.fixture(scope="module")
def architecture(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("searched"), dataset, RULES)


@pytest.fixture(scope="module")
def model(
    dataset: Path, architecture: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    train_agents.run(dataset, architecture, RULES, BRIEF, out)
    return out


def test_a_student_trains_in_the_mode_of_its_device(
    dataset: Path, architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no deterministic form on a device is a warning, there as in training."""
    modes: list[int] = []

    def far(task: TrainingTask, *, deploys: bool = True) -> GenomeNets:
        del deploys
        return GenomeNets(EncodedDataset(task.data), GENOME, far_device())

    def student(*given: Any, **named: Any) -> Tensor:
        modes.append(torch.get_deterministic_debug_mode())
        return learnt_on(*given, **named)

    monkeypatch.setattr("safescale_ammt.launch.task.nets_of", far)
    monkeypatch.setattr("safescale_ammt.training.genome_nets.learnt_on", student)
    config = {**BRIEF, "merge": "refined"}
    train_agents.run(dataset, architecture, RULES, config, tmp_path / "model")
    assert modes == [1]


def test_the_model_holds_weights_twin_constitution_and_log(model: Path) -> None:
    manifest = verify(model, "model")
    assert set(manifest.files) == FILES
    assert not manifest.files["training.jsonl"].identity
    stated = Constitution.from_dict(read_json(model / "constitution.json"))
    assert stated.digest == Constitution.from_dict(RULES).digest
    assert read_json(model / "genome.json") == GENOME.to_dict()


def test_the_model_names_what_it_was_made_from(
    model: Path, dataset: Path, architecture: Path
) -> None:
    assert verify(model).parents == {
        "dataset": verify(dataset).identity,
        "architecture": verify(architecture).identity,
        "constitution": Constitution.from_dict(RULES).digest,
    }


def test_model_and_twin_answer_raw_rows(model: Path, dataset: Path) -> None:
    table = Dataset.load(dataset).splits["select"].features
    score, prediction = Predictor.load(model).predict_table(table)
    twin = Predictor.load(model / "twin").predict_table(table)
    assert score.dtype == np.float64
    assert prediction.dtype == np.int64
    assert ((score >= 0) & (score <= 1)).all()
    assert not np.array_equal(score, twin.score)
    assert Schema.load(model) == Schema.load(dataset)


def test_the_log_tells_rounds_merge_and_end(model: Path) -> None:
    lines = (model / "training.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    kinds = [e["event"] for e in events]
    # The brief model is likened to a constant on its few rows of *select*, and told so.
    assert [k for k in kinds[-3:] if k != "doubt"][-2:] == ["merge", "end"]
    assert kinds.count("round") == 8
    assert all(e["seconds"] >= 0 for e in events)


def test_another_process_makes_the_same_model_without_the_compiler(
    model: Path, dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    code = (
        "import json, sys; from safescale_ammt.stages.train_agents import run; "
        "run(*sys.argv[1:3], *map(json.loads, sys.argv[3:5]), sys.argv[5]); "
        "print([m for m in ('torch._dynamo', 'torchvision', 'kfp') "
        "if m in sys.modules])"
    )
    given = [str(dataset), str(architecture), json.dumps(RULES), json.dumps(BRIEF)]
    command = [sys.executable, "-c", code, *given, str(again)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert verify(again).identity == verify(model).identity
    assert "Merged into one model" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


# --- refusals ---


def attempt(folder: Path, dataset: Path, architecture: Path, **changes: Any) -> None:
    given = {"constitution": RULES, "training": BRIEF, **changes}
    try:
        train_agents.run(dataset, architecture, model=folder / "out", **given)
    finally:
        assert not list(folder.glob("*partial*"))  # a store has a folder of that name
        assert not (folder / "out").exists()


def test_an_architecture_of_another_dataset_is_refused_with_both_digests(
    architecture: Path, tmp_path: Path
) -> None:
    other = prepared(tmp_path / "other", rows=300)
    with pytest.raises(IntegrityError) as caught:
        attempt(tmp_path, other, architecture)
    assert verify(other).identity in str(caught.value)
    assert verify(architecture).parents["dataset"] in str(caught.value)


def test_an_architecture_for_another_constitution_is_refused(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match="found with constitution sha256:"):
        attempt(tmp_path, dataset, architecture, constitution=promises(TPR))


def test_a_changed_byte_of_the_architecture_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    tampered = searched(tmp_path / "a", dataset, RULES)
    genome = (tampered / "genome.json").read_text()
    (tampered / "genome.json").write_text(genome.replace("[8]", "[9]"))
    with pytest.raises(IntegrityError, match=r"genome\.json was changed"):
        attempt(tmp_path, dataset, tampered)


def test_a_dataset_is_no_architecture(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a architecture artifact"):
        attempt(tmp_path, dataset, dataset)


BAD = [
    ({"steps": 2.5}, ConfigError, "training.steps must be a whole number"),
    ({"agent_specializations": ["poet"]}, ConfigError, "names 'poet'"),
    ({"learning_rate": 1e30}, SafescaleError, "Training stopped at step"),
]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_section_is_one_sentence_and_leaves_nothing(
    dataset: Path, architecture: Path, tmp_path: Path, case: Any
) -> None:
    training, error, said = case
    with pytest.raises(error, match=said):
        attempt(tmp_path, dataset, architecture, training={**BRIEF, **training})


def test_a_bad_constitution_is_refused(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConstitutionError):
        attempt(tmp_path, dataset, architecture, constitution={})


def test_sections_that_kfp_turned_into_floats_mean_the_same(
    model: Path, dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    floats = {k: float(v) if isinstance(v, int) else v for k, v in BRIEF.items()}
    train_agents.run(dataset, architecture, RULES, floats, tmp_path / "m")
    assert verify(tmp_path / "m").identity == verify(model).identity
    assert Genome.from_dict(read_json(tmp_path / "m" / "genome.json")) == GENOME
