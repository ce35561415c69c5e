"""What a run of KFP shows of itself while it lives: states, histories, tasks.

KFP shows the nodes of Argo's workflow, as they were recorded on a real plane: for
one stage its driver and the stage, each with a twin `(0)` that is its one attempt;
beneath the stage an `executor`, whose attempt is the pod. Their names repeat. What
Argo omitted has no state at all, what has not ended ended in year 1, and a row of
the cache's own has neither name nor state. A run that somebody stops goes through
CANCELING to FAILED and says nothing of why.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import kfp_server_api as kfp

PENDING, RUNNING, CANCELING = "PENDING", "RUNNING", "CANCELING"
SUCCEEDED, FAILED, CANCELED = "SUCCEEDED", "FAILED", "CANCELED"
ENDED = (SUCCEEDED, FAILED, CANCELED, "SKIPPED")
OMITTED = ""
NEVER, EPOCH = datetime(1, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)
STAGES = (
    *("prepare-data", "search-architecture", "train-agents"),
    *("evaluate-safety", "register-model"),
)
EXIT = "notify"
PROMOTE = "promote"
"""The one stage of the other pipeline, which has no exit task."""


@dataclass(frozen=True)
class Scene:
    """One moment of a run's script.

    Attributes:
        state: of the run.
        tasks: stage -> state; stages that are not named have not begun. The name of
            a driver (`train-agents-driver`) stands for the driver alone, `notify`
            for the exit task, which else ends well with the run.
        cached: stages that KFP's cache answered, without a pod of their own.
        waiting: stages whose pod has not started: no node, no image, no secret.
    """

    state: str
    tasks: Mapping[str, str] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def now() -> datetime:
    """Returns the time as the database keeps it: whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def begin(run: Any) -> None:
    """Makes a run one that was created this moment."""
    run.run_id = str(uuid.uuid4())
    run.created_at = run.scheduled_at = now()
    run.finished_at = EPOCH
    run.storage_state = "AVAILABLE"
    _enter(run, PENDING)


def show(run: Any, scene: Scene) -> None:
    """Makes a run look like a moment of its script."""
    if run.state == PENDING and scene.state not in (PENDING, CANCELING):
        _enter(run, RUNNING)
    _enter(run, scene.state)
    if scene.state in ENDED:
        run.finished_at = now()
    if scene.state != PENDING:
        details = list(_details(run, scene))
        run.run_details = kfp.V2beta1RunDetails(task_details=details)


def stopped(scene: Scene, exit_runs: bool) -> tuple[Scene, ...]:
    """Returns the rest of a life that somebody ends."""
    going = {n: SUCCEEDED if s == SUCCEEDED else FAILED for n, s in scene.tasks.items()}
    end = going if exit_runs else {**going, f"{EXIT}-driver": FAILED}
    return Scene(CANCELING, scene.tasks), Scene(CANCELING, going), Scene(FAILED, end)


def workflow(run: Any) -> str:
    """Returns the name of a run's workflow."""
    letters = "bcdfghjklmnpqrstvwxz2456789"
    digits = (int(run.run_id[i : i + 2], 16) for i in (0, 2, 4, 6, 9))
    return "safescale-train-" + "".join(letters[d % len(letters)] for d in digits)


def node(run: Any, path: str) -> str:
    """Returns Argo's id of a node; a pod's name ends in the same number."""
    return f"{workflow(run)}-{zlib.crc32(f'{run.run_id}/{path}'.encode())}"


def _enter(run: Any, state: str) -> None:
    run.state = state
    history = run.state_history or []
    if not history or history[-1].state != state:
        entry = kfp.V2beta1RuntimeStatus(update_time=now(), state=state)
        run.state_history = [*history, entry]


def _details(run: Any, scene: Scene) -> Iterator[Any]:
    ended = scene.state in ENDED
    over = scene.state if ended else RUNNING
    bad = FAILED in scene.tasks.values()
    yield from _pair(run, workflow(run), over)
    if PROMOTE in scene.tasks:
        yield from _pair(run, "root-driver", SUCCEEDED)
        yield from _pair(run, "root", over)
        yield from _stage(run, PROMOTE, scene, bad)
        return
    for outer in ("root", "exit-handler-1"):
        yield from _pair(run, f"{outer}-driver", SUCCEEDED)
        yield from _pair(run, outer, FAILED if bad and outer != "root" else over)
    for name in STAGES:
        yield from _stage(run, name, scene, bad)
    if bad or ended:
        told = scene.tasks.get(f"{EXIT}-driver", SUCCEEDED if ended else RUNNING)
        yield from _pair(run, "exit-handler-1.onExit", told)
        exits = Scene(scene.state, {f"{EXIT}-driver": told, **scene.tasks})
        if told == SUCCEEDED:
            exits = Scene(scene.state, {EXIT: SUCCEEDED, **scene.tasks})
        yield from _stage(run, EXIT, exits, bad)


def _stage(run: Any, name: str, scene: Scene, bad: bool) -> Iterator[Any]:
    """Yields the nodes of a stage: driver, stage, executor."""
    state = scene.tasks.get(name)
    driver = scene.tasks.get(f"{name}-driver", SUCCEEDED if state else None)
    if driver is None:
        if bad:
            yield _task(run, f"{name}-driver", OMITTED)
            yield _task(run, name, OMITTED)
        return
    yield from _pair(run, f"{name}-driver", driver)
    if state is None:
        if driver == FAILED:
            yield _task(run, name, OMITTED)
    elif name in scene.cached:
        # The cache's answer is a stage that has done nothing.
        yield _task(run, name, state)
    else:
        yield from _pair(run, name, state)
        yield _task(run, "executor", state, name, child=f"{name}/executor(0)")
        pod = PENDING if name in scene.waiting else state
        yield _task(run, "executor(0)", pod, name)
        if state == SUCCEEDED and name != EXIT:
            yield _row_of_the_cache(run, name)


def _pair(run: Any, name: str, state: str) -> Iterator[Any]:
    yield _task(run, name, state, child=f"{name}(0)")
    yield _task(run, f"{name}(0)", state, child=f"{name}/next")


def _task(run: Any, name: str, state: str, stage: str = "", child: str = "") -> Any:
    """Returns one node; `stage` tells apart what bears one name."""
    path = f"{stage}/{name}" if stage else name
    pod = name.endswith(("-driver(0)", "executor(0)"))
    if pod and state == RUNNING and name != "executor(0)":
        state = PENDING
    first = {OMITTED: OMITTED}.get(state, PENDING if pod else RUNNING)
    states = dict.fromkeys((first, state))
    history = [kfp.V2beta1RuntimeStatus(update_time=now(), state=s) for s in states]
    children = [kfp.PipelineTaskDetailChildTask(pod_name=node(run, child))]
    return kfp.V2beta1PipelineTaskDetail(
        run_id=run.run_id,
        task_id=str(uuid.uuid5(uuid.UUID(run.run_id), path)),
        display_name=name,
        create_time=run.created_at,
        start_time=run.created_at,
        end_time=now() if state in (*ENDED, OMITTED) else NEVER,
        state=state or None,
        state_history=history,
        child_tasks=children if child else None,
    )


def _row_of_the_cache(run: Any, name: str) -> Any:
    return kfp.V2beta1PipelineTaskDetail(
        run_id=run.run_id,
        task_id=str(uuid.uuid5(uuid.UUID(run.run_id), f"{name}/cache")),
        create_time=run.created_at,
        start_time=run.created_at,
        end_time=now(),
        execution_id=str(zlib.crc32(name.encode()) % 100),
    )
