"""What the compiled pipeline becomes on this machine: edits of the parsed graph.

Kubeflow acts on retries and limits itself; KFP's local runner sleeps between
retries, and takes limits for inputs of a task that its cache key has to hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.quantities import quantity

_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(pipelinechannel--(\w+))'\]\}\}")


@dataclass(frozen=True)
class Limit:
    """A limit as it was given, and the parameter that holds it ("" = none does)."""

    text: str
    parameter: str

    @property
    def value(self) -> float:
        """CPUs or bytes."""
        return quantity(self.text, self.parameter or "a limit in the pipeline")


@dataclass(frozen=True)
class ContainerLimits:
    """What a task may take."""

    cpu: Limit
    memory: Limit


def drop_retries(graph: Mapping[str, Any]) -> None:
    """A failed stage is told at once: a second `safescale run` resumes from it."""
    for task in _tasks(graph):
        task.pop("retryPolicy", None)


def take_limits(
    graph: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, ContainerLimits]:
    """Takes the limits out of the graph: with more memory, a result is the same.

    Args:
        graph: the first document of the compiled pipeline; it is changed.
        arguments: values of the pipeline's parameters.

    Returns:
        Executor's label -> its limits.
    """
    defaults = graph["root"].get("inputDefinitions", {}).get("parameters", {})
    channels: set[str] = set()

    def limit(spelled: str) -> Limit:
        found = _PARAMETER.fullmatch(spelled)
        if found is None:
            return Limit(spelled, "")
        name = found[2]
        return Limit(str(arguments.get(name) or defaults[name]["defaultValue"]), name)

    limits = {}
    for label, executor in graph["deploymentSpec"]["executors"].items():
        asked = executor["container"].pop("resources")
        channels |= {channel for channel, _ in _PARAMETER.findall(json.dumps(asked))}
        cpu, memory = asked["resourceCpuLimit"], asked["resourceMemoryLimit"]
        limits[label] = ContainerLimits(limit(cpu), limit(memory))
    for task in _tasks(graph):
        if "dag" not in graph["components"][task["componentRef"]["name"]]:
            _forget(task.get("inputs", {}).get("parameters", {}), channels)
    return limits


def _tasks(graph: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for component in (graph["root"], *graph["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).values()


def _forget(inputs: dict[str, Any], channels: set[str]) -> None:
    """Removes a task's inputs that only its limits needed."""
    for name, source in tuple(inputs.items()):
        constant = source.get("runtimeValue", {}).get("constant")
        found = _PARAMETER.fullmatch(constant) if isinstance(constant, str) else None
        if name in channels or (found is not None and found[1] in channels):
            del inputs[name]
