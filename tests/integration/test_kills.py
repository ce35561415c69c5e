"""Whatever is killed, whenever: no process stays, no work is lost or invented."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from children import background
from laptop import STAGES, Laptop, end_hard, wait_for
from patience import PATIENCE, eventually


@pytest.fixture
def laptop(tmp_path) -> Laptop:
    return Laptop(tmp_path / "laptop")


def test_a_run_killed_in_every_stage_ends_as_an_undisturbed_one(laptop, tmp_path):
    undisturbed = Laptop(tmp_path / "undisturbed")
    assert undisturbed.run()[0] == 0
    for stage in STAGES:
        process = laptop.start_run()
        wait_for(process, f"{stage} ...")
        end_hard(process)
        assert laptop.is_quiet(), [p.cmdline() for p in laptop.processes()]
        assert laptop.record["exit_code"] is None
        assert laptop.record["stages"][-1] == {"stage": stage, "status": "running"}
    assert laptop.run()[0] == 0
    cached = {s["stage"]: s["cached"] for s in laptop.record["stages"]}
    assert cached == {name: name != "register_model" for name in STAGES}
    names = ("dataset", "holdout", "architecture", "model", "verdict")
    assert laptop.identities(*names) == undisturbed.identities(*names)
    assert laptop.record["verdict"] == undisturbed.record["verdict"]
    assert laptop.record["version"]["version"] == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_stage_and_is_recorded(laptop, signum):
    process = laptop.start_run()
    wait_for(process, "search_architecture ...")
    process.send_signal(signum)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert output.splitlines()[-1] == laptop.record["sentence"]
    assert signum.name in laptop.record["sentence"]
    assert laptop.record["exit_code"] == 1
    assert laptop.is_quiet()


def test_a_run_in_the_background_ignores_sigint_and_heeds_sigterm(laptop):
    with background():
        process = laptop.start_run()
    wait_for(process, "search_architecture ...")
    for one in (process, _stage_process(laptop, "search_architecture")):
        assert _ignores(one.pid, signal.SIGINT)
        one.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "SIGTERM" in output.splitlines()[-1]
    assert laptop.is_quiet()


def test_a_stage_that_is_killed_is_told_from_one_that_refuses(laptop):
    process = laptop.start_run()
    wait_for(process, "search_architecture ...")
    _stage_process(laptop, "search_architecture").kill()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "search_architecture ended without a word" in output.splitlines()[-1]
    assert laptop.record["stages"][-1]["status"] == "failed"
    assert laptop.is_quiet()


def test_a_runner_that_is_killed_leaves_no_stage_behind(laptop):
    process = laptop.start_run()
    wait_for(process, "search_architecture ...")
    runner = next(p for p in laptop.processes() if p.name() == "safescale-child")
    runner.kill()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "runner vanished" in output.splitlines()[-1]
    assert laptop.is_quiet()


def test_what_stages_are_forked_from_is_killed_and_takes_its_stage_along(laptop):
    process = laptop.start_run()
    wait_for(process, "search_architecture ...")
    stage = _stage_process(laptop, "search_architecture")
    stage.parent().kill()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "search_architecture ended without a word" in output.splitlines()[-1]
    assert laptop.is_quiet()


def test_a_run_that_takes_too_long_is_stopped(laptop):
    code, last = laptop.run("--set", "search.rung_steps=1000000", "--timeout", "4")
    assert code == 1
    assert "took longer than 4 s" in last
    assert laptop.is_quiet()


def test_a_stage_that_takes_too_long_is_stopped_and_the_next_run_goes_on(laptop):
    assert laptop.run()[0] == 0
    endless = ("--set", "search.rung_steps=1000000")
    code, last = laptop.run(*endless, "--stage-timeout", "4")
    assert code == 1
    assert last == (
        "search_architecture took longer than 4 s and was stopped; --stage-timeout "
        "gives it more, and finished stages are kept."
    )
    assert laptop.record["stages"][0]["cached"]
    assert laptop.is_quiet()


def test_a_stage_that_hears_nothing_is_killed_when_its_time_is_up(laptop):
    endless = ("--set", "search.rung_steps=1000000")
    # The stage before it is in the cache, so that the limit is for this one.
    process = laptop.start_run(*endless)
    wait_for(process, "search_architecture ...")
    end_hard(process)
    assert laptop.is_quiet()
    process = laptop.start_run(*endless, "--stage-timeout", "15")
    wait_for(process, "search_architecture ...")
    # Stopped, it takes no signal but SIGKILL: as if stuck in a driver.
    _stage_process(laptop, "search_architecture").suspend()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "search_architecture took longer than 15 s" in output.splitlines()[-1]
    assert laptop.is_quiet()


def _ignores(pid: int, signum: int) -> bool:
    """Asks Linux whether a process ignores a signal."""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (signum - 1) & 1)


def _stage_process(laptop: Laptop, stage: str):
    """Waits for the process of a stage."""
    return eventually(lambda: laptop.stages(stage))[0]
