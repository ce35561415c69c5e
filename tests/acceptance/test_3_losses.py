"""Pods that are lost while they run come back, and count once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kube import Cluster
from plane import Plane

pytestmark = pytest.mark.cluster


def test_lost_pods_of_training_judge_and_gate_change_nothing(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    workload = plane.workload("lost", training={"steps": 1600})
    command = plane.submit("lost", workload, "--no-cache")
    run = plane.run_id("lost")
    look(f"kubectl get pods -n {plane.namespace} -l pipeline/runid={run}")
    for part in ("train-agents", "evaluate-safety", "register-model"):
        cluster.lose(run, part)
    done = command.end(plane.patience)
    assert done.code == 0, f"submit ended with {done.code}: {done.last}"
    outcome = plane.outcome(run)
    assert (outcome.status, outcome.version) == ("champion", 1), outcome.sentence
