"""What a person sees of a run on a terminal, and what a pipe gets."""

from __future__ import annotations

import os
import pty
import re
import threading
import time
from contextlib import suppress

import psutil
import pytest
from children import Child
from laptop import STAGES, Laptop
from patience import PATIENCE, eventually


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """A laptop whose store is up."""
    laptop = Laptop(tmp_path_factory.mktemp("terminal"))
    with laptop.store():
        yield laptop


def run_on_terminal(laptop: Laptop, *arguments: str) -> tuple[int, list[str], str]:
    """Runs the workload with a terminal behind standard error.

    Returns:
        Exit code, lines of standard output, and all that the terminal was sent.
    """
    screen, terminal = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        # Linux ends the output of a terminal that nobody writes to with an error.
        try:
            while data := os.read(screen, 65536):
                seen.append(data)
        except OSError:
            return

    with laptop.start(
        "run", "--config", "loans.yaml", *arguments, stderr=terminal
    ) as child:
        os.close(terminal)
        reader = threading.Thread(target=read)
        reader.start()
        output, _ = child.communicate(timeout=PATIENCE)
        reader.join(PATIENCE)
    os.close(screen)
    return child.returncode, output.splitlines(), b"".join(seen).decode()


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def test_a_terminal_shows_how_far_each_stage_is_in_one_line_that_changes(laptop):
    code, lines, screen = run_on_terminal(laptop)
    assert code == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    for stage in STAGES:
        assert f"{stage} done (" in shown
    for progress in (
        r"search_architecture \d+%, [12] of 2 candidates \(local\)",
        r"train_agents \d+%, (step \d+ of 80|merging the agents)",
        r"evaluate_safety (25|50|75)%, ",
    ):
        assert re.search(progress, shown), progress
    # The lines that stay are those of a pipe; the others were wiped away.
    kept = [line for line in shown.split("\n") if " done (" in line]
    assert len(kept) == len(STAGES)
    assert "safescale-progress" not in screen
    # Standard output holds the result alone.
    assert [line.partition(":")[0] for line in lines] == [
        "loans version 1 is champion.",
        "Report",
        "Record",
    ]


def hold_back(laptop: Laptop, run: Child, lines: list[str]) -> None:
    """Makes training slow, however fast the machine is, until a line tells of it."""
    eventually(lambda: any("train_agents ..." in line for line in lines))
    stage = eventually(lambda: laptop.stages("train_agents"))[0]
    while run.poll() is None and not any("%, step " in line for line in lines):
        with suppress(psutil.NoSuchProcess):
            stage.suspend()
            time.sleep(0.6)
            stage.resume()
        time.sleep(0.1)


def test_a_pipe_gets_plain_lines_and_says_how_far_a_slow_stage_is(laptop):
    lines: list[str] = []
    with laptop.start(
        *("run", "--config", "loans.yaml", "--no-cache", "--rehearse"),
        *("--set", "training.steps=1500"),
    ) as child:
        reader = threading.Thread(target=lambda: lines.extend(child.stdout))
        reader.start()
        hold_back(laptop, child, lines)
        assert child.wait(PATIENCE) == 0
        reader.join(PATIENCE)
    run = laptop.record["run"]
    told = [line.rstrip("\n") for line in lines if " train_agents " in line]
    steps = [line for line in told if "%, step " in line]
    assert steps
    assert len(steps) < 20
    pattern = rf"\[{run}\] train_agents \d+%, step \d+ of 1500(, .+)?"
    assert all(re.fullmatch(pattern, line) for line in steps)
    assert "\x1b" not in "".join(lines)
