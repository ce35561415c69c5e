"""Whether a namespace's quota leaves enough for the largest moment of a run.

The stages follow each other, so a run takes at one time what its largest stage
takes, with KFP's driver beside it, and for backend trainjob the TrainJob's pods
on top of the stage that waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pipelines.kubeflow.doctor.checks import Fault
from pipelines.kubeflow.doctor.cluster import Cluster
from pipelines.kubeflow.preparation import IDLE
from pipelines.quantities import amount

# Limit of a KFP driver's pod; its requests are less.
DRIVER = {"cpu": "500m", "memory": "512Mi"}
# Of another resource, such as an accelerator, a quota counts the requests alone.
_COUNTED = ("requests.cpu", "limits.cpu", "requests.memory", "limits.memory", "pods")


@dataclass(frozen=True)
class RunResources:
    """What a run takes at its largest moment.

    Attributes:
        stage: `cpu`, `memory` of the largest stage, and accelerators by their name.
        pods: pods of a TrainJob beside it.
    """

    stage: Mapping[str, str]
    pods: int = 0


def resources_of(
    parameters: Mapping[str, str], nodes: int, *, trainjob: bool
) -> RunResources:
    """Returns what a run takes.

    Args:
        parameters: the pipeline's scalar parameters.
        nodes: pods of a TrainJob.
        trainjob: whether there is one.
    """
    # By amount: as text "500m" is more than "2".
    stage = {
        "cpu": max(parameters["cpu"], parameters["train_cpu"], key=amount),
        "memory": max(parameters["memory"], parameters["train_memory"], key=amount),
    }
    if amount(parameters.get("accelerators", "0")):
        stage[parameters["accelerator_type"]] = parameters["accelerators"]
    return RunResources(stage, nodes if trainjob else 0)


def check_quota(cluster: Cluster, run: RunResources) -> str:
    """Holds a run against the limits and the quotas of the namespace.

    Raises:
        Fault: it would not fit now, or never.
        Unknown: we may not read them.
    """
    container = cluster.node_container() if run.pods else None
    resources = (container or {}).get("resources", {})
    node = resources.get("limits") or resources.get("requests") or {}
    for limits in cluster.read("limitranges").get("items", []):
        for limit in limits["spec"]["limits"]:
            if limit["type"] == "Container":
                _check_limit(limit.get("max", {}), run.stage, "a stage")
                _check_limit(limit.get("max", {}), node, "a TrainJob's pod")
    needs = {"pods": Decimal(2 + run.pods)}  # a stage and the driver beside it
    for name in {*run.stage, *node}:
        total = amount(run.stage.get(name, "0")) + amount(DRIVER.get(name, "0"))
        total += amount(node.get(name, "0")) * run.pods
        # KFP sets limits alone, and Kubernetes then requests as much.
        needs |= {f"requests.{name}": total, f"limits.{name}": total}
    quotas = cluster.read("resourcequotas").get("items", [])
    for quota in quotas:
        # The status is what is enforced; it is empty until a controller has looked.
        hard = quota.get("status", {}).get("hard") or quota["spec"].get("hard", {})
        used = quota.get("status", {}).get("used", {})
        for key in hard:
            # A quota's plain "cpu" and "memory" mean requests.
            full = key if "." in key or key == "pods" else f"requests.{key}"
            is_counted = full in _COUNTED or full.startswith("requests.")
            if not is_counted or full not in needs:
                continue
            rest = amount(hard[key]) - amount(used.get(key, "0"))
            if needs[full] > rest:
                raise Fault(
                    f"quota {quota['metadata']['name']} leaves {_short(rest)} of {key},"
                    f" a run needs {_short(needs[full])}",
                    "raise it in manifests/base/limits.yaml, wait for other runs, or "
                    "ask for less with --param",
                )
    return "the largest stage fits" if quotas else "no quota"


def check_accelerators(cluster: Cluster, run: RunResources) -> str:
    """Says which hardware beside CPU and memory a run reserves, to no use.

    It is no fault: the run ends well, on CPUs.

    Raises:
        Fault: the run's TrainingRuntime does not exist.
        Unknown: we may not read it.
    """
    container = cluster.node_container() if run.pods else None
    resources = (container or {}).get("resources", {})
    reserved = {
        *run.stage,
        *resources.get("requests", {}),
        *resources.get("limits", {}),
    }
    idle = sorted(reserved - {"cpu", "memory", "ephemeral-storage"})
    return f"{', '.join(idle)} is reserved and stays idle: {IDLE}" if idle else "none"


def _check_limit(
    largest: Mapping[str, str], resources: Mapping[str, str], who: str
) -> None:
    for name, value in resources.items():
        if name in largest and amount(value) > amount(largest[name]):
            raise Fault(
                f"{who} asks for {value} of {name}, a container may have "
                f"{largest[name]}",
                "raise the LimitRange in manifests/base/limits.yaml, or ask for less "
                "with --param",
            )


def _short(value: Decimal) -> str:
    for unit, size in (("Gi", 2**30), ("Mi", 2**20)):
        if value >= size:
            return f"{float(value) / size:g}{unit}"
    return f"{float(value):g}"
