"""Stages as processes of the child's own group, forked from a warm one if possible."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from pipelines.local.forked import possible
from pipelines.local.kfp_seam import stage_call
from pipelines.local.runner import TaskContext
from pipelines.local.warm_process import WarmProcess, show

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
        with context.warm or WarmProcess() as warm:

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
