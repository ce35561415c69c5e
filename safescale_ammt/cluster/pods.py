"""Pods, of a job above all: which have started, which still run, how they ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.resources import PODS
from safescale_ammt.cluster.trainjob import NODE
from safescale_ammt.errors import SafescaleError

ENDED = frozenset({"Succeeded", "Failed"})
"""Phases of a pod that runs no more."""


def pods_of(name: str, *, first: bool = False) -> dict[str, str]:
    """Returns the query for a job's pods (JobSet labels them); `first`: rank 0's."""
    labels = f"jobset.sigs.k8s.io/jobset-name={name}"
    if first:
        labels += (
            f",jobset.sigs.k8s.io/replicatedjob-name={NODE}"
            ",batch.kubernetes.io/job-completion-index=0"
        )
    return {"labelSelector": labels}


def pods_named(api: Api, name: str) -> list[dict[str, Any]]:
    """Returns the pods of every job that has, or had, this name."""
    return list(api.call("list", PODS, query=pods_of(name))["items"])


def phase_of(pod: Mapping[str, Any]) -> str:
    """Returns the word of a pod's phase; one that nobody has looked at is Pending."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def bad_ends(status: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields name and end of each container of a pod that did not end well."""
    for key in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(key) or ():
            end = (container.get("state") or {}).get("terminated") or {}
            if end.get("exitCode"):
                yield str(container["name"]), end


def has_started(api: Api, name: str) -> bool:
    """Says whether any pod of a job runs or has run."""
    return any(phase_of(pod) in {*ENDED, "Running"} for pod in pods_named(api, name))


def living(api: Api, name: str) -> list[str]:
    """Names the pods of a job that have not ended.

    A pod that is deleted goes on through its grace period, and so do those of other
    nodes when one has failed: their job is gone or failed by then.
    """
    pods = pods_named(api, name)
    return [p["metadata"]["name"] for p in pods if phase_of(p) not in ENDED]


def ended_by(api: Api, name: str) -> str:
    """Says how the containers of a failed job ended, "" if nothing is known."""
    pods: list[dict[str, Any]] = []
    ends = []
    # A bonus: pods that cannot be read must not hide the failure.
    with suppress(SafescaleError):
        pods = pods_named(api, name)
    for pod in pods:
        status = pod.get("status") or {}
        for _, end in bad_ends(status):
            why = end.get("reason") or "Error"
            ends.append(f"{pod['metadata']['name']}: {why}, {end['exitCode']}")
        if not ends and status.get("reason"):
            ends.append(f"{pod['metadata']['name']}: {status['reason']}")
    # A few are enough: one rank's end makes the others end.
    return "; ".join(ends[:4])
