"""Pods of a run on Kubeflow, as kubelet, scheduler and Argo leave them.

The names are those that were recorded of a real plane: workflow, template, and the
number of the node that KFP's API shows.
"""

from __future__ import annotations

from typing import Any

from kfp_api.lives import node, workflow

from cluster.api import ClusterApi

IMPL = "metadata-0-2-retry-system-container-impl"
DRIVER = "system-container-driver"


def add_workflow(api: ClusterApi, run: Any, **nodes: dict[str, Any]) -> str:
    """Puts a run's Workflow there; returns its name."""
    name = workflow(run)
    labels = {"pipeline/runid": run.run_id}
    api.add("workflows", name, labels=labels, status={"nodes": nodes})
    return name


def add_pod(
    api: ClusterApi, run: Any, stage: str, status: dict[str, Any], driver: str = ""
) -> str:
    """Puts the pod of a stage, or of a driver, there; returns its name."""
    labels = {"pipeline/runid": run.run_id}
    path, template = f"{driver}(0)", DRIVER
    if not driver:
        labels["app.kubernetes.io/component"] = stage
        path, template = f"{stage}/executor(0)", IMPL
    number = node(run, path).rpartition("-")[2]
    name = f"{workflow(run)}-{template}-{number}"
    limits = {"resources": {"limits": {"memory": "4Gi"}}}
    spec = {"containers": [{"name": "wait"}, {"name": "main", **limits}]}
    api.add("pods", name, labels=labels, spec=spec, status=status)
    return name


def ended(code: int, message: str = "", reason: str = "Error", name: str = "main"):
    """Returns the status of a pod one of whose containers ended so."""
    end = {"exitCode": code, "reason": reason, "finishedAt": "2026-11-29T10:23:20Z"}
    end |= {"message": message} if message else {}
    well = {"name": "wait", "state": {"terminated": {"exitCode": 0}}}
    this = {"name": name, "state": {"terminated": end}}
    return {"phase": "Failed", "containerStatuses": [well, this]}


def held(reason: str, message: str = "", init: bool = False) -> dict[str, Any]:
    """Returns the status of a pod one of whose containers waits."""
    waiting = {"reason": reason, **({"message": message} if message else {})}
    kind = "initContainerStatuses" if init else "containerStatuses"
    return {"phase": "Pending", kind: [{"name": "init", "state": {"waiting": waiting}}]}


def unscheduled(message: str) -> dict[str, Any]:
    """Returns the status of a pod that no node takes."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {"phase": "Pending", "conditions": [{**condition, "message": message}]}


def warn(api: ClusterApi, pod: str, reason: str, message: str, at: str = "1") -> None:
    """Puts a warning about a pod there."""
    about = {"kind": "Pod", "name": pod}
    time = f"2026-11-29T10:00:0{at}Z"
    rest = {"type": "Warning", "reason": reason, "message": message}
    name = f"{pod}.{reason.lower()}{at}"
    api.add("events", name, involvedObject=about, lastTimestamp=time, **rest)
