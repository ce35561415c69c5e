"""Shapes: Kubernetes' own schemas, and the models of the clients' packages.

`kubernetes-validate` has every built-in kind from 1.25 on. Custom resources it has
not; for those the models that the projects publish are asked: what goes in must
come out again, so an unknown field, which they drop in silence, is seen.
"""

from __future__ import annotations

import json
from typing import Any

import kfp_server_api
import kubernetes_validate
from kfp_server_api.api_client import ApiClient
from kubeflow_trainer_api import models as trainer

from policy import Object
from policy.objects import called

VERSIONS = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34")
"""Kubernetes versions whose strict schemas the manifests are held against."""
CUSTOM = {
    "TrainingRuntime",
    "TrainJob",
    "ResourceFlavor",
    "ClusterQueue",
    "LocalQueue",
    "Pipeline",
    "PipelineVersion",
}
"""Kinds that no Kubernetes has of itself."""
_TRAINER = {
    "TrainingRuntime": trainer.TrainerV1alpha1TrainingRuntime,
    "TrainJob": trainer.TrainerV1alpha1TrainJob,
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
    """Returns what a Kubernetes version would find wrong, unknown fields included."""
    try:
        kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{called(thing)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return f"{called(thing)}: {error.message}"
    return None


def custom_complaint(thing: Object) -> str | None:
    """Returns what the project behind a custom resource would find wrong."""
    kind = thing["kind"]
    if kind in _TRAINER:
        return _through_trainer(thing)
    if kind in _KUEUE:
        unknown = thing.get("spec", {}).keys() - _KUEUE[kind]
        return f"{called(thing)}: unknown {sorted(unknown)}" if unknown else None
    return _through_kfp(thing)


def _through_trainer(thing: Object) -> str | None:
    model = _TRAINER[thing["kind"]]
    try:
        found = model.from_json(json.dumps(thing)).to_dict()
    except ValueError as error:
        return f"{called(thing)}: {error}"
    return difference(thing, found, called(thing))


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
    return difference(body, found, model)


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
