"""A person at a laptop: a small table, a workload, and the real command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from children import Child
from patience import PATIENCE, eventually

from safescale_ammt.files.canonical import read_json
from safescale_ammt.store.embedded.server import EmbeddedStore

ROOT = Path(__file__).parents[2]
STAGES = (
    "prepare_data",
    "search_architecture",
    "train_agents",
    "evaluate_safety",
    "register_model",
)
CONSTITUTION: dict[str, Any] = {
    "schema": 1,
    "constitution": {"id": "loans", "version": "1.0.0", "owner": "tests"},
    "principles": [
        {
            "id": "equal-opportunity",
            "constraint": {"metric": "tpr_gap", "group": "sex", "threshold": 0.2},
        },
        {
            "id": "useful",
            "constraint": {
                "metric": "accuracy",
                "reference": "unconstrained_twin",
                "delta": -0.05,
                "floor": 0.6,
            },
        },
    ],
}
WORKLOAD: dict[str, Any] = {
    "schema": 1,
    "constitution_file": "constitution.yaml",
    "data": {
        "source": "people.csv",
        "sealed_source": "sealed.csv",
        "label": "granted",
        "positive": "yes",
        "sensitive": ["sex"],
    },
    "search": {
        "candidates": 2,
        "rung_steps": 5,
        "rungs": 1,
        "power_draws": 200,
        "feasibility_steps": 0,
    },
    "training": {
        "num_agents": 2,
        "steps": 80,
        "trunk_steps": 20,
        "batch_size": 128,
        "folds": 2,
    },
    "registry": {"name": "loans"},
}


def write_people(path: Path, rows: int, seed: int) -> None:
    """Writes a made-up table: who was granted a loan."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], rows)
    income = rng.normal(50, 15, rows) + 2 * (sex == "m")
    debt = rng.exponential(20, rows)
    job = rng.choice(["none", "part", "full"], rows, p=[0.2, 0.3, 0.5])
    score = (income - 50) / 8 - (debt - 20) / 15 + 1.5 * (job == "full")
    granted = np.where(score + rng.logistic(0, 1, rows) > 0, "yes", "no")
    with path.open("w", encoding="utf-8") as file:
        file.write("income,debt,job,sex,granted\n")
        for row in zip(income.round(2), debt.round(2), job, sex, granted, strict=True):
            file.write(",".join(map(str, row)) + "\n")


class Laptop:
    """A folder with data and workload in which `safescale` is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        write_people(folder / "people.csv", 6000, seed=1)
        write_people(folder / "sealed.csv", 4000, seed=2)
        self.write("constitution.yaml", CONSTITUTION)
        self.write("loans.yaml", WORKLOAD)

    def store(self) -> EmbeddedStore:
        """The store of this folder; while a test holds it open, all calls join it."""
        return EmbeddedStore(self.folder / ".safescale" / "store")

    def write(self, name: str, value: Any) -> None:
        """Writes a YAML file."""
        (self.folder / name).write_text(yaml.safe_dump(value), encoding="utf-8")

    def start(self, *arguments: str, stderr: int = subprocess.STDOUT) -> Child:
        """Starts `safescale` and returns its process; output is one stream.

        Unless `stderr` names a file of its own for what is no result.
        """
        environ = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environ.pop("SAFESCALE_STORE", None)
        path = os.pathsep.join(filter(None, (str(ROOT), environ.get("PYTHONPATH"))))
        return Child(
            [sys.executable, "-m", "pipelines", *arguments],
            cwd=self.folder,
            env={**environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def call(self, *arguments: str) -> tuple[int, list[str]]:
        """Runs `safescale` to its end; returns exit code and lines."""
        with self.start(*arguments) as process:
            output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output.splitlines()

    def run(self, *arguments: str) -> tuple[int, str]:
        """Runs the workload; returns exit code and last line."""
        code, lines = self.call("run", "--config", "loans.yaml", *arguments)
        return code, lines[-1]

    def start_run(self, *arguments: str) -> Child:
        """Starts the workload."""
        return self.start("run", "--config", "loans.yaml", *arguments)

    @property
    def record(self) -> dict[str, Any]:
        """`run.json` of the run that began last, refused ones too."""
        records = map(read_json, self.folder.glob("runs/2*/run.json"))
        return dict(max(records, key=lambda record: record["started"]))

    def identities(self, *names: str) -> list[str]:
        """Identity digests of artifacts of the latest run."""
        return [self.record["artifacts"][name]["identity"] for name in names]

    def processes(self) -> list[psutil.Process]:
        """Lists every living process that works in or on this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [process.cwd(), *process.cmdline()]
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                continue
            if any(str(self.folder) in word for word in words):
                found.append(process)
        return found

    def stages(self, *names: str) -> list[psutil.Process]:
        """Lists the living processes of stages, those of all without a name."""
        # Linux keeps 15 characters of what a process calls itself.
        wanted = {name[:15] for name in names or STAGES}
        return [p for p in self.processes() if comm_of(p) in wanted]

    @contextmanager
    def without_store(self) -> Iterator[None]:
        """Kills this folder's object store and lets it rise again afterwards."""
        keeper = next(p for p in self.processes() if _is_supervisor(p))
        keeper.suspend()
        for server in keeper.children():
            server.kill()
        try:
            yield
        finally:
            keeper.resume()

    def is_quiet(self) -> bool:
        """Waits until none of these processes is left."""
        return bool(eventually(lambda: not self.processes(), every=0.2))


def words_of(process: psutil.Process) -> list[str]:
    """Returns a process' command line, nothing if it has ended."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return []


def comm_of(process: psutil.Process) -> str:
    """Returns what a process calls itself, nothing if it has ended."""
    try:
        return Path("/proc", str(process.pid), "comm").read_text().strip()
    except OSError:
        return ""


def _is_supervisor(process: psutil.Process) -> bool:
    return any(word.endswith("supervisor.py") for word in words_of(process))


def wait_for(process: Child, text: str) -> None:
    """Reads a process' output until a line holds a text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"The process ended without saying {text!r}.")


def end_hard(process: Child) -> None:
    """Kills a process with -9 and reaps it."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
