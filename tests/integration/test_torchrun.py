"""Backend torchrun: the stage, its processes, and what is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from children import Child, Fork, as_module, warm
from laptop import WORKLOAD, Laptop, words_of
from patience import PATIENCE, eventually
from trained_world import World, build

from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.launch import torchrun
from safescale_ammt.stages import train_agents
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store

ROOT = Path(__file__).parents[2]
BRIEF = WORKLOAD["training"]
TWO = {**BRIEF, "backend": "torchrun", "processes": 2}
# Agents that part early keep both processes at work nearly to the end.
LONG = {**TWO, "steps": 700, "checkpoint_every": 2, "branch": 0.0}
STAGE = """
import json, sys
from safescale_ammt.execution import stage
from safescale_ammt.stages.train_agents import run
given = json.loads(sys.argv[1])
with stage("train_agents", given["model"]):
    run(**given)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Artifacts up to the model that one process makes."""
    return build(tmp_path_factory.getbasetemp() / "world")


def given(world: World, training: Any, model: Path) -> dict[str, Any]:
    dataset, _, architecture, _ = world.inputs
    return {
        "dataset": str(dataset),
        "architecture": str(architecture),
        "constitution": world.constitution,
        "training": training,
        "model": str(model),
    }


@pytest.fixture
def started(world: World, tmp_path: Path) -> Iterator[Child]:
    """A long training in two processes, as a stage that keeps checkpoints."""
    with start_stage(world, LONG, tmp_path) as process:
        yield process


def start_stage(world: World, training: Any, folder: Path, **variables: str) -> Child:
    asked = given(world, training, folder / "out" / "model")
    return Child(
        [sys.executable, "-c", STAGE, json.dumps(asked)],
        env={**environ(), "SAFESCALE_CHECKPOINTS": str(folder / "kept"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def environ() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def workers(of: int) -> list[psutil.Process]:
    """Lists living workers below a stage: forks, with the words of the fork server."""
    found = psutil.Process(of).children(recursive=True)
    servers = {p.pid for p in found if is_fork_server(p)}
    return [p for p in found if is_fork_server(p) and p.ppid() in servers]


def is_fork_server(process: psutil.Process) -> bool:
    words = words_of(process)
    return any("forkserver" in w and "launch.worker" in w for w in words)


def two_at_work(
    process: Child, kept: Path, names: str = "step-*"
) -> list[psutil.Process]:
    """Waits until both workers train: their first checkpoint is there."""

    def kept_or_over() -> bool:
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        return any(kept.glob(f"{names}/manifest.json")) and len(at_work()) == 2

    def at_work() -> list[psutil.Process]:
        return workers(process.pid)

    eventually(kept_or_over, every=0.02)
    return at_work()


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


# --- the same model ---


def test_two_processes_make_the_model_that_one_makes(
    world: World, tmp_path: Path
) -> None:
    train_agents.run(**given(world, TWO, tmp_path / "model"))
    one, two = verify(world.inputs[3], "model"), verify(tmp_path / "model", "model")
    assert two.identity == one.identity
    assert two.config_digest == one.config_digest
    assert two.parents == one.parents


def test_a_whole_run_in_two_processes_ends_with_the_verdict_of_one(
    tmp_path: Path,
) -> None:
    laptop = Laptop(tmp_path / "laptop")
    with laptop.store():
        assert laptop.run()[0] == 0
        names = ("architecture", "model", "verdict")
        one = laptop.identities(*names)
        backend = ("training.backend=torchrun", "training.processes=2")
        code, last = laptop.run(*(word for b in backend for word in ("--set", b)))
    assert code == 0, last
    cached = {s["stage"]: s["cached"] for s in laptop.record["stages"]}
    assert not cached["train_agents"]
    assert laptop.identities(*names) == one
    assert laptop.is_quiet()


# --- bad ends ---


def test_what_a_process_has_to_say_is_what_the_stage_says(
    world: World, tmp_path: Path
) -> None:
    wild = {**TWO, "learning_rate": 1e30}
    with pytest.raises(SafescaleError, match="had no finite gradient") as caught:
        train_agents.run(**given(world, wild, tmp_path / "model"))
    assert caught.value.exit_code == SafescaleError.exit_code
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_killed_ends_the_stage_in_one_sentence(
    world: World, tmp_path: Path
) -> None:
    with start_stage(world, {**LONG, "restarts": 0}, tmp_path) as started:
        both = two_at_work(started, tmp_path / "kept")
        both[1].kill()
        output, _ = started.communicate(timeout=PATIENCE)
    assert started.returncode == 1
    last = output.splitlines()[-1]
    assert "of 2 training processes ended without a word (killed, or out of" in last
    assert ", 1 times with training.restarts = 0; torchrun ended with code 1." in last
    assert "Traceback" not in output
    assert gone(both)
    assert read_json(tmp_path / "out" / "execution.json")["code"] == 1
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(
    ("by", "code"), [(signal.SIGKILL, "-9"), (signal.SIGTERM, "143")]
)
def test_a_launcher_that_ends_alone_leaves_no_process_and_tries_nothing_again(
    started: Child, tmp_path: Path, by: signal.Signals, code: str
) -> None:
    both = two_at_work(started, tmp_path / "kept")
    (launcher,) = psutil.Process(started.pid).children()
    launcher.send_signal(by)
    output, _ = started.communicate(timeout=PATIENCE)
    # Python's own helper of a killed launcher may have a last word.
    assert f"out of memory); torchrun ended with code {code}. Give" in output
    assert "training.restarts" not in output
    assert gone(both)


def test_processes_that_are_killed_begin_again_and_make_the_same_model(
    started: Child, world: World, tmp_path: Path
) -> None:
    for killed in (0, 1):
        both = two_at_work(started, tmp_path / "kept")
        both[killed].kill()
        assert gone(both)
    output, _ = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, output
    lost = [line for line in output.splitlines() if " was lost (SIGKILL); " in line]
    assert len(lost) == 2
    assert "training goes on from the checkpoint of " in lost[0]
    assert lost[0].endswith("s ago, 2 of 2 times left.")
    assert lost[1].endswith("s ago, 1 of 2 times left.")
    assert "Traceback" not in output
    same_as_undisturbed(world, tmp_path)


def test_without_a_place_the_checkpoints_live_as_long_as_the_stage(
    world: World, tmp_path: Path
) -> None:
    """Nobody has named one: a process that is lost costs no more than that.

    And a folder for temporary files may have a longer name than a socket may.
    """
    scratch = tmp_path / ("scratch" * 20)
    scratch.mkdir()
    by_the_clock = {**LONG, "steps": 2500, "checkpoint_every": 0}
    variables = {"TMPDIR": str(scratch), "SAFESCALE_CHECKPOINTS": ""}
    with start_stage(world, by_the_clock, tmp_path, **variables) as stage:
        both = two_at_work(stage, scratch, "safescale-*/checkpoints/step-*")
        both[0].kill()
        output, _ = stage.communicate(timeout=PATIENCE)
    assert stage.returncode == 0, output
    assert "training goes on from the checkpoint of " in output
    assert "Went on from the checkpoint before step" in output
    assert not list(scratch.glob("safescale-*"))


def test_only_a_long_name_sends_the_socket_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room = "/" + "t" * (torchrun.SHORT - 1)
    assert torchrun.socket_folder(room) == room
    missing = str(tmp_path / "missing")
    monkeypatch.setattr(torchrun, "SHORT_FOLDERS", (missing, str(tmp_path)))
    assert torchrun.socket_folder(room + "t") == str(tmp_path)
    # Bytes, not letters.
    assert torchrun.socket_folder("/" + "ä" * (torchrun.SHORT // 2)) == str(tmp_path)
    monkeypatch.setattr(torchrun, "SHORT_FOLDERS", (missing,))
    with pytest.raises(ConfigError, match=r"TMPDIR has 71 bytes.+shorter TMPDIR"):
        torchrun.socket_folder(room + "t")


def same_as_undisturbed(world: World, folder: Path) -> None:
    local = {**LONG, "backend": "local", "processes": 1, "checkpoint_every": 0}
    train_agents.run(**given(world, local, folder / "undisturbed"))
    undisturbed = verify(folder / "undisturbed")
    assert verify(folder / "out" / "model").identity == undisturbed.identity


def test_sigterm_keeps_a_checkpoint_and_the_next_attempt_makes_the_same_model(
    started: Child, world: World, tmp_path: Path
) -> None:
    both = two_at_work(started, tmp_path / "kept")
    started.send_signal(signal.SIGTERM)
    output, _ = started.communicate(timeout=PATIENCE)
    assert started.returncode == 1
    assert "was stopped by SIGTERM" in output.splitlines()[-1]
    assert gone(both)
    with start_stage(world, LONG, tmp_path) as again:
        output, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, output
    assert "Went on from the checkpoint before step" in output
    assert not list((tmp_path / "kept").glob("step-*/*"))
    same_as_undisturbed(world, tmp_path)


def test_a_stage_that_is_killed_leaves_no_process(
    started: Child, tmp_path: Path
) -> None:
    both = two_at_work(started, tmp_path / "kept")
    launcher = psutil.Process(started.pid).children()
    started.kill()
    started.communicate()
    assert gone([*both, *launcher])


# --- the worker by itself ---


S3 = tuple[Store, dict[str, str]]


@pytest.fixture
def s3(s3_store: Store, s3_environ: dict[str, str]) -> S3:
    return s3_store, s3_environ


def worker(*command: str, **more: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**environ(), **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stderr.splitlines()


def forked_worker(request: Path) -> tuple[int | None, list[str]]:
    """Runs one that need not import torch anew to say what it has to say."""
    name = "safescale_ammt.launch.worker"
    warm("safescale_ammt.launch.task")
    with Fork(as_module, [name, str(request)], {"OMP_NUM_THREADS": "1"}) as process:
        _, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, errors.splitlines()


def test_torchrun_s_own_workers_take_from_a_store_and_bring_back_to_it(
    world: World, tmp_path: Path, s3: S3
) -> None:
    s3_store, s3_environ = s3
    for name in ("dataset", "architecture"):
        s3_store.upload_folder(world.folder / name, name)
    places = ("dataset", "architecture", "model", "checkpoints", "report")
    request = {name: f"{s3_store.uri}/{name}" for name in places}
    request |= {
        "constitution": world.constitution,
        "training": {**TWO, "checkpoint_every": 1},
    }
    s3_store.put("request.json", json.dumps(request).encode())
    code, lines = worker(
        *("torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "safescale_ammt.launch.worker", f"{s3_store.uri}/request.json"),
        **s3_environ,
    )
    assert code == 0, lines
    left = {info.key.partition("/")[0] for info in s3_store.list()}
    assert left == {"dataset", "architecture", "request.json", "model"}
    model = tmp_path / "fetched"
    s3_store.download_folder("model", model)
    assert verify(model, "model").identity == verify(world.inputs[3]).identity


def test_a_worker_names_what_is_wrong_with_its_request(
    world: World, tmp_path: Path
) -> None:
    request = given(world, TWO, tmp_path / "model")
    cases = [
        ({**request, "report": str(tmp_path / "r")}, "processes is 2, but 1 were"),
        ({**request, "seed": 1}, "has the unknown key 'seed'"),
        ({**request, "model": ""}, "has 'model' = '', expected a place"),
    ]
    for asked, said in cases:
        write_json(tmp_path / "request.json", asked)
        code, lines = forked_worker(tmp_path / "request.json")
        assert code == 2
        assert said in lines[-1]
    report = open_store((tmp_path / "r").as_uri()).get("rank-0.json")
    assert json.loads(report)["code"] == 2
    code, lines = worker("safescale_ammt.launch.worker", str(tmp_path / "none.json"))
    assert (code, "none.json does not exist" in lines[-1]) == (2, True)
