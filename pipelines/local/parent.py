"""Running the compiled pipeline in a child process that leaves nothing behind.

KFP's local runner is a process-wide singleton that answers a signal by leaving
its stages behind and keeps neither a stage's sentence nor its exit code. So it
runs in a child with its own process group (`child`); this side forwards signals,
counts the time, reads the child's events and sweeps the group when all is over. Its
own death is noticed by the child, however it dies.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.interruptions import Interruptions
from pipelines.local.job import Job
from safescale_ammt.errors import SafescaleError
from safescale_ammt.execution import error_of
from safescale_ammt.parent_death import RUN_LOCK
from safescale_ammt.stage_progress import PROGRESS

GRACE = 30.0
"""Seconds that a stage has to clean up after SIGTERM before it is killed; more than
the child's own (`tasks.GRACE`, `containers.GRACE`), which would else never end."""
QUIET = {"PYTHONWARNINGS": "ignore"}
"""Warnings of libraries concern their users: who wants them here sets the variable."""
_PIPE = 65536  # bytes that a pipe holds on Linux (pipe(7))
TICK = {"event": "tick"}
"""What stands for a moment without an event: a long silence is shown too."""
_POLL = 0.25  # seconds between looks at the deadline


def run_job(
    job: Job,
    *,
    environ: Mapping[str, str],
    log: Path,
    watch: Callable[[dict[str, Any]], None],
    interruptions: Interruptions,
    timeout: float,
    grace: float = GRACE,
) -> None:
    """Runs a job to its end.

    Args:
        job: what to run.
        environ: the child's environment: place and keys of the store.
        log: file that gets all that KFP and the stages print.
        watch: is called with each event: images, started, progress,
            finished (see `child`), and a tick between them.
        interruptions: the signals of this process.
        timeout: seconds that the whole run may take.
        grace: seconds between SIGTERM and SIGKILL.

    Raises:
        SafescaleError: a stage failed (with its own sentence and exit code), the
            time was up, a signal came, or the child vanished.
    """
    interruptions.check()
    last: dict[str, Any] = {}
    with (
        # A stage that is killed leaves its temporary files: they go with this folder.
        tempfile.TemporaryDirectory(prefix="safescale-") as scratch,
        _child(
            job, {**environ, "TMPDIR": scratch, RUN_LOCK: f"{scratch}/lock"}, log
        ) as child,
    ):
        deadline = _Deadline(child.pid, timeout, grace)
        interruptions.forward = deadline.stop
        try:
            for event in _events(child, deadline):
                # A child that is done may take a while to end.
                last = last if event == TICK else event
                watch(event)
        finally:
            interruptions.forward = None
    if last.get("event") == "done":
        return
    # Before the deadline, as a forwarded signal sets that too.
    interruptions.check()
    if deadline.stopped:
        raise SafescaleError(
            f"The run took longer than {timeout:g} s and was stopped; --timeout gives "
            "it more, and finished stages are kept."
        )
    if last.get("event") == "failed":
        raise error_of(last["code"], last["sentence"])
    raise SafescaleError(
        "The pipeline's runner vanished: it was killed or ran out of memory; run it "
        "again to go on from the last finished stage."
    )


@contextmanager
def _child(
    job: Job, environ: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the child; afterwards nothing of its process group is alive."""
    with log.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipelines.local.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            # The last lines of a killed stage are those that the log is read for.
            env={**QUIET, **environ, "PYTHONUNBUFFERED": "1", PROGRESS: "1"},
            # Ctrl-C goes to the whole group of a terminal; the child gets SIGTERM from
            # here instead, once, and what it starts can be killed as one group.
            start_new_session=True,
        )
    try:
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(job.to_json().encode() + b"\n")
            child.stdin.flush()
        yield child
    finally:
        # Not reaped yet: the group's number is still its own.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


class _Deadline:
    """When a process group gets SIGTERM, and when SIGKILL."""

    def __init__(self, group: int, timeout: float, grace: float) -> None:
        self.group = group
        self.grace = grace
        self.deadline = time.monotonic() + timeout
        self.stopped = False

    def stop(self, signum: int) -> None:
        """Asks the group to stop and gives it the time of grace."""
        with suppress(ProcessLookupError):
            os.killpg(self.group, signum)
        # A second Ctrl-C hurries nobody, and does not make the wait longer either.
        if not self.stopped:
            self.stopped = True
            self.deadline = time.monotonic() + self.grace

    def tick(self) -> bool:
        """Acts on a deadline that has passed; False once the group was killed."""
        if time.monotonic() < self.deadline:
            return True
        if not self.stopped:
            self.stop(signal.SIGTERM)
            return True
        return False


def _events(
    child: subprocess.Popen[bytes], deadline: _Deadline
) -> Iterator[dict[str, Any]]:
    """Yields the child's events until it closes its end or its time is up.

    A tick stands for a moment without any.
    """
    assert child.stdout is not None
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while deadline.tick():
            if not selector.select(timeout=_POLL):
                yield TICK
                continue
            data = os.read(child.stdout.fileno(), _PIPE)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            yield from (json.loads(line) for line in lines)
