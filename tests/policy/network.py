"""What the network policies let through, worked out as a plugin that enforces them.

Kinds of pods carry the labels that KFP, Argo, Trainer and we give them; targets are
what was asked on a real cluster, from there: a pod with its namespace's labels, or an
address, and a port. A connection needs a rule of the pod that opens it and, where
the target is a pod of ours, one of that pod as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from policy import Object
from policy.objects import called, of_kind, pods
from policy.references import KFP_PODS, stage_labels

OURS = "safescale"
_NAME = "kubernetes.io/metadata.name"
API_SERVER = "10.88.0.1"
"""Behind the endpoint slice of `kubernetes`, as it was on the real cluster."""


@dataclass(frozen=True)
class End:
    """One end of a connection.

    Attributes:
        name: in complaints.
        address: "" = a pod's, which no policy should name.
        space: the pod's namespace; "" = no pod.
        labels: the pod's.
    """

    name: str
    address: str = ""
    space: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Where to, at which port of the pod itself."""

    end: End
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return f"{self.end.name}:{self.port}/{self.protocol}"


def _pod(name: str, space: str, **labels: str) -> End:
    return End(name, "", space, labels)


def _server(name: str, *ports: int, key: str = "app") -> tuple[Target, ...]:
    end = _pod(name, "kubeflow", **{key: name})
    return tuple(Target(end, port) for port in ports)


_DNS = End("names", "", "kube-system", {"k8s-app": "kube-dns"})
NAMES = (Target(_DNS, 53, "UDP"), Target(_DNS, 53))
ARTIFACTS = _server("seaweedfs", 8333)
"""S3 of KFP's store: artifacts, and for Argo the logs of all steps."""
PIPELINES = (
    *_server("ml-pipeline", 8887),
    *_server("metadata-grpc-server", 8080, key="component"),
)
API = (Target(End("kubernetes", API_SERVER), 6443),)
MINIO = (Target(_pod("minio", "minio", app="minio"), 9000),)
_S3 = End("s3.amazonaws.com", "52.216.0.1")
AWS = (
    *(Target(_S3, 443), Target(End("sts", "54.239.0.1"), 443)),
    Target(End("pod identity", "169.254.170.23"), 80),
    Target(End("pod identity", "fd00:ec2::23"), 80),
)
TRAINER = End(
    "trainer",
    "",
    "kubeflow-system",
    {
        "app.kubernetes.io/name": "trainer",
        "app.kubernetes.io/component": "manager",
        "app.kubernetes.io/part-of": "kubeflow",
    },
)
STATUS = (Target(TRAINER, 10443),)
"""Where pods of a TrainJob report how far they are (Trainer 2.3); of use if open."""
WEBHOOK = (Target(End("webhook", "93.184.216.34"), 443),)
SHUT = (
    *_server("ml-pipeline", 8888),  # the API with people's tokens
    *_server("ml-pipeline-ui", 3000),
    *_server("seaweedfs", 8888, 18888, 8111, 9333, 19333, 8080, 18080),  # filer, IAM
    *_server("mysql", 3306),
    *_server("workflow-controller", 9090),
    *_server("cache-server", 8443),
    *(Target(End("node", "10.88.0.2"), port) for port in (10250, 10255, 22, 2379)),
    *(Target(End("kubernetes", API_SERVER), port) for port in (2379, 2380, 10257)),
    *(Target(TRAINER, port) for port in (8081, 8443, 9443)),
    *(Target(End("metadata", "169.254.169.254"), port) for port in (80, 443)),
    *(Target(End("internet", "93.184.216.34"), port) for port in (80, 22, 6443)),
    Target(End("internet", "2606:2800:220:1::1"), 443),
    Target(_pod("another pod", OURS), 8080),
    Target(_pod("another pod", OURS), 443),
    Target(_pod("a pod of others", "team-b", app="ml-pipeline"), 8887),
    Target(_pod("a pod of others", "team-b", app="seaweedfs"), 8333),
    *_server("another server of KFP", 8887, 8333, 8080),
)
"""Open to nobody, with whatever component; 443 of the internet depends on those."""
SPARK_PORTS = (15002, 7078, 7079, 4040)
"""Connect, the server's RPC, blocks, pages."""
FOREIGNERS = (
    *(_pod(name, "kubeflow", app=name) for name in ("ml-pipeline", "ml-pipeline-ui")),
    _pod(
        "a pod of others", "team-b", **{"app.kubernetes.io/component": "training-node"}
    ),
    End("node", "10.88.0.2"),
)
"""None of these is let in to a pod of a run."""


def kinds(objects: list[Object]) -> dict[str, tuple[End, tuple[Target, ...]]]:
    """Returns the kinds of pods, each with the targets that it needs.

    `wait`, `init` and the launcher are containers of a stage's pod: one network.
    """
    needs = (*NAMES, *ARTIFACTS, *PIPELINES, *API)
    found = {"driver": (End("driver", "", OURS, KFP_PODS), needs)}
    for labels in stage_labels():
        name = labels["app.kubernetes.io/component"]
        found[name] = End(name, "", OURS, labels), needs
    for pod in pods(of_kind(objects, "TrainingRuntime")):
        node = End("training-node", "", OURS, pod.labels)
        peers = tuple(Target(node, port) for port in (29500, 1024, 65535))
        found[node.name] = node, (*NAMES, *ARTIFACTS, *peers)
    return found | _of_spark(objects, found)


def _of_spark(
    objects: list[Object], stages: dict[str, tuple[End, tuple[Target, ...]]]
) -> dict[str, tuple[End, tuple[Target, ...]]]:
    """Returns Spark's pods, if there are any, and prepare_data that talks to them.

    Executors fetch shuffled rows from each other; with the server it goes both ways.
    """
    found = {}
    for pod in pods(of_kind(objects, "SparkConnect")):
        name = pod.labels["app.kubernetes.io/component"]
        found[name] = End(name, "", OURS, pod.labels | of_the_operator(name))
    if not found:
        return {}
    server, executor = found["spark-server"], found["spark-executor"]
    client, needs = stages["prepare-data"]
    blocks = Target(executor, 7079)
    own = (Target(server, 7078), Target(server, 7079), blocks)
    return {
        "prepare-data": (client, (*needs, Target(server, 15002))),
        "spark-server": (server, (*NAMES, *ARTIFACTS, *API, blocks)),
        "spark-executor": (executor, (*NAMES, *ARTIFACTS, *own)),
    }


def of_the_operator(name: str) -> dict[str, str]:
    """Labels that spark-operator (2.5.2) and Spark (4.3.0) add to those of a template.

    internal/controller/sparkconnect/util.go and options.go; Spark's deploy.k8s
    Constants.
    """
    labels = {
        "sparkoperator.k8s.io/launched-by-spark-operator": "true",
        "sparkoperator.k8s.io/connect-name": "safescale-spark",
    }
    if name == "spark-server":
        return labels | {"spark-role": "connect-server", "spark-version": "4.3.0"}
    return labels | {"spark-role": "executor", "spark-exec-id": "1"}


def reaches(objects: list[Object], source: End, target: Target) -> bool:
    """Says whether the policies let a pod of ours reach a target."""
    leaving = _allowed(objects, source, target.end, target, "Egress")
    if target.end.space != OURS:
        return leaving
    return leaving and _allowed(objects, target.end, source, target, "Ingress")


def _allowed(
    objects: list[Object], ours: End, other: End, target: Target, way: str
) -> bool:
    """Says whether one direction is open: no policy at all, or a rule of one."""
    key, peers = ("egress", "to") if way == "Egress" else ("ingress", "from")
    specs = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy")
        if way in _types(policy["spec"])
        and _selects(policy["spec"]["podSelector"], ours.labels)
    ]
    return not specs or any(
        _port_fits(rule.get("ports"), target) and _peer_fits(rule.get(peers), other)
        for spec in specs
        for rule in spec.get(key) or ()
    )


def _types(spec: Object) -> Sequence[str]:
    given = ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return spec.get("policyTypes") or given


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    if selector.keys() - {"matchLabels"}:
        raise ValueError(f"a selector that this does not read: {selector}")
    return (selector.get("matchLabels") or {}).items() <= labels.items()


def _port_fits(ports: list[Object] | None, target: Target) -> bool:
    return not ports or any(
        port.get("protocol", "TCP") == target.protocol
        and port.get("port", 0)
        <= target.port
        <= port.get("endPort", port.get("port", 65535))
        for port in ports
    )


def _peer_fits(peers: list[Object] | None, end: End) -> bool:
    return not peers or any(_is_peer(peer, end) for peer in peers)


def _is_peer(peer: Object, end: End) -> bool:
    if block := peer.get("ipBlock"):
        inside = [block["cidr"], *block.get("except", [])]
        return bool(end.address) and [_within(end.address, c) for c in inside] == [
            True,
            *([False] * (len(inside) - 1)),
        ]
    if not end.space:
        return False
    spaces = peer.get("namespaceSelector")
    here = end.space == OURS if spaces is None else _selects(spaces, {_NAME: end.space})
    return here and _selects(peer.get("podSelector") or {}, end.labels)


def _within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def a_run_gets_through(objects: list[Object]) -> Iterator[str]:
    """What KFP, Argo and training need is open, whatever a component adds."""
    for name, (source, needs) in kinds(objects).items():
        for target in needs:
            if not reaches(objects, source, target):
                yield f"{name} does not reach {target}"


def the_rest_is_shut(objects: list[Object]) -> Iterator[str]:
    """What no pod of a run has business with is shut from each of them."""
    if not of_kind(objects, "Namespace"):
        return  # beside KFP's own servers nothing of ours denies anything
    stray = {"another pod of the namespace": (End("stray", "", OURS, {}), ())}
    found = {**kinds(objects), **stray}
    stages = [source for source, _ in kinds(objects).values() if source.labels]
    ports = (443, 6443, 8080, 29500, *SPARK_PORTS)
    inner = [Target(end, port) for end in stages for port in ports]
    for name, (source, needs) in found.items():
        for target in (*SHUT, *inner):
            itself = target.end.labels == source.labels  # its peers
            if not itself and target not in needs and reaches(objects, source, target):
                yield f"{name} reaches {target}"
        yield from _lets_in(objects, name, source)
    for target in (*API, *PIPELINES):
        shut = {"training-node", "spark-executor", *stray}
        if target not in API:
            shut |= {"spark-server"}
        for name in {*found} & shut:
            if reaches(objects, found[name][0], target):
                yield f"{name} reaches {target}"


def _lets_in(objects: list[Object], name: str, source: End) -> Iterator[str]:
    for other, port in product(FOREIGNERS, (29500, *SPARK_PORTS)):
        if _allowed(objects, source, other, Target(source, port), "Ingress"):
            yield f"{name} lets {other.name} in at {port}"


def every_policy_is_of_use(objects: list[Object]) -> Iterator[str]:
    """Without one of the policies a connection that is needed would not be there."""
    if not of_kind(objects, "Namespace"):
        return
    extra = (*MINIO, *AWS, *WEBHOOK, *STATUS)
    for policy in of_kind(objects, "NetworkPolicy"):
        if not (policy["spec"].get("egress") or policy["spec"].get("ingress")):
            continue  # what denies by default
        fewer = [thing for thing in objects if thing is not policy]
        if not any(
            reaches(objects, source, target) and not reaches(fewer, source, target)
            for source, needs in kinds(objects).values()
            for target in (*needs, *extra)
        ):
            yield f"{called(policy)} opens nothing that is needed"


RULES = (a_run_gets_through, the_rest_is_shut, every_policy_is_of_use)
