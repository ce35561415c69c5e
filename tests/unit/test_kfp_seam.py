"""KFP's local runner behind its seam: what it hands over, and what it takes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safescale_ammt import __version__

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The pipeline root, and what the seam handed over, in order."""
    root = tmp_path_factory.mktemp("root")
    done = subprocess.run(
        [sys.executable, str(HERE / "seam_run.py"), str(root)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    # KFP indents what a task prints.
    lines = (line.strip() for line in done.stdout.splitlines())
    return root, [json.loads(line) for line in lines if line.startswith("{")]


def test_a_task_is_handed_over_in_our_words(calls):
    root, lines = calls
    task = next(line["task"] for line in lines if "task" in line)
    folder = Path(task.pop("folder"))
    assert folder.is_relative_to(root)
    assert folder.name == "prepare-data"
    assert task == {
        "stage": "prepare_data",
        "executor": "exec-prepare-data",
        "is_exit": False,
        "outputs": ["dataset", "holdout"],
        "success": False,
        "made": 0,
    }


def test_a_container_is_started_by_us_with_kfps_own_command(calls):
    _, lines = calls
    container = next(line for line in lines if "image" in line)
    assert container["image"] == f"safescale-ammt/prepare_data:{__version__}"
    assert "parameterValues" in container["inputs"]


def test_after_a_failed_stage_only_the_exit_task_runs(calls):
    _, lines = calls
    tasks = [line["task"] for line in lines if "task" in line]
    assert [(t["stage"], t["is_exit"]) for t in tasks] == [
        ("prepare_data", False),
        ("notify", True),
    ]
