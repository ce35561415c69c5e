"""How stages run on this machine: as processes, or in containers.

A runner is used on both sides of the process border. The command asks it to refuse
what it cannot do (`check`), before anything is touched, and to hold what it needs for
as long as the run lives (`hold`); the child has it run the tasks (`tasks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

# `safescale run --help` needs the runners' names alone: a YAML parser, the store and
# what the child runs tasks with are not loaded for it.
if TYPE_CHECKING:
    from pipelines.ir import CompiledPipeline, ContainerLimits
    from pipelines.local.kfp_seam import RunTask
    from pipelines.local.tasks import LocalTask, Report
    from pipelines.local.warm_process import WarmProcess
    from pipelines.workload import Workload

Closing = list[Callable[[], None]]
"""What has to be called before the child is killed."""


@dataclass(frozen=True)
class TaskContext:
    """What a runner may need of the run whose tasks it runs.

    Attributes:
        pipeline: the graph; a runner may still edit it.
        limits: executor label -> what a task may take.
        run: the run's id.
        environ: place and keys of the store.
        report: takes events.
        closing: gets what has to be called before this process is killed.
        current: returns the task that runs now.
        warm: what stages are forked from, if it was begun already.
    """

    pipeline: CompiledPipeline
    limits: Mapping[str, ContainerLimits]
    run: str
    environ: Mapping[str, str]
    report: Report
    closing: Closing
    current: Callable[[], LocalTask]
    warm: WarmProcess | None = None


class Runner(Protocol):
    """One way to run stages on this machine."""

    name: str
    stops_group: bool
    """Whether a stage is a process of the child's own group, and stopped as such."""

    def check(self, workload: Workload, store: str, environ: Mapping[str, str]) -> None:
        """Refuses what this runner cannot run; asks nobody.

        Args:
            workload: what is to run.
            store: URI of the run's store; "" = the embedded one.
            environ: the command's environment.

        Raises:
            ConfigError: it cannot run here in this way.
        """

    def hold(self, run: str) -> AbstractContextManager[None]:
        """Holds what the run needs outside its own processes, until it is over.

        Raises:
            InputError: what it needs is not there.
        """

    def tasks(self, context: TaskContext) -> AbstractContextManager[RunTask]:
        """Gives the function that runs a task's command."""
