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
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from pipelines.interruptions import Interruptions
from pipelines.local.forked import Forked, fork, safe
from pipelines.local.job import Job
from safescale_ammt.errors import SafescaleError
from safescale_ammt.execution import error_of
from safescale_ammt.parent_death import RUN_LOCK
from safescale_ammt.stage_progress import PROGRESS
from safescale_ammt.store.uri import OWN_DISK

GRACE = 30.0
"""Seconds that a stage has to clean up after SIGTERM before it is killed; more than
the child's own (`tasks.GRACE`, `containers.GRACE`), which would else never end."""
QUIET = {"PYTHONWARNINGS": "ignore"}
"""Warnings of libraries concern their users: who wants them here sets the variable."""
_PIPE = 65536  # bytes that a pipe holds on Linux (pipe(7))
TICK = {"event": "tick"}
"""What stands for a moment without an event: a long silence is shown too."""
_POLL = 0.25  # seconds between looks at the deadline


class Child:
    """The child before and after it has got its job.

    Args:
        process: the process, which leads a group of its own.
        jobs: takes the job; open for as long as this process lives.
        events: gives the events.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes] | Forked,
        jobs: IO[bytes],
        events: IO[bytes],
    ) -> None:
        self.pid = process.pid
        self.events = events
        self._process = process
        self._jobs = jobs

    def give(self, job: Job) -> None:
        """Gives it its job."""
        # One that died before says so by the end of its events.
        with suppress(BrokenPipeError):
            self._jobs.write(job.to_json().encode() + b"\n")
            self._jobs.flush()

    def end(self) -> None:
        """Ends its process group, whatever is alive of it, once."""
        if self._jobs.closed:
            return
        # Not reaped yet: the group's number is still its own.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._jobs, self.events):
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def started_child(log: Path) -> Iterator[Child]:
    """Starts the child, which waits for a job; afterwards nothing of it is alive.

    Args:
        log: file that gets all that KFP and the stages print.
    """
    # Ctrl-C goes to the whole group of a terminal; the child gets SIGTERM from here
    # instead, once, and what it starts can be killed as one group: hence its session.
    with log.open("ab") as file:
        if safe():
            child = _forked_child(file)
        else:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.local.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**QUIET, **os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            child = Child(process, process.stdin, process.stdout)
    try:
        yield child
    finally:
        child.end()


def _forked_child(log: IO[bytes]) -> Child:
    """Forks the child of this process: it has imported most of what it needs."""
    from pipelines.local.child import main
    from pipelines.local.warm import run_to_end

    (input_, jobs), (events, output) = os.pipe(), os.pipe()
    process = fork(
        lambda: run_to_end(lambda: sys.exit(main())),
        "safescale-child",
        (input_, output, log.fileno()),
        new_session=True,
    )
    os.close(input_)
    os.close(output)
    return Child(process, os.fdopen(jobs, "wb"), os.fdopen(events, "rb"))


def run_job(
    job: Job,
    child: Child,
    *,
    environ: Mapping[str, str],
    watch: Callable[[dict[str, Any]], None],
    interruptions: Interruptions,
    timeout: float,
    grace: float = GRACE,
) -> None:
    """Runs a job to its end.

    Args:
        job: what to run.
        child: runs it.
        environ: the child's environment: place and keys of the store.
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
    # A stage that is killed leaves its temporary files: they go with this folder.
    with tempfile.TemporaryDirectory(prefix="safescale-") as scratch:
        own = {"TMPDIR": scratch, RUN_LOCK: f"{scratch}/lock", PROGRESS: "1"}
        own |= {"PYTHONUNBUFFERED": "1", OWN_DISK: "1"}
        told = {**QUIET, **environ, **own}
        deadline = _Deadline(child.pid, timeout, grace)
        interruptions.forward = deadline.stop
        child.give(replace(job, environ=told))
        try:
            for event in _events(child.events, deadline):
                # A child that is done may take a while to end.
                last = last if event == TICK else event
                watch(event)
        finally:
            interruptions.forward = None
            # Before the folder goes that its stages write into.
            child.end()
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


def _events(pipe: IO[bytes], deadline: _Deadline) -> Iterator[dict[str, Any]]:
    """Yields the child's events until it closes its end or its time is up.

    A tick stands for a moment without any.
    """
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while deadline.tick():
            if not selector.select(timeout=_POLL):
                yield TICK
                continue
            data = os.read(pipe.fileno(), _PIPE)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            yield from (json.loads(line) for line in lines)
