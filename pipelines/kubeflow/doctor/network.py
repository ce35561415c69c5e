"""Whether the way to the Kubernetes API is open to a run, and to it alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from pipelines.kubeflow.doctor.checks import Fault, Unknown
from pipelines.kubeflow.doctor.cluster import Cluster

POLICY = "kubernetes-api"
NARROW = (
    "run manifests/api-server.sh, list components/api-server in your overlay, and "
    "apply it"
)
Block = tuple[Any, tuple[Any, ...], list[tuple[int, int]]]
"""Addresses (None = all), those excepted, and first and last ports."""
_RUN = {"pipelines.kubeflow.org/v2_component": "true"}
_SLICE = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"


def check_api_address(cluster: Cluster) -> str:
    """Compares what the policies open with the addresses where the API listens.

    A policy sees the address behind the Service, which the endpoint slice of
    `kubernetes` has. That more than these are open is said, and is no fault.

    Raises:
        Fault: one of them is shut, so that no pod of a run could report.
        Unknown: we may not read policies or slice, or nothing denies by default.
    """
    path = f"/apis/networking.k8s.io/v1/namespaces/{cluster.namespace}/networkpolicies"
    listing = cluster.look(path, "the network policies") or {}
    policies = [p for p in listing.get("items", []) if binds_a_run(p)]
    if not policies:
        raise Unknown("no network policy shuts anything from a run")
    found = cluster.look(_SLICE, "the endpoint slice of kubernetes in default")
    if found is None:
        raise Unknown("namespace default has no endpoint slice kubernetes")
    blocks = [block for policy in policies for block in blocks_of(policy)]
    for part in found.get("endpoints") or ():
        for address in map(ip_address, part["addresses"]):
            for port in (item["port"] for item in found.get("ports") or ()):
                if not any(opens(block, address, port) for block in blocks):
                    raise Fault(f"{address}, port {port}, is shut from a run", NARROW)
    ours = [p for p in policies if p["metadata"]["name"] == POLICY]
    wide = [c for p in ours for c, _, _ in blocks_of(p) if c and c.num_addresses > 1]
    if wide:
        spelt = ", ".join(map(str, wide))
        return f"open, as is every address of {spelt}; to narrow it, {NARROW}"
    return "open, and no other address by that policy"


def binds_a_run(policy: Mapping[str, Any]) -> bool:
    """Says whether a policy is about what leaves the pods of a run."""
    spec = policy["spec"]
    selector: Mapping[str, Any] = spec.get("podSelector") or {}
    wanted = (selector.get("matchLabels") or {}).items()
    fits = wanted <= _RUN.items() and not selector.get("matchExpressions")
    return fits and "Egress" in spec.get("policyTypes", ())


def blocks_of(policy: Mapping[str, Any]) -> Iterator[Block]:
    """Yields what the rules of a policy open by address."""
    for rule in policy["spec"].get("egress") or ():
        ports = [
            (port["port"], port.get("endPort", port["port"]))
            for port in rule.get("ports") or ()
            if isinstance(port.get("port"), int)
        ]
        ports = ports if rule.get("ports") else [(0, 65535)]
        if not rule.get("to"):
            yield None, (), ports
        for block in (p["ipBlock"] for p in rule.get("to") or () if "ipBlock" in p):
            excepted = tuple(map(ip_network, block.get("except") or ()))
            yield ip_network(block["cidr"]), excepted, ports


def opens(block: Block, address: Any, port: int) -> bool:
    """Says whether a rule opens a port of an address."""
    network, excepted, ports = block
    here = network is None or address in network
    here = here and not any(address in other for other in excepted)
    return here and any(first <= port <= last for first, last in ports)
