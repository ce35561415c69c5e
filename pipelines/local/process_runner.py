"""Stages as processes of the child's own group."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pipelines.local.runner import TaskContext

if TYPE_CHECKING:
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

    def tasks(self, context: TaskContext) -> AbstractContextManager[None]:
        """Leaves the processes to KFP."""
        del context
        return nullcontext()
