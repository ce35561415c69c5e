"""The runners that there are, by name."""

from __future__ import annotations

from pipelines.local.process_runner import SubprocessRunner
from pipelines.local.runner import Runner

RUNNERS = ("subprocess", "docker")


def runner_named(name: str) -> Runner:
    """Returns a runner by its name, one of `RUNNERS`."""
    if name == "docker":
        # Only who runs containers pays for the import of what describes them.
        from pipelines.local.container_runner import ContainerRunner

        return ContainerRunner()
    return SubprocessRunner()
