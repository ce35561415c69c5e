"""Names, labels, quantities: what `kubernetes-validate` does not look into."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from policy import Object
from policy.objects import CLUSTER_WIDE, amount, called, key, of_kind, pods

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(rf"({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_WIDEST = 253
_OWN_NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_PRIVATE = re.compile(r"/private-artifacts/([^/]+)/")
_SERVICE = re.compile(r"\.([-a-z0-9]+)\.svc\b")
_HOSTS = {"kube-system", "kubeflow", "kubeflow-system", "minio"}
"""Namespaces that others run: names, KFP, Trainer, a store."""
_AMOUNTS = {
    "requests",
    "limits",
    "hard",
    "default",
    "defaultRequest",
    "max",
    "min",
}


def names_are_dns_1123(objects: list[Object]) -> Iterator[str]:
    """Objects, containers and volumes have names that Kubernetes takes."""
    for thing in objects:
        kind, name = key(thing)
        form = _DNS_LABEL if kind == "Namespace" else _DNS_SUBDOMAIN
        if not form.fullmatch(name) or len(name) > _WIDEST:
            yield f"{kind} {name!r}"
    for pod in pods(objects):
        for part in (*pod.containers, *pod.spec.get("volumes", [])):
            if not _DNS_LABEL.fullmatch(part["name"]):
                yield f"{pod.where}: {part['name']!r}"


def labels_are_valid(objects: list[Object]) -> Iterator[str]:
    """Labels and annotations are text, with keys and values that are allowed."""
    metadata = [(called(o), o["metadata"]) for o in objects]
    metadata += [(pod.where, pod.metadata) for pod in pods(objects)]
    for where, about in metadata:
        for name, value in (about.get("labels") or {}).items():
            fits = isinstance(value, str) and _VALUE.fullmatch(value)
            if not (fits and _KEY.fullmatch(name)):
                yield f"{where}: label {name}: {value!r}"
        for name, value in (about.get("annotations") or {}).items():
            if not (isinstance(value, str) and _KEY.fullmatch(name)):
                yield f"{where}: annotation {name}: {value!r}"


def nothing_stands_twice(objects: list[Object]) -> Iterator[str]:
    """Each object is there once."""
    counted = Counter((*key(o), o["metadata"].get("namespace")) for o in objects)
    yield from (f"{kind} {name}" for (kind, name, _), n in counted.items() if n > 1)


def quantities_parse(objects: list[Object]) -> Iterator[str]:
    """Every amount is one, and no request exceeds its limit."""
    for thing in objects:
        if thing["kind"] in {"Pipeline", "PipelineVersion"}:
            continue
        yield from _amounts(thing, called(thing))


def _amounts(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _amounts(part, where)
        return
    if not isinstance(value, dict):
        return
    for name in ("sizeLimit", "nominalQuota"):
        if name in value:
            yield from _unreadable({name: value[name]}, where)
    given = {k: v for k, v in value.items() if k in _AMOUNTS and isinstance(v, dict)}
    unreadable = [s for part in given.values() for s in _unreadable(part, where)]
    yield from unreadable
    if not unreadable and {"requests", "limits"} <= given.keys():
        yield from _excess(given["requests"], given["limits"], where)
    for name, part in value.items():
        if name not in given:
            yield from _amounts(part, where)


def _unreadable(part: Object, where: str) -> Iterator[str]:
    for name, text in part.items():
        try:
            amount(text)
        except ValueError:
            yield f"{where}: {name}: {text!r}"


def _excess(requests: Object, limits: Object, where: str) -> Iterator[str]:
    for name, text in requests.items():
        if name in limits and amount(text) > amount(limits[name]):
            yield f"{where}: {name} requests {text}, limited to {limits[name]}"


def one_namespace(objects: list[Object]) -> Iterator[str]:
    """All is in one namespace, and whatever names a namespace names that one."""
    spaced = [o for o in objects if o["kind"] not in CLUSTER_WIDE]
    found = {o["metadata"].get("namespace") for o in spaced}
    if len(found) != 1 or None in found:
        yield f"namespaces {sorted(map(str, found))}"
        return
    (ours,) = found
    for space in of_kind(objects, "Namespace"):
        if space["metadata"]["name"] != ours:
            yield f"{called(space)} is not {ours}"
    yield from _strangers(objects, ours)


def _strangers(objects: list[Object], ours: str) -> Iterator[str]:
    """Yields whatever names another namespace than ours and our hosts'."""
    selecting = of_kind(objects, "NetworkPolicy", "ClusterQueue")
    selecting += [o for o in objects if o["kind"].endswith("AdmissionPolicyBinding")]
    known = {ours, *_HOSTS}
    named = [(o, name, known) for o in selecting for name in _named_namespaces(o)]
    for binding in of_kind(objects, "RoleBinding"):
        named += [(binding, s.get("namespace"), {ours}) for s in binding["subjects"]]
    for role in of_kind(objects, "Role"):
        spaces = [r for r in role["rules"] if "namespaces" in r["resources"]]
        named += [(role, name, {ours}) for r in spaces for name in r["resourceNames"]]
    for config in of_kind(objects, "ConfigMap"):
        root = config.get("data", {}).get("defaultPipelineRoot", "")
        named += [(config, n, {ours}) for n in _PRIVATE.findall(root)]
        hosts = " ".join(config.get("data", {}).values())
        named += [(config, n, known) for n in _SERVICE.findall(hosts)]
    for thing, name, allowed in named:
        if name not in allowed:
            yield f"{called(thing)} names namespace {name}"


def _named_namespaces(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _named_namespaces(part)
    elif isinstance(value, dict):
        if isinstance(value.get(_OWN_NAMESPACE_LABEL), str):
            yield value[_OWN_NAMESPACE_LABEL]
        for part in value.values():
            yield from _named_namespaces(part)


RULES = (
    names_are_dns_1123,
    labels_are_valid,
    nothing_stands_twice,
    quantities_parse,
    one_namespace,
)
