"""A run that is killed together with those above it leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from children import Child
from laptop import ROOT, STAGES, Laptop, wait_for, words_of
from patience import PATIENCE, eventually

from safescale_ammt.parent_death import PARENT, RUN_LOCK, run_lock


@pytest.fixture
def laptop(tmp_path) -> Laptop:
    return Laptop(tmp_path / "laptop")


def _kill_at_once(process: Child, *others: psutil.Process) -> None:
    """Kills processes with -9, none of which sees another one go."""
    everybody = [psutil.Process(process.pid), *others]
    for one in everybody:
        one.suspend()
    for one in everybody:
        one.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _named(laptop: Laptop, *words: str) -> list[psutil.Process]:
    return [p for p in laptop.processes() if set(words) <= set(words_of(p))]


def _called_of(laptop: Laptop, part: str) -> list[psutil.Process]:
    return [p for p in laptop.processes() if any(part in w for w in words_of(p))]


def _runner(laptop: Laptop) -> psutil.Process:
    return eventually(lambda: _called(laptop, "safescale-child"))[0]


def _called(laptop: Laptop, name: str) -> list[psutil.Process]:
    return [p for p in laptop.processes() if p.name() == name]


def test_a_run_and_its_runner_killed_at_once_leave_no_stage(laptop):
    for stage in STAGES:
        process = laptop.start_run()
        wait_for(process, f"{stage} ...")
        eventually(laptop.stages)
        _kill_at_once(process, _runner(laptop))
        assert laptop.is_quiet(), [p.cmdline() for p in laptop.processes()]
    # What they had finished is kept, and the next run goes on from it.
    assert laptop.run()[0] == 0


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0, 3.0])
def test_they_leave_nothing_while_they_come_up(laptop, seconds):
    process = laptop.start_run()
    runner = _runner(laptop)
    # Not a wait: each moment of the start is one to be killed at.
    time.sleep(seconds)
    _kill_at_once(process, runner)
    assert laptop.is_quiet()


def test_a_run_and_all_that_watch_over_it_killed_at_once_leave_nothing(laptop):
    process = laptop.start_run()
    wait_for(process, "search_architecture ...")
    keepers = [
        p
        for p in laptop.processes()
        if any(word.endswith("supervisor.py") for word in words_of(p))
    ]
    assert len(keepers) == 1
    _kill_at_once(process, _runner(laptop), *keepers)
    assert laptop.is_quiet()


def test_a_shell_killed_with_its_run_leaves_nothing(laptop):
    command = f"{sys.executable} -m pipelines run --config loans.yaml; true"
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for text in ("store and data ...", "search_architecture ..."):
        shell = Child(
            ["sh", "-c", command],
            cwd=laptop.folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        wait_for(shell, text)
        os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate(timeout=PATIENCE)
        assert laptop.is_quiet()


@pytest.mark.parametrize("stage_too", [False, True])
def test_the_processes_of_a_spread_training_end_with_the_run(laptop, stage_too):
    torchrun = ("--set", "training.backend=torchrun", "--set", "training.processes=2")
    endless = ("--set", "training.steps=1000000")
    process = laptop.start_run(*torchrun, *endless)
    wait_for(process, "train_agents ...")
    # A fork server and its two forks, with the same words.
    eventually(lambda: len(_called_of(laptop, "forkserver")) >= 3)
    warm = _called(laptop, "safescale-warm")
    assert warm
    stages = warm if stage_too else []
    _kill_at_once(process, _runner(laptop), *stages)
    assert laptop.is_quiet()


WAITS = """
import sys, time
from safescale_ammt.parent_death import end_with_parent, end_with_run
end_with_run()
end_with_parent()
print("up", flush=True)
time.sleep(600)
"""


def _waiting(**environ: str) -> Child:
    return Child(
        [sys.executable, "-c", WAITS],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_process_whose_parent_was_gone_before_it_asked_ends_at_once():
    orphan = _waiting(**{PARENT: "1"})
    assert orphan.communicate(timeout=PATIENCE)[0] == ""
    assert orphan.returncode == -signal.SIGTERM
    child = _waiting(**{PARENT: str(os.getpid())})
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"


def test_a_process_ends_once_the_lock_of_its_run_is_free(tmp_path):
    with run_lock(tmp_path / "lock"):
        held = _waiting(**{RUN_LOCK: str(tmp_path / "lock")})
        assert held.stdout is not None
        assert held.stdout.readline() == "up\n"
        assert held.poll() is None
    assert held.wait(PATIENCE) == -signal.SIGKILL
    late = _waiting(**{RUN_LOCK: str(tmp_path / "lock")})
    assert late.wait(PATIENCE) == -signal.SIGKILL
    gone = _waiting(**{RUN_LOCK: str(tmp_path / "none")})
    assert gone.wait(PATIENCE) == -signal.SIGKILL
