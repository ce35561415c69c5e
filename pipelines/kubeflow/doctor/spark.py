"""Whether Spark is there for a run that prepares its rows on it.

What the operator makes and says: kubeflow/spark-operator 2.5.2, internal/controller/
sparkconnect (reconciler.go, util.go) and api/v1alpha1.
"""

from __future__ import annotations

import re
from functools import partial

from pipelines.kubeflow.doctor.checks import Check, Fault
from pipelines.kubeflow.doctor.cluster import Cluster
from safescale_ammt.config.kubernetes_names import SPARK, SPARK_ADDRESS, SPARK_VERSION

GROUP = "sparkoperator.k8s.io"
APPLY = "list manifests/components/spark in your overlay, and apply it"
_READY = "Ready"
_ADDRESS = re.compile(r"sc://([^/:;\s]+):15002(/.*)?")


def checks(cluster: Cluster) -> list[Check]:
    """Returns the checks, each after those that it needs; none without Spark."""
    if not cluster.spark:
        return []
    operator = ("spark operator", "namespace")
    connect = ("spark connect",)
    return [
        Check("spark operator", partial(find_operator, cluster), ("kubernetes",)),
        Check("spark connect", partial(find_server, cluster), operator),
        Check("spark version", partial(compare_versions, cluster), connect),
        Check("spark address", partial(read_address, cluster), operator),
    ]


def find_operator(cluster: Cluster) -> str:
    """Looks whether the API serves what the operator brings.

    Raises:
        Fault: it does not.
        Unknown: we may not look.
    """
    served = f"{GROUP}/v1alpha1"
    listing = cluster.look(f"/apis/{served}", "what the API serves") or {}
    if "sparkconnects" not in [item["name"] for item in listing.get("resources", [])]:
        raise Fault(
            "the API serves no SparkConnect",
            "install Kubeflow's spark-operator, 2.5 or later, and let it watch "
            f"namespace {cluster.namespace} (spark.jobNamespaces of its chart)",
        )
    return served


def find_server(cluster: Cluster) -> str:
    """Reads the SparkConnect, which the operator calls ready once its pod is.

    Raises:
        Fault: it does not exist, nobody looked at it, or it is not ready.
        Unknown: we may not read it.
    """
    what = f"SparkConnect {SPARK}"
    found = cluster.require("sparkconnects", SPARK, what, APPLY, group=GROUP)
    status = found.get("status") or {}
    state = status.get("state", "")
    if not state:
        raise Fault(
            f"no operator has looked at {what}",
            f"let spark-operator watch namespace {cluster.namespace} "
            "(spark.jobNamespaces of its chart), and look whether it runs",
        )
    if state != _READY:
        said = [c.get("message", "") for c in status.get("conditions") or ()]
        # It quotes the pod, which mostly has nothing to say: then a colon is the end.
        why = "; ".join(s.strip().rstrip(":") for s in said if s.strip())
        raise Fault(
            f"{what} is {state}" + (f" ({why})" if why else ""),
            f"kubectl -n {cluster.namespace} describe pod {SPARK}-server",
        )
    running = (status.get("executors") or {}).get("running", 0)
    return f"{SPARK} is ready, with {running} executors at work"


def compare_versions(cluster: Cluster) -> str:
    """Compares the server's Spark with the client's in the images.

    Raises:
        Fault: they differ.
    """
    what = f"SparkConnect {SPARK}"
    found = cluster.require("sparkconnects", SPARK, what, APPLY, group=GROUP)
    version = str(found["spec"]["sparkVersion"])
    if version != SPARK_VERSION:
        raise Fault(
            f"{what} is of Spark {version}, prepare_data's client of {SPARK_VERSION}",
            f"{APPLY}: it is of this version",
        )
    return version


def read_address(cluster: Cluster) -> str:
    """Reads what prepare_data is told of where Spark listens.

    Raises:
        Fault: it is told nothing, no address, or another namespace's.
        Unknown: we may not read it.
    """
    what = f"ConfigMap {SPARK}"
    values = cluster.require("configmaps", SPARK, what, APPLY).get("data") or {}
    address = str(values.get(SPARK_ADDRESS) or "")
    if not address:
        raise Fault(f"{what} has no {SPARK_ADDRESS}", APPLY)
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise Fault(
            f"{SPARK_ADDRESS} of {what} is {address}, and no sc://HOST:15002", APPLY
        )
    # A name of one part is looked up in the pod's own namespace.
    service, _, rest = match[1].partition(".")
    space = rest.partition(".")[0]
    if service == f"{SPARK}-server" and space not in {"", cluster.namespace}:
        raise Fault(
            f"{SPARK_ADDRESS} of {what} is {address}, in another namespace than "
            f"{cluster.namespace}",
            APPLY,
        )
    return address
