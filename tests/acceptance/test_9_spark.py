"""Spark, where its component is applied: it is ready, and prepare_data's alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kube import Cluster
from plane import Plane, skip_unless

from safescale_ammt.config.kubernetes_names import SPARK

pytestmark = pytest.mark.cluster
_A_RUN = {"pipelines.kubeflow.org/v2_component": "true"}
_OURS = {"app.kubernetes.io/part-of": "safescale-ammt"}
_STAGE = "app.kubernetes.io/component"
# A plugin needs some seconds for a pod that is new.
_KNOCK = """
import json, socket, time
time.sleep({settle!r})
try:
    socket.create_connection(({host!r}, 15002), timeout=5).close()
    print(json.dumps("open"))
except OSError as error:
    print(json.dumps(type(error).__name__))
"""


def server(plane: Plane, cluster: Cluster) -> dict[str, Any]:
    """Returns the SparkConnect; without one the check is skipped."""
    place = ("sparkoperator.k8s.io", "v1alpha1", plane.namespace, "sparkconnects")
    listed = {}
    try:
        listed = cluster.objects.list_namespaced_custom_object(*place)
    except Exception as error:
        # Without the operator the API knows no such path.
        skip_unless(getattr(error, "status", 0) != 404, "There is no spark-operator.")
        raise
    found = [o for o in listed["items"] if o["metadata"]["name"] == SPARK]
    skip_unless(bool(found), "manifests/components/spark is not applied.")
    return dict(found[0])


def test_spark_is_ready(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    look(f"kubectl describe sparkconnect {SPARK} -n {plane.namespace}")
    status = server(plane, cluster).get("status") or {}
    assert status.get("state") == "Ready", (
        f"Spark is {status.get('state') or 'unseen'}."
    )


def test_spark_opens_for_prepare_data_alone(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    look(f"kubectl get networkpolicies -n {plane.namespace} -o yaml")
    status = server(plane, cluster).get("status") or {}
    host = status["server"]["serviceName"]
    code = _KNOCK.format(host=host, settle=plane.within(15))
    image = plane.image("evaluate-safety")
    heard = {
        stage: cluster.probe(
            f"spark-{stage}", image, code, labels={**_A_RUN, **_OURS, _STAGE: stage}
        )
        for stage in ("prepare-data", "train-agents", "evaluate-safety")
    }
    assert heard.pop("prepare-data") == "open", "prepare_data does not reach Spark."
    inside = sorted(stage for stage, said in heard.items() if said == "open")
    assert not inside, f"Spark opens for {', '.join(inside)} too."
