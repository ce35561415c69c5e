"""Stages as processes of the child's own group, forked from a warm one if possible."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from pipelines.local.kfp_seam import KFP_RUNTIME, StageCall, stage_call
from pipelines.local.runner import TaskContext
from pipelines.local.warm import possible

if TYPE_CHECKING:
    from pipelines.local.kfp_seam import RunTask
    from pipelines.workload import Workload


class SubprocessRunner:
    """Runs stages as processes of the child's own group."""

    # The parent kills that group whatever happens, so nothing has to be held or swept.
    name = "subprocess"
    stops_group = True

    def check(self, workload: Workload, store: str, environ: Mapping[str, str]) -> None:
        """Refuses nothing."""

    def hold(self, run: str) -> AbstractContextManager[None]:
        """Needs nothing outside: the parent kills the whole group."""
        del run
        return nullcontext()

    @contextmanager
    def tasks(self, context: TaskContext) -> Iterator[RunTask]:
        """Gives the function that runs a task's command in a process."""
        with WarmProcess() as warm:

            def run(
                image: str, command: Sequence[str], environ: Mapping[str, str]
            ) -> bool:
                del image
                stop = context.current().stop_requested
                call = stage_call(command)
                code: int | None = None
                # Stopped before it began: no signal comes that could stop it later.
                # Variables may be read at an import, which is over in a fork.
                if call and not environ and possible() and not stop.is_set():
                    code = warm.run(call)
                if code is None and not stop.is_set():
                    code = run_cold(command, environ)
                return code == 0

            yield run


class WarmProcess:
    """The process that stages are forked from (`warm`), started at the first call."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process and self._channel:
            # Without a stage it has nothing to lose, and asked by SIGTERM it stays.
            self._process.kill()
            self._process.wait()
            self._channel.close()

    def run(self, call: StageCall) -> int | None:
        """Runs a stage, prints what it prints, and returns its exit code.

        Returns:
            The code; negative for a signal; None if nothing could be started.
        """
        channel = self.started()
        output, stage_end = os.pipe()
        line = call.to_line()
        try:
            sent = socket.send_fds(channel, [line], [stage_end])
            channel.sendall(line[sent:])
        except OSError:  # it died since it was looked at
            self.close()
            os.close(output)
            return None
        finally:
            os.close(stage_end)
        with os.fdopen(output, encoding="utf-8", errors="replace") as lines:
            show(lines)
        with channel.makefile("rb") as answers:
            answer = answers.readline()
        if answer:
            code: int | None = json.loads(answer)
            return code
        # It was killed, and its stage with it; it may still be on its way out.
        self.close()
        return -signal.SIGKILL

    def started(self) -> socket.socket:
        """Starts the process unless it lives; returns the socket that it reads."""
        # One that was killed with a stage whose time was up is followed by another.
        if self._process and self._channel and self._process.poll() is None:
            return self._channel
        self.close()
        self._channel, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.local.warm", str(other.fileno())],
                env={**os.environ, **KFP_RUNTIME},
                pass_fds=[other.fileno()],
            )
        return self._channel


def run_cold(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs a task's command in a process of its own; returns its exit code."""
    # In KFP's script alone: `python3` may stand in the path of a data set, too.
    script = re.sub(r"\bpython3(?= -m )", shlex.quote(sys.executable), command[2])
    with subprocess.Popen(
        [*command[:2], script, *command[3:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **environ},
    ) as process:
        assert process.stdout is not None
        show(process.stdout)
        return process.wait()


def show(lines: Iterable[Any]) -> None:
    """Prints a stage's lines as they come, and ends the last one."""
    for line in lines:
        print(line, end="")
    print(flush=True)
