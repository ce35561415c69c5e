"""The runners that there are, by name."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from pipelines.local.runner import Runner

_CLASSES = {
    "subprocess": ("pipelines.local.runner", "SubprocessRunner"),
    "docker": ("pipelines.local.container_runner", "ContainerRunner"),
}
RUNNERS = tuple(_CLASSES)


def runner_named(name: str) -> Runner:
    """Returns a runner by its name, one of `RUNNERS`."""
    # By name: the container client is imported only where containers are asked for.
    module, cls = _CLASSES[name]
    return cast("Runner", getattr(import_module(module), cls)())
