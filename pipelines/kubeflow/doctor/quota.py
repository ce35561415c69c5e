"""Whether a namespace has room for the largest moment of a run.

The stages follow each other, so a run takes at one time what its largest stage
takes, with KFP's driver beside it, and for backend trainjob the TrainJob's pods
on top of the stage that waits for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipelines.kubeflow.doctor.checks import Lacking
from pipelines.kubeflow.doctor.cluster import Cluster
from pipelines.quantities import amount

DRIVER = {"cpu": "500m", "memory": "512Mi"}
"""Limit of a KFP driver's pod; its requests are less."""
_COUNTED = ("requests.cpu", "limits.cpu", "requests.memory", "limits.memory", "pods")


@dataclass(frozen=True)
class Needs:
    """What a run asks for at its largest moment.

    Attributes:
        stage: `cpu`, `memory` of the largest stage, and accelerators by their name.
        pods: pods of a TrainJob beside it.
    """

    stage: Mapping[str, str]
    pods: int = 0


def needs(parameters: Mapping[str, str], nodes: int, *, trainjob: bool) -> Needs:
    """Returns what a run asks for.

    Args:
        parameters: the pipeline's scalar parameters.
        nodes: pods of a TrainJob.
        trainjob: whether there is one.
    """
    stage = {
        "cpu": max(parameters["cpu"], parameters["train_cpu"], key=amount),
        "memory": max(parameters["memory"], parameters["train_memory"], key=amount),
    }
    if amount(parameters.get("accelerators", "0")):
        stage[parameters["accelerator_type"]] = parameters["accelerators"]
    return Needs(stage, nodes if trainjob else 0)


def check_room(cluster: Cluster, wanted: Needs) -> str:
    """Holds a run's needs against the quotas and limits of the namespace.

    Raises:
        Lacking: it would not fit now, or never.
    """
    node = _node(cluster) if wanted.pods else {}
    for largest in cluster.read("limitranges").get("items", []):
        for limit in largest["spec"]["limits"]:
            if limit["type"] == "Container":
                _check_limit(limit.get("max", {}), wanted.stage, "a stage")
                _check_limit(limit.get("max", {}), node, "a TrainJob's pod")
    quotas = cluster.read("resourcequotas").get("items", [])
    for quota in quotas:
        _check_quota(quota, _sums(wanted, node))
    return "the largest stage fits" if quotas else "no quota"


def _sums(wanted: Needs, node: Mapping[str, str]) -> dict[str, Decimal]:
    """Returns quota key -> what is needed."""
    found: dict[str, Decimal] = {"pods": Decimal(2 + wanted.pods)}
    for name in {*wanted.stage, *node}:
        each = amount(node.get(name, "0")) * wanted.pods
        total = amount(wanted.stage.get(name, "0")) + each
        total += amount(DRIVER.get(name, "0"))
        for kind in ("requests", "limits"):
            found[f"{kind}.{name}"] = total
    return found


def _check_quota(quota: Mapping[str, Any], wanted: Mapping[str, Decimal]) -> None:
    hard = quota.get("status", {}).get("hard") or quota["spec"].get("hard", {})
    used = quota.get("status", {}).get("used", {})
    for key, need in _asked(hard, wanted):
        left = amount(hard[key]) - amount(used.get(key, "0"))
        if need > left:
            raise Lacking(
                f"quota {quota['metadata']['name']} leaves {_short(left)} of {key}, a "
                f"run needs {_short(need)}",
                "raise it in manifests/base/limits.yaml, wait for other runs, or ask "
                "for less with --param",
            )


def _asked(
    hard: Mapping[str, str], wanted: Mapping[str, Decimal]
) -> Iterator[tuple[str, Decimal]]:
    for key in hard:
        # A quota's plain "cpu" and "memory" mean requests.
        full = key if "." in key or key == "pods" else f"requests.{key}"
        if full in wanted and (full in _COUNTED or full.startswith("requests.")):
            yield key, wanted[full]


def _check_limit(
    largest: Mapping[str, str], wanted: Mapping[str, str], who: str
) -> None:
    for name, value in wanted.items():
        if name in largest and amount(value) > amount(largest[name]):
            raise Lacking(
                f"{who} asks for {value} of {name}, a container may have "
                f"{largest[name]}",
                "raise the LimitRange in manifests/base/limits.yaml, or ask for less "
                "with --param",
            )


def _node(cluster: Cluster) -> dict[str, str]:
    """Returns what one pod of a TrainJob asks for, by its runtime."""
    group = "trainer.kubeflow.org"
    runtime = cluster.read("trainingruntimes", cluster.runtime, group=group)
    for job in runtime["spec"]["template"]["spec"]["replicatedJobs"]:
        for container in job["template"]["spec"]["template"]["spec"]["containers"]:
            if container["name"] == "node":
                asked = container.get("resources", {})
                return dict(asked.get("limits") or asked.get("requests") or {})
    return {}


def _short(value: Decimal) -> str:
    for unit, size in (("Gi", 2**30), ("Mi", 2**20)):
        if value >= size:
            return f"{float(value) / size:g}{unit}"
    return f"{float(value):g}"
