"""Loading: what `safescale run` has imported when its first stage starts, and time.

Nothing of ours is changed for it. A `sitecustomize` that Python imports by itself
hears of every process that is started (`sys.addaudithook`). The first whose command
line holds KFP's `--executor_input` is the first stage's, or that which the warm process
forks; at that moment the process that asks for it and its parent, the command itself,
write down their `sys.modules`.
The run is stopped then. The servers of the embedded store are not counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.counting.source import HOUSE

PATIENCE = 120.0
"""Seconds that the first stage may take to start."""

_HOOK = """
import os, signal, sys
# A fork gets another environment later.
folder = os.environ["LOADED"]
def write(*_):
    with open(f"{folder}/{os.getpid()}.part", "w") as file:
        file.write("\\n".join(sorted(sys.modules)))
    os.replace(f"{folder}/{os.getpid()}.part", f"{folder}/{os.getpid()}.txt")
def name(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
def hear(event, given):
    if event not in ("subprocess.Popen", "os.fork"):
        return
    if os.path.exists(f"{folder}/{os.getpid()}.txt"):
        return
    # A stage that starts cold, or the process that stages are forked from.
    stage = "--executor_input", "pipelines.local.warm"
    if event == "subprocess.Popen" and any(s in str(given[1]) for s in stage):
        write()
        os.kill(os.getppid(), signal.SIGUSR1)
    # That process forks the first stage; its parent is the child, and that one's ours.
    if event == "os.fork" and name(os.getpid()) == "safescale-warm":
        child = os.getppid()
        with open(f"/proc/{child}/stat") as file:
            command = int(file.read().rpartition(")")[2].split()[1])
        for pid in (child, command):
            os.kill(pid, signal.SIGUSR1)
signal.signal(signal.SIGUSR1, write)
sys.addaudithook(hear)
"""
_CONSTITUTION = {
    "schema": 1,
    "constitution": {"id": "loans", "version": "1.0.0", "owner": "benchmarks"},
    "principles": [
        {
            "id": "equal-opportunity",
            "constraint": {"metric": "tpr_gap", "group": "sex", "threshold": 0.2},
        }
    ],
}
_WORKLOAD = {
    "schema": 1,
    "constitution_file": "constitution.yaml",
    "data": {
        "source": "people.csv",
        "sealed_source": "sealed.csv",
        "label": "granted",
        "positive": "yes",
        "sensitive": ["sex"],
    },
    "registry": {"name": "loans"},
}


def loaded_before_first_stage(root: Path) -> dict[str, set[str]]:
    """Returns the modules of the command's process and of its child that runs KFP.

    The store is the embedded one, as by default; the data are two tiny tables.

    Raises:
        RuntimeError: no stage was started; the message holds the command's output.
    """
    with tempfile.TemporaryDirectory(prefix="house-") as scratch:
        world, hook, dumps = (Path(scratch) / n for n in ("world", "hook", "dumps"))
        for folder in (world, hook, dumps):
            folder.mkdir()
        (hook / "sitecustomize.py").write_text(_HOOK)
        _write_world(world)
        environ = {**_environ(hook, root), "LOADED": str(dumps)}
        command = [sys.executable, "-m", "pipelines", "run", "--config", "loans.yaml"]
        with (world / "output").open("wb") as output:
            process = subprocess.Popen(
                command, cwd=world, env=environ, stdout=output, stderr=output
            )
            try:
                _wait(process, dumps)
            finally:
                process.terminate()
                process.wait()
        found = {p.stem: set(p.read_text().split("\n")) for p in dumps.glob("*.txt")}
        if len(found) != 2:
            raise RuntimeError(
                "No stage was started: " + (world / "output").read_text()
            )
        own = {"sitecustomize"}
        command_modules = found.pop(str(process.pid)) - own
        return {"command": command_modules, "child": found.popitem()[1] - own}


def ours(modules: set[str]) -> set[str]:
    """Returns the modules that belong to the house."""
    return {m for m in modules if m.split(".")[0] in HOUSE}


def seconds(root: Path, *arguments: str, times: int = 5) -> list[float]:
    """Returns how long Python takes with these arguments, start and end included."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            cwd=root,
            env=_environ(root),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        found.append(time.perf_counter() - start)
    return found


def median(values: list[float]) -> float:
    """Returns the median, rounded to milliseconds."""
    return round(statistics.median(values), 3)


def _environ(*folders: Path) -> dict[str, str]:
    """Returns the environment in which Python finds these folders first."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SAFESCALE"))
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, folders))}


def _wait(process: subprocess.Popen[bytes], dumps: Path) -> None:
    """Waits until both processes have written, or the command has ended."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(dumps.glob("*.txt"))) == 2:
            return
        time.sleep(0.05)


def _write_world(folder: Path) -> None:
    """Writes a workload; JSON is YAML too."""
    (folder / "constitution.yaml").write_text(json.dumps(_CONSTITUTION))
    (folder / "loans.yaml").write_text(json.dumps(_WORKLOAD))
    for name, shift in (("people.csv", 0), ("sealed.csv", 1)):
        rows = [
            f"{40 + (7 * i + shift) % 31},{'fm'[i % 2]},{('yes', 'no')[i % 3 == 0]}"
            for i in range(200)
        ]
        text = "\n".join(["income,sex,granted", *rows]) + "\n"
        (folder / name).write_text(text)
