"""What the cluster itself says of a run on Kubeflow: why it waits, what ended a step.

KFP shows states alone. Kubernetes knows why a pod has no node or no image, and how a
container ended; a stage leaves its own sentence there (`execution.TERMINATION`), for
the 4,096 bytes that Kubernetes keeps of it. All of it is in the status of pods.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from safescale_ammt.cluster.api import Api, Query
from safescale_ammt.cluster.pods import bad_ends, phase_of
from safescale_ammt.cluster.reasons import (
    ON_THE_WAY,
    held_up,
    newest_warning,
    subject,
)
from safescale_ammt.cluster.refusals import ApiRefusal, Away, one_line
from safescale_ammt.cluster.resources import PODS, Resource
from safescale_ammt.execution import read_last_words
from safescale_ammt.library_logs import without_secrets

RUN_LABEL = "pipeline/runid"
"""KFP's label on the workflow and all pods of a run (backend/src/common/util)."""
STAGE_LABEL = "app.kubernetes.io/component"
"""Our label on the pods of stages; drivers have none."""
EXIT_STAGE = "notify"
WORKFLOWS = Resource("argoproj.io", "v1alpha1", "workflows")
MAIN = "main"
"""Argo's name for the container that does a step's work."""
_UNWANTED = 137  # 128 + SIGKILL
LOST = frozenset({"Interrupted", "OutOfReach", "PeerLost", "StorageError"})
"""Classes of our errors that another try, later or on another node, may not meet."""
_TOO_LATE = "DeadlineExceeded"
_TAKEN = ("NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated")
# Kubernetes says so of a node that has too little; a pod that goes over its own limit
# "exceeds" it, and would again.
_LOW = "low on resource"
# KFP's launcher (backend/src/v2/component, launcher_v2.go and objectstore), gRPC, Go.
_AWAY = re.compile(
    r"failed to (?:up|down)load (?:in|out)put artifact"
    r"|rpc error: code = (?:Unavailable|DeadlineExceeded)"
    r"|connection (?:refused|reset)|i/o timeout|TLS handshake timeout|no such host"
)
# A line of klog, whose first letter is its level, or the last one of a traceback.
_ERROR = re.compile(
    r"[EF]\d{4} \S+ +\d+ \S+?\] (?P<klog>.+)"
    r"|(?P<python>(?:\w+\.)*\w+(?:Error|Exception): .+)"
)


@dataclass(frozen=True)
class StepEnd:
    """How a step ended that did not end well.

    Attributes:
        pod: its pod.
        stage: our label on it; "" = one of KFP's own.
        sentence: why, in words of the stage, of Argo or of Kubernetes; "" = unknown.
        code: exit code of the product, 1 where the stage did not say.
        stopped: whether a signal ended it: somebody stopped the run, or its node went.
        lost: whether the cluster ended it for a reason that may pass. What a stage
            found wrong, a limit that it went over and what nobody knows are none.
    """

    pod: str
    stage: str
    sentence: str
    code: int = 1
    stopped: bool = False
    lost: bool = False


def pods_of_run(api: Api, run: str) -> list[dict[str, Any]]:
    """Lists the pods of a run.

    Raises:
        ClusterError: they may not be listed, or the API stayed away.
    """
    query = {"labelSelector": f"{RUN_LABEL}={run}"}
    return list(api.call("list", PODS, query=query)["items"])


def workflows_of_run(api: Api, run: str) -> list[dict[str, Any]]:
    """Lists the Workflows of a run: one, or none if somebody deleted it.

    Raises:
        ClusterError: they may not be listed, or the API stayed away.
    """
    query = {"labelSelector": f"{RUN_LABEL}={run}"}
    return list(api.call("list", WORKFLOWS, query=query)["items"])


def step_end(pods: Iterable[Mapping[str, Any]], ending: str = "") -> StepEnd | None:
    """Says how the step ended that broke a run off, None if no pod shows it.

    Args:
        pods: of the run.
        ending: how the pod's name ends; "" = the last one that failed, the exit task's
            left out.
    """
    found: list[tuple[str, StepEnd]] = []
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status") or {}
        stage = (meta.get("labels") or {}).get(STAGE_LABEL, "")
        failed = status.get("phase") == "Failed" or any(bad_ends(status))
        if not failed or not meta["name"].endswith(ending):
            continue
        if ending or stage != EXIT_STAGE:
            ends = (end.get("finishedAt") for _, end in bad_ends(status))
            at = max((str(e or "") for e in ends), default="")
            found.append((at, pod_end(pod, stage)))
    return max(found, key=lambda one: one[0])[1] if found else None


def node_end(workflows: Iterable[Mapping[str, Any]], ending: str) -> StepEnd | None:
    """Says what Argo has noted of a step whose pod is gone, None if nothing.

    Error is Argo's word for what no program did: a pod that was deleted, a node that
    went (workflow/controller/operator.go of Argo 4.0.8).

    Args:
        workflows: of the run.
        ending: how the pod's name ends, and so does the node's id.
    """
    for workflow in workflows:
        nodes = ((workflow.get("status") or {}).get("nodes") or {}).values()
        for node in nodes:
            if ending and str(node.get("id", "")).endswith(ending):
                if node.get("phase") != "Error":
                    return None
                why = one_line(node.get("message") or "") or "Argo does not say why"
                return StepEnd("", "", f"its pod was lost: {why}", lost=True)
    return None


def pod_end(pod: Mapping[str, Any], stage: str) -> StepEnd:
    """Reads how one pod ended, the most telling first."""
    name, status = str(pod["metadata"]["name"]), pod.get("status") or {}
    for container, end in sorted(bad_ends(status), key=lambda one: one[0] != MAIN):
        code, text = int(end["exitCode"]), str(end.get("message") or "")
        if end.get("reason") == "OOMKilled":
            return StepEnd(name, stage, out_of_memory(pod, container))
        if container == MAIN:
            if words := read_last_words(text):
                stopped = words.kind == "Interrupted"
                # A deadline ends a step by a signal as well, and would end it again.
                lost = words.kind in LOST and status.get("reason") != _TOO_LATE
                return StepEnd(name, stage, words.sentence, words.code, stopped, lost)
            if status.get("reason"):
                break
            killed = code in (_UNWANTED, 143)  # 143: 128 + SIGTERM
            told = one_line(without_secrets(text))
            return StepEnd(name, stage, told, 1, killed, killed)
        reason = one_line(without_secrets(text)) or f"exit code {code}"
        # Argo's `wait` stores the log and the results; without it no step succeeds.
        sentence = f"Argo's container {container} failed: {reason}"
        return StepEnd(name, stage, sentence, lost=True)
    # Evicted, Preempting, DeadlineExceeded, NodeLost: the pod as a whole.
    parts = [str(status.get(key) or "") for key in ("reason", "message")]
    lost = parts[0] in _TAKEN or (parts[0] == "Evicted" and _LOW in parts[1])
    sentence = one_line(": ".join(filter(None, parts)))
    return StepEnd(name, stage, sentence, lost=lost)


def is_away(sentence: str) -> bool:
    """Says whether an error of KFP's own tells of a service that was away."""
    return bool(_AWAY.search(sentence))


def out_of_memory(pod: Mapping[str, Any], name: str) -> str:
    """Says that a container of a pod went over its limit, and over which."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    limits = [
        (c.get("resources") or {}).get("limits") or {}
        for c in containers
        if c["name"] == name
    ]
    limit = limits[0].get("memory", "") if limits else ""
    of = f" of {limit}" if limit else ""
    return f"its memory went over the limit{of} and the kernel killed it (OOMKilled)"


def told_by_log(api: Api, pod: str) -> str:
    """Returns the last error that a pod's log tells of; "" = none, or no right.

    For KFP's own containers, and for what fails before a stage's frame stands: neither
    leaves last words.
    """
    query: Query = {"container": MAIN, "tailLines": 50}
    told = ""
    with suppress(ApiRefusal, Away):
        for line in api.lines("get", PODS, pod, "log", query):
            if match := _ERROR.match(line.decode(errors="replace").strip()):
                told = one_line(without_secrets(match["klog"] or match["python"]))
    return told


def why_waiting(
    pods: Sequence[Mapping[str, Any]],
    warnings: Sequence[Mapping[str, Any]],
    workflows: Sequence[Mapping[str, Any]],
) -> str:
    """Says in the cluster's own words why a run stands still; "" if nothing does.

    Args:
        pods: of the run.
        warnings: events of type Warning of the namespace.
        workflows: of the run; Argo notes there why it could not make a pod, such as a
            quota that is full.
    """
    for pod in pods:
        if phase_of(pod) != "Pending":
            continue
        name = str(pod["metadata"]["name"])
        ours = (event for event in warnings if subject(event) == name)
        if why := held_up(pod.get("status") or {}) or newest_warning(ours):
            return f"{why} (pod {name})"
    for workflow in workflows:
        nodes = ((workflow.get("status") or {}).get("nodes") or {}).values()
        for node in nodes:
            text = one_line(node.get("message") or "")
            if node.get("phase") == "Pending" and text not in ON_THE_WAY:
                return text
        text = one_line((workflow.get("status") or {}).get("message") or "")
        if text and not nodes:
            return text
    return ""
