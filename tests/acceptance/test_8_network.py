"""What a pod of a run reaches: what it needs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kube import Cluster
from plane import Plane, skip_unless

pytestmark = pytest.mark.cluster
A_RUN = {"pipelines.kubeflow.org/v2_component": "true"}
NEEDED = {
    "KFP's API": ("ml-pipeline.kubeflow", 8887),
    "KFP's metadata": ("metadata-grpc-service.kubeflow", 8080),
    "the Kubernetes API": ("kubernetes.default", 443),
}
SHUT = {
    "KFP's pages": ("ml-pipeline-ui.kubeflow", 80),
    "an address of the internet": ("1.1.1.1", 443),
    "the cloud's metadata": ("169.254.169.254", 80),
}
# A plugin needs some seconds for a pod that is new; what is to be open may come late.
_KNOCK = """
import json, os, socket, time
from urllib.parse import urlsplit
targets = {targets!r}
store = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com")
targets["the object store"] = (store.hostname, store.port or 443)
found = {{}}
time.sleep({settle!r})
for name, (host, port) in targets.items():
    for _ in range(1 if name in {shut!r} else 5):
        try:
            socket.create_connection((host, port), timeout=5).close()
            found[name] = ""
            break
        except OSError as error:
            found[name] = type(error).__name__
            time.sleep({settle!r} / 5)
print(json.dumps(found))
"""
_LISTEN = """
import http.server
http.server.HTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_pod_of_a_run_reaches_what_it_needs_and_no_more(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    look(f"kubectl get networkpolicies -n {plane.namespace} -o yaml")
    image = plane.image("evaluate-safety")
    address = cluster.probe("listener", image, _LISTEN, wait=False)
    targets = {**NEEDED, **SHUT, "another pod": (address, 8000)}
    shut = [*SHUT, "another pod"]
    settle = plane.within(15)
    code = _KNOCK.format(targets=targets, shut=shut, settle=settle)
    found = cluster.probe(
        "knocker", image, code, secrets=("safescale-store",), labels=A_RUN
    )
    closed = [n for n in (*NEEDED, "the object store") if found[n]]
    assert not closed, f"A pod of a run does not reach {', '.join(closed)}."
    open_ = [n for n in shut if not found[n]]
    skip_unless(
        "another pod" not in open_,
        "Pods reach each other: no network plugin enforces policies here.",
    )
    assert not open_, f"A pod of a run reaches {', '.join(open_)}."
