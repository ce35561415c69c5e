"""A compiled pipeline, in the form that the API takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml


def spec_of(text: str) -> dict[str, Any]:
    """Returns a compiled pipeline in the form that the API takes and gives."""
    graph, *platform = yaml.safe_load_all(text)
    return {"pipeline_spec": graph, "platform_spec": platform[0] if platform else {}}


def titles(spec: Mapping[str, Any]) -> dict[str, str]:
    """Returns task name -> title of a pipeline's tasks, nested graphs left out.

    Args:
        spec: as `spec_of` gives it, or the graph alone.
    """
    return {
        name: str(task.get("taskInfo", {}).get("name") or name)
        for name, task, component in _tasks(spec)
        if "dag" not in component
    }


def uncache(spec: Mapping[str, Any]) -> None:
    """Switches the cache off in every task; KFP's SDK forgets nested graphs."""
    for _, task, _ in _tasks(spec):
        task["cachingOptions"] = {}


def _tasks(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yields name, task and component of every task, in the order they run."""
    graph = spec.get("pipeline_spec", spec)
    components = graph.get("components", {})

    def walk(dag: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
        for name, task in _in_order(dag.get("tasks", {})):
            component = components.get(task["componentRef"]["name"], {})
            yield name, task, component
            yield from walk(component.get("dag", {}))

    yield from walk(graph["root"]["dag"])


def _in_order(tasks: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields tasks after those that they depend on."""
    left = dict(tasks)
    while left:
        for name, task in left.items():
            if not any(before in left for before in task.get("dependentTasks", ())):
                yield name, left.pop(name)
                break
        else:  # a cycle: KFP would not have compiled it
            yield from left.items()
            return
