"""Whether quota and nodes have room for the largest moment of a run.

The stages follow each other, so a run takes at one time what its largest stage
takes, with KFP's driver beside it, and for backend trainjob the TrainJob's pods
on top of the stage that waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from pipelines.kubeflow.doctor.checks import Check, Fault
from pipelines.kubeflow.doctor.cluster import Cluster
from pipelines.kubeflow.preparation import why_idle
from pipelines.quantities import amount
from safescale_ammt.config.sections import TrainingConfig

_TRAINJOBS = "count/trainjobs.trainer.kubeflow.org"
_NONE = Decimal(0)
# Of KFP's driver (backend/src/v2/compiler/argocompiler, 2.17).
_DRIVER = {
    "limits": {"cpu": "500m", "memory": "512Mi"},
    "requests": {"cpu": "100m", "memory": "64Mi"},
}


@dataclass(frozen=True)
class RunResources:
    """What a run takes at its largest moment.

    Attributes:
        stage: `cpu`, `memory` of the largest stage, and accelerators by their name.
        training: the section, whose nets may train on an accelerator.
    """

    stage: Mapping[str, str]
    training: TrainingConfig

    @property
    def pods(self) -> int:
        """Pods of a TrainJob beside it."""
        return self.training.nodes if self.training.backend == "trainjob" else 0


def resources_of(
    parameters: Mapping[str, str], training: TrainingConfig
) -> RunResources:
    """Returns what a run takes.

    Args:
        parameters: the pipeline's scalar parameters.
        training: the section.
    """
    # By amount: as text "500m" is more than "2".
    stage = {
        "cpu": max(parameters["cpu"], parameters["train_cpu"], key=amount),
        "memory": max(parameters["memory"], parameters["train_memory"], key=amount),
    }
    if amount(parameters.get("accelerators", "0")):
        stage[parameters["accelerator_type"]] = parameters["accelerators"]
    return RunResources(stage, training)


def checks(cluster: Cluster, run: RunResources) -> list[Check]:
    """Returns the checks, each after those that it needs."""
    room, nodes, accelerators = (
        partial(look, cluster, run)
        for look in (check_quota, check_nodes, check_accelerators)
    )
    runtime = ("runtime",) if run.pods else ()
    return [
        Check("quota", room, (*runtime, "namespace")),
        Check("nodes", nodes, (*runtime, "kubernetes")),
        Check("accelerators", accelerators, runtime),
    ]


def check_quota(cluster: Cluster, run: RunResources) -> str:
    """Holds a run against the limits and the quotas of the namespace.

    Raises:
        Fault: it would not fit now, or never.
        Unknown: we may not read them.
    """
    container = cluster.node_container() if run.pods else None
    node = (container or {}).get("resources", {})
    limits = [
        limit
        for item in cluster.read("limitranges").get("items", [])
        for limit in item["spec"]["limits"]
        if limit["type"] == "Container"
    ]
    for limit in limits:
        _check_limit(limit.get("max", {}), run.stage, "a stage")
        asked = node.get("limits") or node.get("requests") or {}
        _check_limit(limit.get("max", {}), asked, "a TrainJob's pod")
    driver = charge_of(_DRIVER["limits"], _DRIVER["requests"], limits)
    whole = sum_of(charge_of(run.stage, run.stage, limits), charge_of_job(node, run))
    quotas = cluster.read("resourcequotas").get("items", [])
    for quota in quotas:
        check_room(quota, sum_of(whole, driver))
    if not quotas:
        return "no quota"
    most = min(most_at_once(hard_of(quota), whole) for quota in quotas)
    return f"the largest stage fits, {most} like it at once where nothing else runs"


def charge_of_job(
    node: Mapping[str, Mapping[str, str]], run: RunResources
) -> dict[str, Decimal]:
    """Returns what a quota counts for a run's TrainJob; nothing if it has none."""
    found = {"pods": Decimal(run.pods), _TRAINJOBS: Decimal(run.pods > 0)}
    for kind in ("limits", "requests"):
        for name, value in node.get(kind, {}).items():
            found[f"{kind}.{name}"] = amount(value) * run.pods
    return found


def sum_of(*charges: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Adds charges up, each by its own name."""
    names = {name for charge in charges for name in charge}
    return {name: sum((c.get(name, _NONE) for c in charges), _NONE) for name in names}


def charge_of(
    limits: Mapping[str, str],
    requests: Mapping[str, str],
    ranges: Sequence[Mapping[str, Any]],
) -> dict[str, Decimal]:
    """Returns what a quota counts for a pod of a run: `requests.cpu` -> CPUs, ...

    A pod has two containers at a time: `main`, and Argo's `wait`, which asks for
    nothing. A LimitRange gives each of them what it does not ask for itself.

    Args:
        limits: of `main`.
        requests: of `main`.
        ranges: the LimitRanges' parts for containers.
    """
    found = {"pods": Decimal(1)}
    for kind, field, main in (
        ("limits", "default", limits),
        ("requests", "defaultRequest", requests),
    ):
        given = {k: v for part in ranges for k, v in part.get(field, {}).items()}
        for name in {**given, **main}:
            both = amount(main.get(name, given.get(name, "0")))
            found[f"{kind}.{name}"] = both + amount(given.get(name, "0"))
    return found


def most_at_once(hard: Mapping[str, str], charge: Mapping[str, Decimal]) -> int:
    """Returns how many pods of one kind a quota lets exist at the same time."""
    asked = ((amount(value), charge.get(full_key(key))) for key, value in hard.items())
    return min((int(total // each) for total, each in asked if each), default=0)


def full_key(key: str) -> str:
    """Returns a quota's key in full: its plain `cpu` and the like mean requests."""
    plain = key in ("cpu", "memory", "ephemeral-storage")
    return f"requests.{key}" if plain else key


def hard_of(quota: Mapping[str, Any]) -> Mapping[str, str]:
    """Returns what a quota enforces: its status, once a controller has looked."""
    hard = quota.get("status", {}).get("hard") or quota["spec"].get("hard", {})
    return dict(hard)


def check_room(quota: Mapping[str, Any], needs: Mapping[str, Decimal]) -> None:
    """Holds what a run needs against what a quota leaves.

    Raises:
        Fault: it leaves less.
    """
    used = quota.get("status", {}).get("used", {})
    for key, total in hard_of(quota).items():
        need = needs.get(full_key(key), _NONE)
        rest = amount(total) - amount(used.get(key, "0"))
        if need > rest:
            raise Fault(
                f"quota {quota['metadata']['name']} leaves {_short(rest)} of {key},"
                f" a run needs {_short(need)}",
                "raise it in manifests/base/limits.yaml, wait for other runs, or "
                "ask for less with --param",
            )


def check_nodes(cluster: Cluster, run: RunResources) -> str:
    """Holds the largest pod of a run against the nodes, empty as they may be.

    Raises:
        Fault: no node is large enough, so that the pod would wait for ever.
        Unknown: we may not list nodes.
    """
    listing = cluster.look("/api/v1/nodes", "the nodes") or {}
    nodes = [
        n
        for n in listing.get("items", [])
        if not n.get("spec", {}).get("unschedulable")
    ]
    container = cluster.node_container() if run.pods else None
    node = (container or {}).get("resources", {})
    asked = {"a stage": run.stage}
    if node.get("requests"):
        asked["a TrainJob's pod"] = node["requests"]
    for who, resources in asked.items():
        for name, value in resources.items():
            offers = [
                amount(n["status"].get("allocatable", {}).get(name, "0")) for n in nodes
            ]
            if amount(value) > max(offers, default=_NONE):
                raise Fault(
                    f"{who} asks for {value} of {name}, the largest of {len(nodes)} "
                    f"nodes offers {_short(max(offers, default=_NONE))}",
                    "add such a node, or ask for less with --param",
                )
    return f"the largest stage fits on one of {len(nodes)} nodes"


def check_accelerators(cluster: Cluster, run: RunResources) -> str:
    """Says which hardware beside CPU and memory a run reserves, and if to no use.

    That is no fault: the run ends well, on CPUs.

    Raises:
        Fault: the run's TrainingRuntime does not exist.
        Unknown: we may not read it.
    """
    container = cluster.node_container() if run.pods else None
    resources = (container or {}).get("resources", {})
    of_pods = {*resources.get("requests", {}), *resources.get("limits", {})}
    said = []
    for reserved, of_step in ((set(run.stage), True), (of_pods, False)):
        names = ", ".join(sorted(reserved - {"cpu", "memory", "ephemeral-storage"}))
        why = why_idle(run.training, of_step=of_step)
        use = f"stays idle: {why}" if why else "nets train on it"
        said += [f"{names} is reserved and {use}"] if names else []
    return "; ".join(said) or "none"


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
