"""Whatever one object names in another is there, and selectors meet labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from yaml_texts import documents

from components import SPARK, STAGES
from policy import Object
from policy.objects import ROOT, called, key, of_kind, pods
from safescale_ammt import __version__
from safescale_ammt.store.environment import SECRET_KEYS

MADE_BY_KFP = {("Secret", "mlpipeline-minio-artifact"), ("ConfigMap", "kfp-launcher")}
"""What Kubeflow Pipelines puts into a namespace itself."""
KFP_PODS = {"pipelines.kubeflow.org/v2_component": "true"}
"""Label of every pod of a run (backend/src/v2/compiler/argocompiler, 2.17)."""
FOREIGN_PODS: dict[str, list[dict[str, str]]] = {
    "kube-system": [{"k8s-app": "kube-dns"}],
    "kubeflow": [
        {"app": "ml-pipeline"},
        {"app": "seaweedfs"},
        {"component": "metadata-grpc-server"},
    ],
    "kubeflow-system": [
        {
            "app.kubernetes.io/name": "trainer",
            "app.kubernetes.io/component": "manager",
            "app.kubernetes.io/part-of": "kubeflow",
        }
    ],
    "minio": [{"app": "minio"}],
}
"""Labels of the servers that ours talk to, as their own manifests have them."""
_RESOURCE = {
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "serviceaccounts": "ServiceAccount",
    "trainingruntimes": "TrainingRuntime",
    "namespaces": "Namespace",
    "sparkconnects": "SparkConnect",
}
_POINTERS = {
    "LocalQueue": ("clusterQueue", "ClusterQueue"),
    "PipelineVersion": ("pipelineName", "Pipeline"),
}
_NAMESPACE = "kubernetes.io/metadata.name"
_TAGGED = re.compile(
    r"(?:.+/)?(?P<stage>\w+)(?::(?P<tag>[\w.-]+)|@sha256:[0-9a-f]{64})"
)


def references_resolve(objects: list[Object]) -> Iterator[str]:
    """Every account, secret, config map, role, runtime, queue and policy exists."""
    there = {key(o) for o in objects} | MADE_BY_KFP
    for thing in objects:
        for wanted in _wanted(thing):
            if wanted not in there:
                yield f"{called(thing)} names {'/'.join(wanted)}"
    for pod in pods(objects):
        for wanted in _wanted_by_pod(pod.spec):
            if wanted not in there:
                yield f"{pod.where} names {'/'.join(wanted)}"


def _wanted(thing: Object) -> Iterator[tuple[str, str]]:
    kind, spec = thing["kind"], thing.get("spec") or {}
    if kind == "RoleBinding":
        yield thing["roleRef"]["kind"], thing["roleRef"]["name"]
        yield from ((s["kind"], s["name"]) for s in thing["subjects"])
    elif kind == "Role":
        yield from _named_in(thing["rules"])
    elif kind == "ServiceAccount":
        yield from (("Secret", s["name"]) for s in thing.get("imagePullSecrets", []))
    elif kind == "ClusterQueue":
        flavors = [f for group in spec["resourceGroups"] for f in group["flavors"]]
        yield from (("ResourceFlavor", flavor["name"]) for flavor in flavors)
    elif kind.endswith("AdmissionPolicyBinding"):
        yield kind.removesuffix("Binding"), spec["policyName"]
    elif kind == "TrainJob":
        yield spec["runtimeRef"]["kind"], spec["runtimeRef"]["name"]
    elif kind in _POINTERS:
        field, target = _POINTERS[kind]
        yield target, spec[field]


def _named_in(rules: list[Object]) -> Iterator[tuple[str, str]]:
    for rule in rules:
        for resource in rule["resources"]:
            for name in rule.get("resourceNames", []):
                yield _RESOURCE[resource], name


def _wanted_by_pod(spec: Object) -> Iterator[tuple[str, str]]:
    yield "ServiceAccount", spec.get("serviceAccountName", "default")
    yield from (("Secret", s["name"]) for s in spec.get("imagePullSecrets", []))
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        for source in container.get("envFrom", []):
            yield from _sources(source)
        for variable in container.get("env", []):
            yield from _sources(variable.get("valueFrom", {}))
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]


def _sources(source: Object) -> Iterator[tuple[str, str]]:
    for name, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
        for form in (f"{name}Ref", f"{name}KeyRef"):
            if form in source:
                yield kind, source[form]["name"]


@cache
def stage_labels() -> tuple[dict[str, str], ...]:
    """Labels of the pods of a run, from the compiled pipeline."""
    golden = Path(ROOT, "tests", "golden", "train.yaml").read_text(encoding="utf-8")
    *_, platform = documents(golden)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    given = [e.get("podMetadata", {}).get("labels", {}) for e in executors.values()]
    return tuple({**KFP_PODS, **labels} for labels in given)


def selectors_meet_labels(objects: list[Object]) -> Iterator[str]:
    """A selector that selects nothing protects nothing."""
    ours = [*stage_labels(), *(pod.labels for pod in pods(objects))]
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if not _meets(spec["podSelector"], ours):
            yield f"{called(policy)} selects no pod: {spec['podSelector']}"
        for peer in _peers(spec):
            if not _peer_exists(peer, ours):
                yield f"{called(policy)}: no such peer: {peer}"
    for pod in pods(objects):
        for spread in pod.spec.get("topologySpreadConstraints", []):
            if not _meets(spread["labelSelector"], [pod.labels]):
                yield f"{pod.where} spreads other pods: {spread['labelSelector']}"


def _peers(spec: Object) -> Iterator[Object]:
    for rule in spec.get("ingress", []):
        yield from rule.get("from", [])
    for rule in spec.get("egress", []):
        yield from rule.get("to", [])


def _peer_exists(peer: Object, ours: list[dict[str, str]]) -> bool:
    if "ipBlock" in peer:
        return True
    known = ours
    if "namespaceSelector" in peer:
        space = peer["namespaceSelector"].get("matchLabels", {}).get(_NAMESPACE)
        known = FOREIGN_PODS.get(space, [])
    return "podSelector" in peer and _meets(peer["podSelector"], known)


def _meets(selector: Object, known: list[dict[str, str]]) -> bool:
    if selector.keys() - {"matchLabels"}:
        return False
    wanted = selector.get("matchLabels", {}).items()
    return any(wanted <= labels.items() for labels in known)


def images_are_built(objects: list[Object]) -> Iterator[str]:
    """Each image is one that images/ builds, of this version or a digest."""
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", _dockerfile(), re.MULTILINE))
    for where, image in _images(objects):
        named = _TAGGED.fullmatch(image)
        stage = named["stage"] if named else ""
        built = stage in {*STAGES, SPARK} and stage.replace("_", "-") in targets
        if not named or not built or named["tag"] not in {None, __version__}:
            yield f"{where}: {image}"


def _images(objects: list[Object]) -> Iterator[tuple[str, str]]:
    for pod in pods(objects):
        yield from ((pod.where, c["image"]) for c in pod.containers)
    for version in of_kind(objects, "PipelineVersion"):
        spec = version["spec"]["pipelineSpec"]["deploymentSpec"]["executors"]
        yield from ((called(version), e["container"]["image"]) for e in spec.values())


def all_images(objects: list[Object]) -> list[tuple[str, str]]:
    """Returns where each image stands and its name."""
    return list(_images(objects))


@cache
def _dockerfile() -> str:
    files = sorted(Path(ROOT, "images").glob("*Dockerfile"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def runtime_fits_our_trainjobs(objects: list[Object]) -> Iterator[str]:
    """`safescale-torch` has what a TrainJob of ours relies on."""
    for runtime in of_kind(objects, "TrainingRuntime"):
        spec: Any = runtime["spec"]
        jobs = {
            j["name"]: j["template"] for j in spec["template"]["spec"]["replicatedJobs"]
        }
        if "torch" not in spec.get("mlPolicy", {}):
            yield "no mlPolicy torch: torchrun would not be told its peers"
        if set(jobs) != {"node"}:
            yield f"replicated jobs {sorted(jobs)}"
            continue
        labels = jobs["node"].get("metadata", {}).get("labels", {})
        if labels.get("trainer.kubeflow.org/trainjob-ancestor-step") != "trainer":
            yield "job `node` is not marked as the trainer's"
        (container,) = jobs["node"]["spec"]["template"]["spec"]["containers"]
        secrets = [e["secretRef"]["name"] for e in container.get("envFrom", [])]
        if container["name"] != "node" or secrets != ["safescale-training"]:
            yield f"container {container['name']} with secrets {secrets}"
        sources = [e.get("valueFrom", {}) for e in container["env"]]
        keys = [source["secretKeyRef"] for source in sources if source]
        # Without it a job of rows inside of their dataset runs as well.
        fit = all(k["name"] == "safescale-datasets" and k["optional"] for k in keys)
        if not fit or {k["key"] for k in keys} != set(SECRET_KEYS):
            yield f"container {container['name']} with keys of {keys}"


def queues_cover_their_jobs(objects: list[Object]) -> Iterator[str]:
    """Kueue admits a job only if all that its pods request is covered."""
    requested = {
        name
        for pod in pods(of_kind(objects, "TrainingRuntime"))
        for container in pod.containers
        for name in container["resources"]["requests"]
    }
    for queue in of_kind(objects, "ClusterQueue"):
        for group in queue["spec"]["resourceGroups"]:
            covered = group["coveredResources"]
            for flavor in group["flavors"]:
                if [r["name"] for r in flavor["resources"]] != covered:
                    yield f"{called(queue)}: flavor {flavor['name']} is not {covered}"
            requested -= set(covered)
        if requested:
            yield f"{called(queue)} does not cover {sorted(requested)}"


RULES = (
    references_resolve,
    selectors_meet_labels,
    images_are_built,
    runtime_fits_our_trainjobs,
    queues_cover_their_jobs,
)
