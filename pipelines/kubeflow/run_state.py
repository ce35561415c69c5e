"""What KFP's API says of a run, read with care.

A run that somebody stopped ends FAILED, with CANCELING in its history; a run that is
tried again (RetryRun) still lists what failed before; tasks of the same name are
listed in no order; and Argo repeats a lost pod under a name of its own, `x(1)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SUCCEEDED, FAILED, PENDING, RUNNING = "SUCCEEDED", "FAILED", "PENDING", "RUNNING"
ENDED = (SUCCEEDED, FAILED, "CANCELED", "SKIPPED")
STOPPED = ("CANCELING", "CANCELED")
GATES = frozenset({"register-model", "promote"})
"""Tasks that refuse, one in each pipeline of ours, and leave a record of the run."""
EXIT_TASK = "notify"
_NEVER = datetime.min.replace(tzinfo=UTC)
_BEFORE = re.compile(r"root-driver|exit-handler-\d+-driver")


@dataclass(frozen=True)
class Break:
    """Where a run broke off.

    Attributes:
        where: such as " in 'Train agents'", for a sentence; "" = nobody can tell.
        step: task name of the stage; "" = none had begun.
        pod: how the name of the pod ends; "" = not told.
    """

    where: str = ""
    step: str = ""
    pod: str = ""


def attempts(run: Any) -> list[list[Any]]:
    """Returns the entries of a run's history, apart by each time it was tried."""
    parts: list[list[Any]] = [[]]
    for entry in run.state_history or ():
        last = parts[-1][-1].state if parts[-1] else ""
        if last in ENDED and entry.state not in ENDED:
            parts.append([])
        parts[-1].append(entry)
    return parts


def was_stopped(run: Any) -> bool:
    """Says whether somebody stopped the run, this time."""
    states = {entry.state for entry in attempts(run)[-1]} | {run.state}
    return bool(states & set(STOPPED))


def tasks_of(run: Any) -> Iterator[Any]:
    """Yields what the API shows of each task, without what an earlier try left."""
    parts = attempts(run)
    began = parts[-1][0].update_time if len(parts) > 1 else None
    for task in (run.run_details.task_details if run.run_details else None) or ():
        old = began and task.end_time and task.state == FAILED
        if not (old and _NEVER < task.end_time < began):
            yield task


def task_states(run: Any) -> dict[str, str]:
    """Returns task name -> state; of equal names the newest one's."""
    newest: dict[str, Any] = {}
    for task in sorted(tasks_of(run), key=_start):
        newest[str(task.display_name)] = task
    return {name: str(task.state or "") for name, task in newest.items()}


def gate_state(states: Mapping[str, str]) -> str:
    """Returns the state of the run's gate, "" if it has not come so far."""
    return next((state for name, state in states.items() if name in GATES), "")


def waiting_pods(run: Any) -> list[str]:
    """Returns the names of the nodes whose pod has not started."""
    details = list(tasks_of(run))
    # Argo has the same word for a group; a pod's node has no children.
    names = [
        str(task.display_name)
        for task in details
        if task.state == PENDING and task.display_name
    ]
    return names or ["root-driver"] * (not details)


def find_break(run: Any, titles: Mapping[str, str]) -> Break:
    """Returns where a run broke off: the first step that failed, in their order."""
    states = task_states(run)
    for name, title in titles.items():
        if name == EXIT_TASK:  # it reports on a run and breaks none
            continue
        # KFP runs a driver before each task; what it cannot resolve fails there, and
        # the task itself never comes.
        if states.get(f"{name}-driver") == FAILED:
            return Break(f" in {title!r}", name, _pod_of(run, f"{name}-driver"))
        if states.get(name) == FAILED:
            return Break(f" in {title!r}", name, _pod_of(run, "executor"))
    for name, state in states.items():
        if _BEFORE.fullmatch(name) and state == FAILED:
            return Break(" before its first step", "", _pod_of(run, name))
    return Break()


def _pod_of(run: Any, name: str) -> str:
    """Returns how the name of the pod ends that failed under a task's name."""
    # The first that failed: that of the exit task comes after it.
    failed = (t for t in tasks_of(run) if t.display_name == name and t.state == FAILED)
    task = min(failed, key=_start, default=None)
    children = (task.child_tasks or ()) if task is not None else ()
    # Argo's last try counts. Its id is the workflow's name and a number, which its
    # pod's name ends in, too.
    ids = [str(child.pod_name or "") for child in children]
    return f"-{ids[-1].rpartition('-')[2]}" if ids and ids[-1] else ""


def _start(task: Any) -> datetime:
    start = task.start_time
    return start if isinstance(start, datetime) else _NEVER
