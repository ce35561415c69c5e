"""The gate may run twice: a pod that is lost is made again, compiled without retry.

As KFP ships Argo (workflowDefaults: limit 2, OnError), the cluster repeats each pod
that it loses, the gate's too. So whatever of its work was done when it was killed, the
next run of it under the same id ends with one version, one use of the sealed rows and
one outcome.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trained_world import World, build

from safescale_ammt.files.canonical import write_json
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.stages import evaluate_safety, register_model
from safescale_ammt.store.folder import FileStore
from safescale_ammt.store.uri import open_store

ROOT = Path(__file__).parents[2]
REGISTRY = {"name": "loans"}
RUN = "the-run"
GATE = """
import json, os, signal, sys
from pathlib import Path
from safescale_ammt.stages import register_model
from safescale_ammt.store.folder import FileStore

told = json.loads(Path(sys.argv[1]).read_text())
left = told["writes"]
put = FileStore.put

def dying(*given, **more):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return put(*given, **more)

FileStore.put = dying
register_model.run(
    Path(told["model"]), Path(told["verdict"]), told["constitution"],
    told["registry"], Path(told["version"]), run_id=told["run"],
)
"""
"""The gate as a process of its own, killed before one of its writes."""


class Lost(BaseException):
    """The pod is gone: nothing of the program's own runs after it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture(scope="module")
def judged(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the verdict about the model, and the store behind it."""
    folder = tmp_path_factory.mktemp("judged")
    dataset, holdout, architecture, model = world.inputs
    world.kept_in(open_store((folder / "store").as_uri()))
    evaluate_safety.run(
        *(dataset, holdout, architecture, model),
        world.constitution,
        {},
        folder / "verdict",
        environ={"SAFESCALE_STORE": (folder / "store").as_uri()},
    )
    return folder


def gate(world: World, folder: Path, out: str) -> dict[str, Any]:
    return register_model.run(
        world.inputs[3],
        folder / "verdict",
        world.constitution,
        REGISTRY,
        folder / out,
        run_id=RUN,
        environ={"SAFESCALE_STORE": (folder / "store").as_uri()},
    )


def check(world: World, folder: Path) -> None:
    """Runs the gate again under the same id: nothing was done twice."""
    facts = gate(world, folder, "again")
    assert (facts["version"], facts["status"]) == (1, "champion")
    store = open_store((folder / "store").as_uri())
    (entry,) = Registry(store, "loans").versions()
    assert entry.entry.bundle_digest == facts["bundle_digest"]
    (use,) = ledger.uses(store)
    assert use.number == 1
    outcome = RunOutcome.read(store, RUN)
    assert outcome is not None
    assert (outcome.status, outcome.version) == ("champion", 1)


def writes_of(world: World, folder: Path) -> list[str]:
    """Returns the keys that an undisturbed gate writes, in order."""
    keys: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileStore, "put", before(keys.append))
        gate(world, folder, "undisturbed")
    return keys


def stages_of(keys: list[str]) -> list[int]:
    """Returns where another kind of object begins, and the middle of the bundle."""
    kinds = ["/".join(key.split("/")[:3]) for key in keys]
    first = [n for n, kind in enumerate(kinds) if n == 0 or kind != kinds[n - 1]]
    bundle = max(set(kinds), key=kinds.count)
    middle = kinds.index(bundle) + kinds.count(bundle) // 2
    return sorted({*first, middle, len(keys) - 1})


def before(does: Callable[[str], object]) -> Callable[..., Any]:
    put = FileStore.put

    def noted(self: FileStore, key: str, *given: Any, **more: Any) -> Any:
        does(key)
        return put(self, key, *given, **more)

    return noted


def test_a_gate_that_is_lost_between_its_writes_does_its_work_once(
    world: World, judged: Path, tmp_path: Path
) -> None:
    shutil.copytree(judged, tmp_path / "undisturbed")
    keys = writes_of(world, tmp_path / "undisturbed")
    points = stages_of(keys)
    # Heads of the books, the bundle, the registry's event, its head, the outcome.
    assert len(points) >= 5, keys
    for last in points:
        folder = tmp_path / str(last)
        shutil.copytree(judged, folder)
        left = [last]

        def lose(_key: str, left: list[int] = left) -> None:
            if not left[0]:
                raise Lost
            left[0] -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FileStore, "put", before(lose))
            with pytest.raises(Lost):
                gate(world, folder, "lost")
        check(world, folder)


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_gate_that_was_killed_does_its_work_once(
    world: World, judged: Path, tmp_path: Path, part: float
) -> None:
    shutil.copytree(judged, tmp_path / "undisturbed")
    shutil.copytree(judged, tmp_path / "killed")
    folder = tmp_path / "killed"
    told = {
        "writes": int(part * len(writes_of(world, tmp_path / "undisturbed"))),
        "model": str(world.inputs[3]),
        "verdict": str(folder / "verdict"),
        "constitution": world.constitution,
        "registry": REGISTRY,
        "version": str(folder / "lost"),
        "run": RUN,
    }
    write_json(tmp_path / "told.json", told)
    store = {"SAFESCALE_STORE": (folder / "store").as_uri()}
    ended = subprocess.run(
        [sys.executable, "-c", GATE, str(tmp_path / "told.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT), **store},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    check(world, folder)
