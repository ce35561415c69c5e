"""Boosted trees from the search to a registered version, which answers and verifies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lightgbm
import pytest
from laptop import WORKLOAD
from trained_world import World, build, newest_bundle, registered

from pipelines.cli import run_command
from safescale_ammt.model.predictor import TREES
from safescale_ammt.store.uri import STORE

SECTION = {"learner": "trees", "num_agents": 3, "folds": 4, "seed": 0}
SEARCH = {**WORKLOAD["search"], "candidates": 2, "feasibility_steps": 0}


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The small table, searched and boosted, and judged on its sealed rows."""
    nets = build(tmp_path_factory.getbasetemp() / "world")
    folder = tmp_path_factory.mktemp("trees")
    return registered(nets, folder, "trees", SEARCH, SECTION)


@pytest.fixture
def bundle(boosted: World, tmp_path: Path) -> Path:
    return newest_bundle(boosted, "trees", tmp_path / "bundle")


def test_the_bundle_holds_trees_that_lightgbm_reads(bundle: Path) -> None:
    for folder in (bundle / "model", bundle / "model" / "twin"):
        assert lightgbm.Booster(model_file=folder / TREES).num_trees() > 0
        assert not (folder / "weights.safetensors").exists()


def test_the_bundle_verifies_and_its_rows_are_answered_again(
    boosted: World,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORE, (boosted.folder / "store").as_uri())
    holdout = os.path.realpath(boosted.inputs[1])
    assert run_command(["verify", str(bundle), "--data", holdout]) == 0
    assert "answer" in capsys.readouterr().out


def test_raw_rows_are_answered_without_lightgbm_or_torch(
    bundle: Path, boosted: World, tmp_path: Path
) -> None:
    people = Path(os.path.realpath(boosted.inputs[0])).parent / "people.csv"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipelines.predict import write_predictions\n"
        "n = write_predictions(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))\n"
        "assert n == 3000, n\n"
        "assert not {'lightgbm', 'torch'} & sys.modules.keys()\n"
    )
    arguments = [str(bundle), str(people), str(tmp_path / "answers.csv")]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, *answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert head.endswith("prediction,score")
    assert len(answers) == 3000


def test_a_leaf_that_was_changed_is_found(bundle: Path) -> None:
    path = bundle / "model" / TREES
    text = path.read_text()
    at = text.index("leaf_value=") + len("leaf_value=")
    path.write_text(f"{text[:at]}1{text[at + 1 :]}")
    assert run_command(["verify", str(bundle)]) == 3
