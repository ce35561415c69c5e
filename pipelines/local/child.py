"""The child of `safescale run`: KFP's local runner, watched from inside.

It is forked from the command, or started anew where that cannot be forked. It gets a
job as one line of JSON on its standard input and answers with one line of JSON per
event on its standard output; what KFP and the stages print goes through `stage_log` to
standard error, which is the run's log. The open standard input is a lifeline: when the
parent dies, however hard, the kernel closes it; then the containers are removed, and
the whole process group ends itself. Should the child die first, the parent sweeps.
Should both die at once, the run's lock is free: each stage waits for that and ends
itself; containers are removed by the next run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

from pipelines.local.forked import safe
from pipelines.local.job import Job
from pipelines.local.process_runner import SubprocessRunner
from pipelines.local.stage_log import StageLog
from pipelines.local.warm_process import WarmProcess
from safescale_ammt.errors import SafescaleError
from safescale_ammt.execution import shown, traceback_lines
from safescale_ammt.library_imports import spare_imports
from safescale_ammt.library_logs import quiet_libraries
from safescale_ammt.parent_death import RUN_LOCK, run_lock

_CLOSING_SECONDS = 10.0
"""How long the removal of containers may take once the parent is gone."""


def main() -> int:
    """Runs the job that stands on the first line of standard input."""
    # What the stages write is rows of people, or comes of them.
    os.umask(0o077)
    line = sys.stdin.readline()
    # The command has ended before there was a job.
    if not line:
        return 1
    job = Job.from_json(line)
    os.environ.clear()
    os.environ.update(job.environ)
    # What is known of it is the command's, whose folder does not go with this run.
    tempfile.tempdir = None
    with run_lock(Path(os.environ[RUN_LOCK])):
        return work(job)


def work(job: Job) -> int:
    """Runs a job and reports on it; returns the exit code."""
    # Before this process has a second thread, and KFP's modules.
    forks = job.runner == SubprocessRunner.name and safe()
    warm = WarmProcess.forked() if forks else None
    closing = end_with_parent()
    # From here standard output is for events; prints go to standard error. Buffered by
    # line: an event that waits for the next one comes too late to be shown.
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def report(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")

    log = StageLog(sys.stdout, report)
    sys.stdout = cast("TextIO", log)
    try:
        # Importing KFP takes seconds; who reads the events sees that the child is up.
        report("importing")
        from pipelines.local.run import run_here

        with quiet_libraries():
            run_here(job, report, closing, warm)
    except SafescaleError as error:
        report("failed", code=error.exit_code, sentence=str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  KFP raises whatever it likes
        print(*traceback_lines(error), sep="", file=sys.stderr, flush=True)
        # KFP's errors run over many lines; a sentence in `run.json` is one.
        line = " ".join(shown(error).split())
        report("failed", code=1, sentence=f"{type(error).__name__}: {line}")
        return 1
    finally:
        log.end_line()
    report("done")
    return 0


def end_with_parent() -> list[Callable[[], None]]:
    """Kills the own process group once the lifeline is cut.

    Returns:
        A list to put functions in that are called first.
    """
    # Standard input is the lifeline; what is started from here gets another one,
    # or a stage that outlives us would hold it open.
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    closing: list[Callable[[], None]] = []

    def watch() -> None:
        # Nothing is written to it after the job: a read returns when it is cut.
        while os.read(lifeline, 4096):
            pass
        for close in closing:
            bounded = threading.Thread(target=close, daemon=True)
            bounded.start()
            bounded.join(_CLOSING_SECONDS)
        # Nobody is left to count a time of grace, so no stage gets one.
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return closing


if __name__ == "__main__":
    spare_imports()
    sys.exit(main())
