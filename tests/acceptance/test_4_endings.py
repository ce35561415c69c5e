"""Runs that end otherwise: each ending is told as it was, and why."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from kube import Cluster
from plane import Plane

pytestmark = pytest.mark.cluster
WITHIN = 300.0
"""Seconds within which a follower says what a run waits for; it looks after 30."""


def test_a_stage_that_fails_is_quoted(
    plane: Plane, look: Callable[[str], None]
) -> None:
    workload = plane.workload("fails", data={"label": "no_such_column"})
    done = plane.submit("fails", workload).end(plane.patience)
    look(f"kubectl logs -n {plane.namespace} -l pipeline/runid={plane.run_id('fails')}")
    assert done.code in (1, 2), f"submit ended with {done.code}: {done.last}"
    # Why a step failed its pod says, to who may look there.
    reason = "no_such_column" if os.environ.get("KUBECONFIG") else "kubectl"
    assert reason in done.last, f"The reason is not told: {done.last}"


def test_a_stage_too_large_for_any_node_is_told_as_such(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    workload = plane.workload("too-large")
    memory = f"{_largest_node(cluster) // 2**30 + 8}Gi"
    command = plane.submit("too-large", workload, "--param", f"train_memory={memory}")
    run = plane.run_id("too-large")
    look(f"kubectl get events -n {plane.namespace} --sort-by=.lastTimestamp")
    words = ("memory", "quota", "maximum")
    plane.until(
        lambda: _says(command.said, words) or not command.running,
        lambda: f"Nobody says why the run waits: {command.said[-300:]}",
        _until_the_search(plane),
    )
    assert _says(command.said, words), f"The reason is not told: {command.said[-300:]}"
    plane.terminate(run)
    command.end(plane.patience)


def test_an_image_that_cannot_be_pulled_is_told_as_such(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    workload = plane.workload("no-image")
    command = plane.submit(
        "no-image", workload, "--image-prefix", "registry.invalid/nowhere"
    )
    run = plane.run_id("no-image")
    look(f"kubectl get events -n {plane.namespace} --sort-by=.lastTimestamp")
    words = ("ImagePull", "ErrImage", "pulled", "pull image")
    plane.until(
        lambda: _says(command.said, words) or not command.running,
        "Nobody says that the image cannot be pulled.",
        WITHIN,
    )
    assert _says(command.said, words), f"The reason is not told: {command.said[-300:]}"
    plane.terminate(run)
    command.end(plane.patience)


def test_a_run_that_another_stops_is_told_as_stopped(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    workload = plane.workload("stopped", training={"steps": 4000})
    command = plane.submit("stopped", workload)
    run = plane.run_id("stopped")
    look(f"safescale submit --follow {run} --namespace {plane.namespace}")
    plane.until(
        lambda: any(p.status.phase == "Running" for p in cluster.pods(run)),
        "The run did not begin.",
    )
    plane.terminate(run)
    _is_told_as_stopped(command.end(plane.patience))


def test_a_run_that_is_stopped_while_it_waits_is_told_as_stopped(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    workload = plane.workload("stopped-waiting")
    command = plane.submit(
        "stopped-waiting", workload, "--image-prefix", "registry.invalid/nowhere"
    )
    run = plane.run_id("stopped-waiting")
    look(f"safescale submit --follow {run} --namespace {plane.namespace}")
    plane.until(
        lambda: any(
            p.status.phase == "Pending" for p in cluster.pods(run, "prepare-data")
        ),
        "No pod waits.",
    )
    plane.terminate(run)
    _is_told_as_stopped(command.end(plane.patience))


def _is_told_as_stopped(done: object) -> None:
    code, last = done.code, done.last  # type: ignore[attr-defined]
    assert code == 1, f"submit ended with {code}: {last}"
    assert "stopped" in last, f"It is not told as stopped: {last}"


def _says(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _largest_node(cluster: Cluster) -> int:
    """Returns the memory of the largest node, in bytes; 1 TiB where none is listed."""
    from kubernetes.client import ApiException
    from kubernetes.utils.quantity import parse_quantity

    try:
        nodes = cluster.nodes()
    except ApiException:
        nodes = []
    sizes = [int(parse_quantity(n.status.allocatable["memory"])) for n in nodes]
    return max(sizes, default=2**40)


def _until_the_search(plane: Plane) -> float:
    """Returns the seconds until the first large pod is asked for, and some."""
    return min(plane.patience, 900.0)
