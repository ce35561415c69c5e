"""A training whose processes are killed at random times, watched from outside.

The stage runs as it does below a run, and tells its steps as they are done. Those of an
attempt count as useful up to the step from which the next attempt goes on; what it did
beyond is done anew. Goodput is the time of useful steps by the time from the stage's
start to its end: starts, imports, lost steps, restarts and the merge are in the rest.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import verify, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.launch.request import CHECKPOINTS
from safescale_ammt.model.genome import Genome
from safescale_ammt.stage_progress import PROGRESS, progress_of
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE

PROCESSES = 8
STAGE = """
import json, sys
from safescale_ammt.execution import stage
from safescale_ammt.stages.train_agents import run
given = json.loads(sys.argv[1])
with stage("train_agents", given["model"]):
    run(**given)
"""
PROMISES = {
    "schema": 1,
    "principles": [
        {
            "id": "equal-opportunity",
            "constraint": {"metric": "tpr_gap", "group": "side", "threshold": 0.3},
        }
    ],
}
SPLITS = dict.fromkeys(("validation", "constraint", "monitor", "select"), 0.1)
SPLITS |= {"train": 0.4, "sealed": 0.2}
_STEP = re.compile(r"step (\d+) of \d+")
_RESUMED = re.compile(r"Went on from the checkpoint before step (\d+)")


@dataclass
class Attempt:
    """What was seen of one attempt: the step that it began at, and when which was."""

    start: int = 0
    seen: list[tuple[float, int]] = field(default_factory=list)

    def seconds(self, until: int) -> float:
        """Returns how long its steps up to one of them took."""
        mine = [(at, step) for at, step in self.seen if step >= self.start]
        useful = [at for at, step in mine if step <= until]
        return useful[-1] - mine[0][0] if useful else 0.0


def killed(part: str, seed: int, kills: int, steps: int) -> dict[str, Any]:
    """Runs a training that is killed, and one that is not; compares them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = task(folder, seed, steps)
        random_ = random.Random(seed)
        at = sorted(random_.sample(range(steps // 20, steps * 19 // 20), kills))
        victims = random_.sample(range(PROCESSES), kills)
        spread = {"backend": "torchrun", "processes": PROCESSES, "restarts": kills}
        how = spread if part == "kills" else {}
        given["training"] |= how
        begun = time.monotonic()
        attempts = list(watched(given, folder, dict(zip(at, victims, strict=True))))
        wall = time.monotonic() - begun
        ends = [a.start for a in attempts[1:]] + [steps]
        parts = zip(attempts, ends, strict=True)
        useful = sum(attempt.seconds(end) for attempt, end in parts)
        lost = [
            max(step for _, step in a.seen) - end
            for a, end in zip(attempts[:-1], ends[:-1], strict=True)
        ]
        model = verify(Path(given["model"]), "model").identity
        given["training"] = {k: v for k, v in given["training"].items() if k not in how}
        given["model"] = str(folder / "undisturbed" / "model")
        list(watched(given, folder, {}))
        undisturbed = verify(Path(given["model"]), "model").identity
    row: dict[str, Any] = {"part": part, "sharing": "", "way": "", "size": ""}
    row |= {"seed": seed, "kills": len(attempts) - 1, "lost_steps": lost}
    row |= {"goodput_wall_s": useful / wall, "wall_s": wall}
    return {**row, "steps": steps, "same_model": model == undisturbed}


def task(folder: Path, seed: int, steps: int) -> dict[str, Any]:
    """Writes a small table and a genome; returns what the stage is given."""
    random_ = random.Random(seed)
    lines = ["size,age,side,grade"]
    for _ in range(3000):
        size, age, side = (
            random_.gauss(0, 1),
            random_.gauss(0, 1),
            random_.random() < 0.5,
        )
        grade = size + 0.5 * age * size + 0.3 * side + random_.gauss(0, 1) > 0
        lines.append(f"{size:.3f},{age:.3f},{'lr'[side]},{('no', 'yes')[grade]}")
    (folder / "raw.csv").write_text("\n".join(lines) + "\n")
    source = (folder / "raw.csv").as_uri()
    data: dict[str, Any] = {"source": source, "label": "grade", "positive": "yes"}
    data |= {"sensitive": ["side"], "splits": SPLITS}
    place = {STORE: (folder / "store").as_uri()}
    prepare_data.run(data, folder / "dataset", folder / "holdout", environ=place)
    parents = {
        "dataset": verify(folder / "dataset", "dataset").identity,
        "constitution": Constitution.from_dict(PROMISES).digest,
    }
    searched = folder / "architecture"
    with writing(
        searched, kind="architecture", stage="chaos", parents=parents
    ) as draft:
        write_json(draft.folder / "genome.json", Genome(widths=(64, 32)).to_dict())
    return {
        "dataset": str(folder / "dataset"),
        "architecture": str(searched),
        "constitution": PROMISES,
        "training": {
            "steps": steps,
            "trunk_steps": steps // 10,
            "branch": 0.0,
            "seed": seed,
        },
        "model": str(folder / "out" / "model"),
    }


def watched(
    given: Mapping[str, Any], folder: Path, kills: Mapping[int, int]
) -> Iterator[Attempt]:
    """Runs the stage until the model stands; yields its attempts.

    Args:
        given: the stage's arguments.
        folder: of the checkpoints.
        kills: step after which a process is killed -> which.
    """
    waiting, attempt = sorted(kills.items()), Attempt()
    spread = given["training"].get("backend") == "torchrun"
    while True:
        with started(given, folder) as stage:
            assert stage.stdout is not None
            for line in stage.stdout:
                if " was lost (SIGKILL); " in line:
                    yield attempt
                    attempt = Attempt()
                elif resumed := _RESUMED.search(line):
                    attempt.start, attempt.seen = int(resumed[1]), []
                told = progress_of(line)
                if told is None or not (step := _STEP.match(told[1])):
                    continue
                attempt.seen.append((time.monotonic(), int(step[1])))
                if waiting and int(step[1]) >= waiting[0][0]:
                    victim = waiting.pop(0)[1]
                    pid = workers(stage.pid)[victim] if spread else stage.pid
                    os.kill(pid, signal.SIGKILL)
        if stage.returncode != -signal.SIGKILL:
            break
        yield attempt
        attempt = Attempt()
    if stage.returncode:
        raise SystemExit(f"The stage ended with code {stage.returncode}.")
    yield attempt


def started(given: Mapping[str, Any], folder: Path) -> subprocess.Popen[str]:
    """Starts the stage; its output is read line by line."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), PROGRESS: "1"}
    environ |= {"OMP_NUM_THREADS": "1", CHECKPOINTS: (folder / "kept").as_uri()}
    command = [sys.executable, "-u", "-c", STAGE, json.dumps(given)]
    return subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def workers(stage: int) -> list[int]:
    """Returns the forks of the fork server below a stage, in the order of start."""
    words = Path(f"/proc/{stage}/cmdline").read_text()
    below = [pid for child in children(stage) for pid in workers(child)]
    return children(stage) if "forkserver" in words else below


def children(process: int) -> list[int]:
    """Returns the process ids of a process' children."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return sorted(map(int, listed.split()))
