"""A user's own module from its package to a registered version, by every road."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from laptop import WORKLOAD, Laptop
from trained_world import World, build, newest_bundle, registered

from pipelines.cli import run_command
from pipelines.compile import compile_train
from pipelines.own_code import with_code
from pipelines.workload import Workload
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import MANIFEST, read_manifest
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.code_package import CODE, CodePackage
from safescale_ammt.model.program import PROGRAM
from safescale_ammt.releasing.contents import check_code
from safescale_ammt.stages import (
    train_agents,
)
from safescale_ammt.store.uri import STORE

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model"
COLUMNS = CodePackage.read(EXAMPLE, "my_nets")
SECTION: dict[str, Any] = {
    **WORKLOAD["training"],
    "model": "my_nets.columns:build",
    "model_digest": COLUMNS.digest,
    "model_package": COLUMNS.pack(),
    "seed": 0,
}
SEARCH = {**WORKLOAD["search"], "feasibility_steps": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The small table, trained by the example's module, and judged on sealed rows."""
    nets = build(tmp_path_factory.getbasetemp() / "world")
    folder = tmp_path_factory.mktemp("own")
    return registered(nets, folder, "own", SEARCH, SECTION)


@pytest.fixture
def bundle(world: World, tmp_path: Path) -> Path:
    return newest_bundle(world, "own", tmp_path / "bundle")


def test_the_bundle_verifies_and_its_rows_are_answered_again(
    world: World,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORE, (world.folder / "store").as_uri())
    holdout = os.path.realpath(world.inputs[1])
    assert run_command(["verify", str(bundle), "--data", holdout]) == 0
    said = capsys.readouterr().out
    assert "answer" in said
    assert f"model/{CODE} builds what the program computes" in said


def test_raw_rows_are_answered_without_torch_and_without_the_user_s_code(
    bundle: Path, world: World, tmp_path: Path
) -> None:
    people = Path(os.path.realpath(world.inputs[0])).parent / "people.csv"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipelines.predict import write_predictions\n"
        "n = write_predictions(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))\n"
        "assert n == 3000, n\n"
        "assert not {'torch', 'my_nets'} & sys.modules.keys()\n"
    )
    arguments = [str(bundle), str(people), str(tmp_path / "answers.csv")]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [CODE, PROGRAM])
def test_a_byte_of_code_or_program_that_was_changed_is_found(
    bundle: Path, name: str
) -> None:
    path = bundle / "model" / name
    path.write_text(path.read_text().replace("1", "2", 1))
    assert run_command(["verify", str(bundle)]) == 3


def test_other_code_under_true_digests_is_found(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_code(bundle / "model")
    write_json(bundle / "model" / CODE, {"my_nets/columns.py": "other"})
    with pytest.raises(IntegrityError, match="they must be the same"):
        check_code(bundle / "model")
    (bundle / "model" / CODE).unlink()
    with pytest.raises(IntegrityError, match="has the code None"):
        check_code(bundle / "model")


def test_processes_train_the_same_model(world: World, tmp_path: Path) -> None:
    dataset, _, architecture, model = world.inputs
    several = {**SECTION, "backend": "torchrun", "processes": 3}
    train_agents.run(
        dataset, architecture, world.constitution, several, tmp_path / "model"
    )
    identity = read_manifest(model).identity
    assert read_manifest(tmp_path / "model").identity == identity


def test_a_module_that_one_process_cannot_build_ends_in_its_sentence(
    world: World, tmp_path: Path
) -> None:
    dataset, _, architecture, _ = world.inputs
    # In the image, says the section; and there it is not.
    several = {**SECTION, "backend": "torchrun", "processes": 2, "model_package": ""}
    with pytest.raises(InputError, match="which neither the config carries nor this"):
        train_agents.run(
            dataset, architecture, world.constitution, several, tmp_path / "model"
        )


def test_a_workload_that_names_a_module_runs_to_a_verdict(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "laptop")
    shutil.copytree(EXAMPLE / "my_nets", laptop.folder / "my_nets")
    training = {**WORKLOAD["training"], "model": "my_nets.residual:build"}
    laptop.write("loans.yaml", {**WORKLOAD, "training": training})
    code, line = laptop.run()
    record = laptop.record
    assert (code, record["exit_code"]) == (0, 0), line
    assert record["verdict"]["decision"] == "pass"
    assert record["config"]["training"]["model_digest"] == COLUMNS.digest
    model = Path(record["artifacts"]["model"]["path"])
    assert read_json(model / "genome.json")["code"] == COLUMNS.digest
    # The cache knows code by its text: a comment more is another training.
    with (laptop.folder / "my_nets" / "residual.py").open("a") as file:
        file.write("# another\n")
    assert laptop.run("--rehearse")[0] == 0
    again = laptop.record
    cached = {stage["stage"]: stage["cached"] for stage in again["stages"]}
    assert cached["prepare_data"]
    assert not cached["search_architecture"]
    assert not cached["train_agents"]


@pytest.mark.xdist_group("containers")
def test_containers_train_the_same_model_without_a_key_or_a_network(
    tmp_path: Path, engine: Any
) -> None:
    laptop = Laptop(tmp_path / "laptop")
    shutil.copytree(EXAMPLE / "my_nets", laptop.folder / "my_nets")
    training = {**WORKLOAD["training"], "model": "my_nets.columns:build"}
    laptop.write("loans.yaml", {**WORKLOAD, "training": training})
    identities = set()
    # Containers first: their verdict is the official one.
    for arguments in (("--runner", "docker"), ("--rehearse", "--no-cache")):
        code, line = laptop.run(*arguments)
        assert code == 0, line
        identities.add(laptop.record["artifacts"]["model"]["identity"])
    assert len(identities) == 1


def test_the_compiled_pipeline_carries_the_code_by_default(tmp_path: Path) -> None:
    code = run_command(
        [
            *("compile", "--config", str(EXAMPLE / "adult.yaml")),
            *("-o", str(tmp_path / "own.yaml")),
        ]
    )
    assert code == 0
    documents = list(yaml.safe_load_all((tmp_path / "own.yaml").read_text()))
    inputs = documents[0]["root"]["inputDefinitions"]["parameters"]
    training = inputs["training"]["defaultValue"]
    assert training["model"] == "my_nets.residual:build"
    found = CodePackage.unpack(training["model_package"], training["model_digest"])
    assert found == COLUMNS
    # The graph is the one of every workload: code travels as a value.
    plain = next(yaml.safe_load_all(compile_train()))
    assert documents[0]["components"] == plain["components"]
    assert documents[0]["deploymentSpec"] == plain["deploymentSpec"]


def test_the_example_s_workload_is_sound() -> None:
    path = EXAMPLE / "adult.yaml"
    found = with_code(Workload.load(path), EXAMPLE).training
    assert found.model_digest == COLUMNS.digest


def test_what_is_unpacked_is_gone_after_the_stage(world: World, tmp_path: Path) -> None:
    dataset, _, _, _ = world.inputs
    code = (
        "import json, sys\n"
        "from safescale_ammt.stages.search_architecture import run\n"
        "run(**json.loads(sys.argv[1]))\n"
        "import my_nets\n"
        "assert my_nets.__file__.startswith(sys.argv[2]), my_nets.__file__\n"
    )
    asked = {
        "dataset": str(dataset),
        "constitution": world.constitution,
        "search": SEARCH,
        "training": SECTION,
        "architecture": str(tmp_path / "architecture"),
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {**os.environ, "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", code, json.dumps(asked), str(scratch)]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(scratch.glob("safescale-code-*"))
    assert (tmp_path / "architecture" / MANIFEST).is_file()
