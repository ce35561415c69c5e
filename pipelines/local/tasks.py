"""Every task of a run, watched from inside KFP's local runner.

KFP offers no callback: its one function per task is wrapped. The wrapper tells
when a stage starts and ends, limits its time, stops it on SIGTERM, checks and
mirrors what it made, and remembers why it failed, which KFP does not. A failed
stage is told to KFP, so that an exit task still runs; the error comes after it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.local.mirror import Mirror
from safescale_ammt.errors import Interrupted, SafescaleError
from safescale_ammt.execution import error_of
from safescale_ammt.files.artifacts import EXECUTION
from safescale_ammt.files.canonical import read_json

Report = Callable[..., None]
GRACE = 20.0
"""Seconds that a stage has between SIGTERM and SIGKILL when its time is up."""


@dataclass
class LocalTask:
    """A task that runs now.

    Attributes:
        stage: its name.
        executor: its executor's label in the compiled pipeline.
        folder: where its outputs go.
        outputs: their names.
        is_exit: it runs however the others end, and is no stage.
        seconds: how long it may run.
        asked: is set once it has to stop.
        overtime: its time was up.
        interrupted: SIGTERM came.
        code: its exit code, if the runner knows it.
    """

    stage: str
    executor: str
    folder: Path
    outputs: tuple[str, ...]
    is_exit: bool
    seconds: float
    asked: threading.Event = field(default_factory=threading.Event)
    overtime: bool = False
    interrupted: bool = False
    code: int | None = None


class TaskWatch:
    """Wraps KFP's function per task.

    Args:
        report: takes events.
        mirror: keeps artifacts.
        seconds: executor's label -> how long it may run.
        stop_group: a task is a process of our own group, and stopped as such.
        on_failure: is told of the first error.
    """

    def __init__(
        self,
        report: Report,
        mirror: Mirror,
        seconds: Mapping[str, float],
        *,
        stop_group: bool,
        on_failure: Callable[[SafescaleError], None],
    ) -> None:
        self.error: SafescaleError | None = None
        self.task: LocalTask
        self._report = report
        self._mirror = mirror
        self._seconds = seconds
        self._stop_group = stop_group
        self._on_failure = on_failure

    def install(self) -> None:
        """Takes the place of KFP's function."""
        from kfp.local.orchestrator import task_executor

        self._execute = task_executor.execute_single_task
        task_executor.execute_single_task = self._watched

    def _watched(self, **arguments: Any) -> Any:
        from kfp.local.status import Status

        self.task = task = self._task(arguments)
        try:
            if task.is_exit:
                return self._run(arguments)
            return self._stage(arguments), Status.SUCCESS
        except Interrupted:
            raise
        except SafescaleError as error:
            if task.is_exit:
                logging.error("%s failed: %s", task.stage, error)
            elif self.error is None:
                self.error = error
                self._on_failure(error)
            return {}, Status.FAILURE

    def _task(self, arguments: Mapping[str, Any]) -> LocalTask:
        spec = arguments["task_spec"]
        component = spec.component_ref.name
        described = arguments["components"][component]
        label = described.executor_label
        always = spec.trigger_policy.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
        root = Path(arguments["pipeline_root"], arguments["pipeline_resource_name"])
        return LocalTask(
            stage=arguments["task_name"].replace("-", "_"),
            executor=label,
            folder=root / component.removeprefix("comp-"),
            outputs=tuple(described.output_definitions.artifacts),
            is_exit=spec.trigger_policy.strategy == always,
            seconds=self._seconds[label],
        )

    def _stage(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a stage; returns its outputs."""
        from kfp.local.status import Status

        task = self.task
        self._report("started", stage=task.stage)
        start = time.monotonic()
        outputs, status = self._run(arguments)
        seconds = time.monotonic() - start
        if status is not Status.SUCCESS:
            raise what_it_left(task)
        paths = {name: Path(artifact.uri) for name, artifact in outputs.items()}
        _check_made(task, paths)
        self._report(
            "finished",
            stage=task.stage,
            seconds=round(seconds, 3),
            cached=not any(path.is_relative_to(task.folder) for path in paths.values()),
            artifacts=self._mirror.keep(task.stage, paths),
            summary=_summary(paths),
        )
        return dict(outputs)

    def _run(self, arguments: Mapping[str, Any]) -> Any:
        """Runs a task as KFP does; the two reasons to stop it end here.

        Raises:
            Interrupted: SIGTERM came.
            SafescaleError: its time was up.
        """
        task = self.task
        ended = threading.Event()
        watch = threading.Thread(target=self._limit, args=(task, ended), daemon=True)
        with _taking_sigterm(task):
            watch.start()
            try:
                outputs, status = self._execute(**arguments)
            except SafescaleError:
                if not task.asked.is_set():
                    raise
                outputs, status = {}, None  # broke because it was stopped
            finally:
                ended.set()
                watch.join()
        if task.interrupted:
            raise Interrupted(f"The run was stopped by SIGTERM in {task.stage}.")
        if task.overtime and not outputs:
            raise SafescaleError(
                f"{task.stage} took longer than {task.seconds:g} s and was stopped; "
                "--stage-timeout gives it more, and finished stages are kept."
            )
        return outputs, status

    def _limit(self, task: LocalTask, ended: threading.Event) -> None:
        """Stops a task whose time is up."""
        if ended.wait(task.seconds):
            return
        task.overtime = True
        task.asked.set()
        if self._stop_group:
            os.killpg(0, signal.SIGTERM)  # for us it is one to ignore, see below
            if not ended.wait(GRACE):
                _kill_the_rest()


@contextmanager
def _taking_sigterm(task: LocalTask) -> Iterator[None]:
    """While a task runs, SIGTERM is for it: KFP would die and leave it behind.

    A plain handler, unlike SIG_IGN, does not outlive the exec of the stage.
    """

    def take(_signum: int, _frame: Any) -> None:
        if not task.overtime:
            task.interrupted = True
            task.asked.set()

    before = signal.signal(signal.SIGTERM, take)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kill_the_rest() -> None:
    """Kills every process of our group but this one."""
    if not Path("/proc/self/stat").exists():
        os.killpg(0, signal.SIGKILL)  # the parent says that we vanished
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, group = int(stat.parent.name), stat.read_text().rsplit(")", 1)[1]
            if int(group.split()[2]) == os.getpgrp() and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)


def _check_made(task: LocalTask, paths: Mapping[str, Path]) -> None:
    """Refuses a success that left nothing: no runner's word is enough."""
    for name in task.outputs:
        if name not in paths or not paths[name].exists():
            raise SafescaleError(
                f"{task.stage} ended well but left no {name} in {task.folder}; the log "
                "has its last lines."
            )


def _summary(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Returns what the stage said of itself, in this run or in the cached one."""
    beside = {path.parent / EXECUTION for path in paths.values()}
    return dict(read_json(beside.pop())["summary"])


def what_it_left(task: LocalTask) -> SafescaleError:
    """Returns the error that a failed stage wrote down, with its exit code."""
    file = task.folder / EXECUTION
    left = read_json(file) if file.is_file() else {}
    if left.get("code"):
        return error_of(int(left["code"]), str(left["sentence"]))
    code = "" if task.code is None else f" with exit code {task.code}"
    return SafescaleError(
        f"{task.stage} ended{code} without a word: it was killed or could not start; "
        "the log has its last lines."
    )
