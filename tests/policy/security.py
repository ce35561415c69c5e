"""Least privilege: pods, roles, network, and what a release may not contain."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from itertools import product

from policy import Object
from policy.objects import called, of_kind, pods, texts
from policy.references import all_images

SECRETS = {
    "safescale-store",
    "safescale-registry",
    "safescale-training",
    "safescale-datasets",
    "safescale-notify",
    "safescale-pull",
}
PLACEHOLDER = "REPLACE-ME"
_VERBS = {"get", "list", "watch", "create", "patch", "delete"}
_KFP_VERBS = {"terminate", "enable", "disable", "readArtifact"}
_NEVER = {"pods/exec", "pods/attach", "jobs", "deployments", "rolebindings", "roles"}
_VOLUMES = {"emptyDir", "configMap", "secret", "projected", "downwardAPI"}
_RESOURCES = {"cpu", "memory", "ephemeral-storage"}
_PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
_RUN = "safescale-pipeline"
SPARK_SERVER = "safescale-spark"
"""The one account whose pod gets a token of the API: it makes executors."""
_GUARDED = {_RUN, SPARK_SERVER}
_MAKES_PODS = {"get", "list", "watch", "create", "delete", "deletecollection"}
_OPERATIONS = {
    "create": "CREATE",
    "patch": "UPDATE",
    "update": "UPDATE",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}
"""Verb of a Role -> operation of an admission policy; the others only read."""
_METADATA_SERVICE = "169.254.0.0/16"


def pods_are_restricted(objects: list[Object]) -> Iterator[str]:
    """Pod Security `restricted`, and more: read-only root, no API token."""
    for pod in pods(objects):
        spec, security = pod.spec, pod.spec.get("securityContext", {})
        for host in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(host):
                yield f"{pod.where}: {host}"
        makes_pods = spec.get("serviceAccountName") == SPARK_SERVER
        if spec.get("automountServiceAccountToken") is not makes_pods:
            yield f"{pod.where} gets a token of the Kubernetes API"
        if not security.get("runAsUser") or not security.get("runAsNonRoot"):
            yield f"{pod.where} may run as root"
        for volume in spec.get("volumes", []):
            if not _VOLUMES & volume.keys():
                yield f"{pod.where}: volume {volume['name']}"
            elif "sizeLimit" not in volume.get("emptyDir", {"sizeLimit": None}):
                yield f"{pod.where}: volume {volume['name']} without sizeLimit"
        for container in pod.containers:
            yield from _loose(pod.where, container)


def _loose(where: str, container: Object) -> Iterator[str]:
    security = container.get("securityContext", {})
    capabilities = security.get("capabilities", {})
    wanted = {
        "allowPrivilegeEscalation": (security.get("allowPrivilegeEscalation"), False),
        "readOnlyRootFilesystem": (security.get("readOnlyRootFilesystem"), True),
        "runAsNonRoot": (security.get("runAsNonRoot"), True),
        "privileged": (security.get("privileged", False), False),
        "capabilities": (capabilities, {"drop": ["ALL"]}),
        "seccompProfile": (security.get("seccompProfile"), {"type": "RuntimeDefault"}),
    }
    for name, (found, right) in wanted.items():
        if found != right:
            yield f"{where}, {container['name']}: {name} is {found}"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{where}, {container['name']}: hostPort"


def containers_are_bounded(objects: list[Object]) -> Iterator[str]:
    """Each container requests and is limited in CPU, memory and scratch space."""
    for pod in pods(objects):
        for container in pod.containers:
            for kind in ("requests", "limits"):
                found = container.get("resources", {}).get(kind, {}).keys()
                if _RESOURCES - found:
                    lacks = ", ".join(sorted(_RESOURCES - found))
                    yield f"{pod.where}, {container['name']}: no {kind} of {lacks}"


def the_mesh_stays_out(objects: list[Object]) -> Iterator[str]:
    """A sidecar never ends: the pods of a job refuse Istio's."""
    for pod in pods(objects):
        for about in ("labels", "annotations"):
            if pod.metadata.get(about, {}).get("sidecar.istio.io/inject") != "false":
                yield f"{pod.where}: {about} let Istio in"


def roles_are_least(objects: list[Object]) -> Iterator[str]:
    """No wildcard, no way to more rights, no secret of ours through the API."""
    for thing in of_kind(objects, "ClusterRole", "ClusterRoleBinding"):
        yield f"{called(thing)} reaches beyond the namespace"
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            # What it may make of them is bounded by a guard, as of a run's TrainJobs.
            makes_pods = role["metadata"]["name"] == SPARK_SERVER
            if makes_pods and rule["resources"] == ["pods"]:
                if set(rule["verbs"]) - _MAKES_PODS or rule["apiGroups"] != [""]:
                    yield f"{called(role)}: {rule['verbs']} of pods"
                continue
            yield from (f"{called(role)}: {said}" for said in _excessive(rule))


def _excessive(rule: Object) -> Iterator[str]:
    verbs, resources = set(rule["verbs"]), set(rule["resources"])
    named = set(rule.get("resourceNames", []))
    allowed, never = set(_VERBS), _NEVER
    if rule["apiGroups"] == ["pipelines.kubeflow.org"]:
        # KFP's `jobs` are its schedules.
        allowed, never = _VERBS | _KFP_VERBS, _NEVER - {"jobs"}
    if resources == {"serviceaccounts"} and named:
        allowed |= {"use"}
    if "*" in {*verbs, *resources, *rule["apiGroups"]} or verbs - allowed:
        yield f"verbs {sorted(verbs)} on {sorted(resources)}"
    if resources & never or ("pods" in resources and verbs - {"get", "list", "watch"}):
        yield f"{sorted(verbs)} {sorted(resources)}"
    if resources & {"secrets", "configmaps"} and (not named or verbs != {"get"}):
        yield f"{sorted(resources)} without a name, or more than read"
    if "secrets" in resources and named & SECRETS:
        yield f"reads {sorted(named & SECRETS)} through the API"


def what_a_run_writes_is_guarded(objects: list[Object]) -> Iterator[str]:
    """Each right to write of code in a pod has a policy that denies, and fails shut."""
    bound = {
        b["spec"]["policyName"]
        for b in of_kind(objects, "ValidatingAdmissionPolicyBinding")
        if b["spec"]["validationActions"] == ["Deny"]
    }
    rules = [
        rule
        for policy in of_kind(objects, "ValidatingAdmissionPolicy")
        if policy["metadata"]["name"] in bound
        and policy["spec"]["failurePolicy"] == "Fail"
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
    ]
    for role in of_kind(objects, "Role"):
        if role["metadata"]["name"] not in _GUARDED:
            continue
        for granted in role["rules"]:
            for verb, resource in product(granted["verbs"], granted["resources"]):
                needed = {resource, *granted["apiGroups"], _OPERATIONS.get(verb, "")}
                if verb in _OPERATIONS and not any(needed <= _about(r) for r in rules):
                    yield f"{called(role)}: {verb} {resource}"


def _about(rule: Object) -> set[str]:
    return {*rule["apiGroups"], *rule["resources"], *rule["operations"]}


def the_namespace_is_restricted(objects: list[Object]) -> Iterator[str]:
    """A namespace of ours refuses pods that are not `restricted`."""
    for space in of_kind(objects, "Namespace"):
        labels = space["metadata"].get("labels", {})
        for mode in ("enforce", "audit", "warn"):
            if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                yield f"{called(space)}: {mode} is not restricted"
            if f"pod-security.kubernetes.io/{mode}-version" not in labels:
                yield f"{called(space)}: {mode} has no version"
        if labels.get("pipelines.kubeflow.org/enabled") != "true":
            yield f"{called(space)}: KFP would not put its key into it"
        if labels.get("app.kubernetes.io/part-of") != "kubeflow-profile":
            yield f"{called(space)}: KFP's SeaweedFS would not let it in"


def the_network_is_shut(objects: list[Object]) -> Iterator[str]:
    """In a namespace of ours nobody talks to anybody but by a rule with a port."""
    policies = of_kind(objects, "NetworkPolicy")
    if of_kind(objects, "Namespace") and not any(map(_denies_all, policies)):
        yield "nothing denies by default"
    for policy in policies:
        spec = policy["spec"]
        for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
            if not rule.get("ports") or not (rule.get("to") or rule.get("from")):
                yield f"{called(policy)}: a rule for any port or any peer"
            for block in (p["ipBlock"] for p in rule.get("to", []) if "ipBlock" in p):
                everywhere = block["cidr"] == "0.0.0.0/0"
                if everywhere and _METADATA_SERVICE not in block.get("except", []):
                    yield f"{called(policy)} reaches the node's metadata service"


def _denies_all(policy: Object) -> bool:
    return bool(
        policy["spec"]
        == {"podSelector": {}, "policyTypes": policy["spec"]["policyTypes"]}
        and set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    )


def the_namespace_is_bounded(objects: list[Object]) -> Iterator[str]:
    """A quota, and defaults for the containers that others add to our pods."""
    if not of_kind(objects, "Namespace"):
        return
    quotas = {n for q in of_kind(objects, "ResourceQuota") for n in q["spec"]["hard"]}
    ranges = [r for o in of_kind(objects, "LimitRange") for r in o["spec"]["limits"]]
    for name in sorted(_RESOURCES):
        for kind in ("requests", "limits"):
            if f"{kind}.{name}" not in quotas:
                yield f"no quota of {kind}.{name}"
        for kind in ("default", "defaultRequest"):
            if not any(r["type"] == "Container" and name in r[kind] for r in ranges):
                yield f"no {kind} of {name}"


def secrets_lie_apart(objects: list[Object]) -> Iterator[str]:
    """No manifest that is applied again and again holds a secret."""
    yield from (called(o) for o in of_kind(objects, "Secret"))


def images_are_pinned(objects: list[Object]) -> Iterator[str]:
    """A release names images by digest."""
    for where, image in all_images(objects):
        if not _PINNED.fullmatch(image):
            yield f"{where}: {image}"


def nothing_is_left_to_replace(objects: list[Object]) -> Iterator[str]:
    """A release has no placeholder, in a secret's encoded values neither."""
    for thing in objects:
        data = thing.get("data", {}) if thing["kind"] == "Secret" else {}
        decoded = [
            base64.b64decode(v).decode("utf-8", "replace") for v in data.values()
        ]
        if any(PLACEHOLDER in text for text in (*decoded, *texts(thing))):
            yield called(thing)


RULES = (
    pods_are_restricted,
    containers_are_bounded,
    the_mesh_stays_out,
    roles_are_least,
    what_a_run_writes_is_guarded,
    the_namespace_is_restricted,
    the_network_is_shut,
    the_namespace_is_bounded,
    secrets_lie_apart,
)
RELEASE = (images_are_pinned, nothing_is_left_to_replace)
