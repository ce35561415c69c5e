"""Shapes: Kubernetes' own schemas, and the models of the clients' packages.

`kubernetes-validate` has every built-in kind from 1.25 on. Custom resources it has
not; for those the models that the projects publish are asked: what goes in must
come out again, so an unknown field, which they drop in silence, is seen.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import jsonschema
import kfp_server_api
from kfp_server_api.api_client import ApiClient
from kubeflow_spark_api import models as spark
from kubeflow_trainer_api import models as trainer
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from policy import Object
from policy.objects import Pod, called, pods

VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34")
"""Kubernetes versions whose strict schemas the manifests are held against."""
CUSTOM = {
    "TrainingRuntime",
    "TrainJob",
    "ResourceFlavor",
    "ClusterQueue",
    "LocalQueue",
    "Pipeline",
    "PipelineVersion",
    "SparkConnect",
}
"""Kinds that no Kubernetes has of itself."""
_MODELS = {
    "TrainingRuntime": trainer.TrainerV1alpha1TrainingRuntime,
    "TrainJob": trainer.TrainerV1alpha1TrainJob,
    # Of spark-operator 2.4.0, whose CRD is that of 2.5.2 (config/crd/bases, no diff).
    "SparkConnect": spark.SparkV1alpha1SparkConnect,
}
_KUEUE: dict[str, set[str]] = {
    "ResourceFlavor": {"nodeLabels", "nodeTaints", "tolerations", "topologyName"},
    "ClusterQueue": {
        "admissionChecksStrategy",
        "cohortName",
        "flavorFungibility",
        "namespaceSelector",
        "preemption",
        "queueingStrategy",
        "resourceGroups",
        "stopPolicy",
    },
    "LocalQueue": {"clusterQueue", "fairSharing", "stopPolicy"},
}
"""Fields of Kueue's v1beta2 specs; it publishes no Python models."""
_PIPELINE = {"displayName": "display_name", "description": "description"}
_VERSION = {**_PIPELINE, "pipelineSpec": "pipeline_spec", "pipelineName": None}


def schema_complaint(thing: Object, version: str) -> str | None:
    """Returns what a Kubernetes version would find wrong, unknown fields included.

    As `kubernetes_validate.validate(..., strict=True)`, which reads 6 MB of
    definitions again for each object.
    """
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", thing["apiVersion"])
    try:
        schema = _schema(f"{thing['kind'].lower()}-{group}.json", version)
    except FileNotFoundError:
        return f"{called(thing)}: {version} has no {thing['apiVersion']} of it"
    registry = Resource.from_contents(schema) @ _definitions(version)
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    error = jsonschema.exceptions.best_match(validator.iter_errors(thing))
    return f"{called(thing)}: {error.json_path} {error.message}" if error else None


@cache
def _schema(name: str, version: str) -> Any:
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    return schema_contents(f"{folder}/{name}", version)


@cache
def _definitions(version: str) -> Any:
    return Resource.from_contents(_schema("_definitions.json", version)) @ Registry()


def custom_complaint(thing: Object) -> str | None:
    """Returns what the project behind a custom resource would find wrong."""
    kind = thing["kind"]
    if kind in _MODELS:
        return _through_model(thing)
    if kind in _KUEUE:
        unknown = thing.get("spec", {}).keys() - _KUEUE[kind]
        return f"{called(thing)}: unknown {sorted(unknown)}" if unknown else None
    return _through_kfp(thing)


def _through_model(thing: Object) -> str | None:
    model = _MODELS[thing["kind"]]
    try:
        found = model.from_json(json.dumps(thing)).to_dict()
    except ValueError as error:
        return f"{called(thing)}: {error}"
    if said := difference(thing, found, called(thing)):
        return said
    return next((s for pod in pods([thing]) if (s := _through_kubernetes(pod))), None)


def _through_kubernetes(pod: Pod) -> str | None:
    """Asks Kubernetes about a pod: the operators' models forget what is required."""
    template = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "of-a-custom-resource"},
        "template": {"metadata": pod.metadata, "spec": pod.spec},
    }
    found = (schema_complaint(template, v) for v in (VERSIONS[0], VERSIONS[-1]))
    return next((f"{pod.where}: {said}" for said in found if said), None)


def _through_kfp(thing: Object) -> str | None:
    """Asks KFP's own model of what the object becomes in its API."""
    pipeline = thing["kind"] == "Pipeline"
    fields = _PIPELINE if pipeline else {**_VERSION, "platformSpec": None}
    spec = thing["spec"]
    if unknown := spec.keys() - fields.keys():
        return f"{called(thing)}: unknown {sorted(unknown)}"
    body = {fields[name]: value for name, value in spec.items() if fields[name]}
    model = "V2beta1Pipeline" if pipeline else "V2beta1PipelineVersion"
    return kfp_complaint(model, body)


def kfp_complaint(model: str, body: Object) -> str | None:
    """Returns what a model of `kfp_server_api` loses or refuses of a body.

    Args:
        model: its name, such as V2beta1RecurringRun.
        body: as it is sent, JSON.
    """
    try:
        found = _kfp_round_trip(model, body)
    except (ValueError, TypeError) as error:
        return f"{model}: {error}"
    return difference(body, found, model) or _unlisted(model, body)


def _unlisted(model: str, body: Object) -> str | None:
    """Returns a value that an enumeration lacks: KFP's models let any text in."""
    kind = getattr(kfp_server_api, model)
    for field, name in kind.attribute_map.items():
        inner = getattr(kfp_server_api, kind.openapi_types[field], None)
        if name not in body or inner is None:
            continue
        listed = getattr(inner, "allowable_values", None)
        if listed and body[name] not in listed:
            return f"{model}.{name}: {body[name]!r} is none of {listed}"
        nested = isinstance(body[name], dict) and hasattr(inner, "attribute_map")
        if nested and (said := _unlisted(kind.openapi_types[field], body[name])):
            return said
    return None


def _kfp_round_trip(model: str, body: Object) -> Object:
    class Answer:
        data = json.dumps(body)

    with ApiClient(kfp_server_api.Configuration()) as client:
        kind = getattr(kfp_server_api, model)
        read = client.deserialize(Answer(), kind)
        found: Object = client.sanitize_for_serialization(read)
    return found


def difference(given: Any, found: Any, where: str) -> str | None:
    """Returns the first place where a model lost or changed what it was given.

    What it adds as a null, or as the empty default of a field, is no loss.
    """
    if isinstance(given, dict) and isinstance(found, dict):
        for name, value in given.items():
            if name not in found:
                return f"{where}: unknown field {name}"
            if said := difference(value, found[name], f"{where}.{name}"):
                return said
        return None
    if isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        pairs = enumerate(zip(given, found, strict=True))
        said = (difference(a, b, f"{where}[{i}]") for i, (a, b) in pairs)
        return next((s for s in said if s), None)
    return None if given == found else f"{where}: {given!r} became {found!r}"
