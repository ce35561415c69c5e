"""Every task of a run, watched from inside KFP's local runner.

The watch reports when a stage starts and ends, limits its time, stops it on SIGTERM,
checks and mirrors what it made, and remembers why it failed, which KFP does not. KFP
is given the failure of a stage too, so that an exit task still runs; the error is
raised once all is over.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.local.kfp_seam import Outputs, TaskCall
from pipelines.local.mirror import Mirror
from safescale_ammt.errors import Interrupted, SafescaleError
from safescale_ammt.execution import error_of, utc_now
from safescale_ammt.files.artifacts import EXECUTION
from safescale_ammt.files.canonical import read_json

Report = Callable[..., None]
"""Takes an event: its name, and fields by keyword."""
GRACE = 20.0
"""Seconds that a stage has between SIGTERM and SIGKILL when its time is up."""


@dataclass
class LocalTask:
    """A task while it runs.

    Attributes:
        call: what KFP is about to execute.
        seconds: how long it may run.
        stop_requested: is set once it has to stop.
        timed_out: its time was up.
        interrupted: SIGTERM came.
        code: its exit code, if the runner knows it.
    """

    call: TaskCall
    seconds: float
    stop_requested: threading.Event = field(default_factory=threading.Event)
    timed_out: bool = False
    interrupted: bool = False
    code: int | None = None

    @property
    def stage(self) -> str:
        """Its name."""
        return self.call.stage

    @property
    def executor(self) -> str:
        """Its executor's label in the compiled pipeline."""
        return self.call.executor

    @property
    def folder(self) -> Path:
        """Where its outputs go."""
        return self.call.folder


class TaskWatch:
    """Executes every task of a run, in the place of KFP's own function.

    Args:
        report: takes events.
        mirror: keeps artifacts.
        seconds: executor label -> how long it may run.
        stops_group: a task is a process of our own group, and stopped as such.
        on_failure: is called with the first error.
    """

    def __init__(
        self,
        report: Report,
        mirror: Mirror,
        seconds: Mapping[str, float],
        *,
        stops_group: bool,
        on_failure: Callable[[SafescaleError], None],
    ) -> None:
        self.error: SafescaleError | None = None
        self.task: LocalTask
        self._report = report
        self._mirror = mirror
        self._seconds = seconds
        self._stops_group = stops_group
        self._on_failure = on_failure

    def execute(self, call: TaskCall) -> tuple[Outputs, bool]:
        """Executes a task; returns its outputs, and whether it succeeded.

        Raises:
            Interrupted: SIGTERM came.
        """
        self.task = LocalTask(call, self._seconds[call.executor])
        # The log's headings: whose lines follow.
        print(f"{utc_now():%H:%M:%S} {call.stage}", flush=True)
        try:
            if call.is_exit:
                return self._run()
            return self._stage(), True
        except Interrupted:
            raise
        except SafescaleError as error:
            # An exit task reports on a run; it never changes how the run ends.
            if call.is_exit:
                logging.error("%s failed: %s", call.stage, error)
            elif self.error is None:
                self.error = error
                self._on_failure(error)
            return {}, False

    def _stage(self) -> Outputs:
        """Runs a stage; returns its outputs."""
        task = self.task
        self._report("started", stage=task.stage)
        start = time.monotonic()
        outputs, success = self._run()
        seconds = time.monotonic() - start
        if not success:
            raise stage_error(task)
        paths = {name: Path(artifact.uri) for name, artifact in outputs.items()}
        # No runner's word is enough: a success that left nothing is a failure.
        for name in task.call.outputs:
            if name not in paths or not paths[name].exists():
                raise SafescaleError(
                    f"{task.stage} ended well but left no {name} in {task.folder}; the "
                    "log has its last lines."
                )
        # All outputs of one stage lie in one folder, and so does its own account.
        accounts = {path.parent / EXECUTION for path in paths.values()}
        self._report(
            "finished",
            stage=task.stage,
            seconds=round(seconds, 3),
            cached=not any(path.is_relative_to(task.folder) for path in paths.values()),
            artifacts=self._mirror.keep(task.stage, paths),
            # What the stage says of itself, in this run or in the cached one.
            summary=dict(read_json(accounts.pop())["summary"]),
        )
        return dict(outputs)

    def _run(self) -> tuple[Outputs, bool]:
        """Executes a task as KFP does; the two reasons to stop it end here.

        Raises:
            Interrupted, SafescaleError: SIGTERM came; its time was up.
        """
        task = self.task
        ended = threading.Event()
        limit = threading.Thread(target=self._limit, args=(task, ended), daemon=True)
        result: tuple[Outputs, bool] = ({}, False)

        def stop(_signum: int, _frame: Any) -> None:
            if not task.timed_out:
                task.interrupted = True
                task.stop_requested.set()

        # While a task runs, SIGTERM is for it: KFP would die and leave it behind. A
        # plain handler, unlike SIG_IGN, does not outlive the exec of the stage.
        before = signal.signal(signal.SIGTERM, stop)
        try:
            limit.start()
            try:
                result = task.call.execute()
            except SafescaleError:
                if not task.stop_requested.is_set():
                    raise  # else it broke because it was stopped
            finally:
                # Joined: a limit that fires late would stop the next task.
                ended.set()
                limit.join()
        finally:
            signal.signal(signal.SIGTERM, before)
        if task.interrupted:
            raise Interrupted(f"The run was stopped by SIGTERM in {task.stage}.")
        # One that ended well at the last moment is not undone for being late.
        if task.timed_out and not result[0]:
            raise SafescaleError(
                f"{task.stage} took longer than {task.seconds:g} s and was stopped; "
                "--stage-timeout gives it more, and finished stages are kept."
            )
        return result

    def _limit(self, task: LocalTask, ended: threading.Event) -> None:
        """Stops a task whose time is up."""
        if ended.wait(task.seconds):
            return
        task.timed_out = True
        task.stop_requested.set()
        # A container's runner sees `stop_requested` and stops it through the engine.
        if self._stops_group:
            os.killpg(0, signal.SIGTERM)  # this process' own handler ignores it
            if ended.wait(GRACE):
                return
            # Every process of our group but this one. macOS has no /proc: then this
            # process goes too, and the parent says so.
            if not Path("/proc/self/stat").exists():
                os.killpg(0, signal.SIGKILL)
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):
                    # proc(5): behind the name in brackets stand state, parent, group.
                    pid = int(stat.parent.name)
                    tail = stat.read_text().rsplit(")", 1)[1]
                    if int(tail.split()[2]) == os.getpgrp() and pid != os.getpid():
                        os.kill(pid, signal.SIGKILL)


def stage_error(task: LocalTask) -> SafescaleError:
    """Returns the error that a failed stage wrote down, with its exit code."""
    file = task.folder / EXECUTION
    account = read_json(file) if file.is_file() else {}
    # Code 0 is of a stage that went well and was killed before its process ended.
    if account.get("code"):
        return error_of(int(account["code"]), str(account["sentence"]))
    code = "" if task.code is None else f" with exit code {task.code}"
    return SafescaleError(
        f"{task.stage} ended{code} without a word: it was killed or could not start; "
        "the log has its last lines."
    )
