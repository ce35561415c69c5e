"""JSON as KFP 2.17 speaks it, checked against the models of `kfp-server-api`.

A request with a key that the models do not know is answered with 400, as the
gateway's strict JSON does; an answer can only hold what the models can hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import kfp_server_api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

_CLIENT = kfp_server_api.ApiClient()


class Rejected(Exception):
    """An answer that says no: HTTP status, gRPC code and message."""

    def __init__(self, status: int, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def read_model(body: bytes, kind: str) -> Any:
    """Reads a request's body as a model of `kfp_server_api`.

    Raises:
        Rejected: it is no such thing.
    """
    try:
        data = json.loads(body)
        _check_keys(data, kind)
        return _CLIENT.deserialize(SimpleNamespace(data=body), kind)
    except (ValueError, TypeError, KeyError) as error:
        raise Rejected(400, f"proto: syntax error: {error}") from None


def to_json(value: Any) -> bytes:
    """Writes a model, or a mapping of models, as an answer's body."""
    return json.dumps(_CLIENT.sanitize_for_serialization(value)).encode()


def check_spec(spec: Mapping[str, Any]) -> pipeline_spec_pb2.PipelineSpec:
    """Reads a pipeline, with or without what only Kubernetes reads.

    Raises:
        Rejected: it is no pipeline.
    """
    both = "pipeline_spec" in spec
    graph = spec["pipeline_spec"] if both else spec
    platform = spec.get("platform_spec", {}) if both else {}
    try:
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        found = json_format.ParseDict(graph, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise Rejected(400, f"Failed to parse the pipeline spec: {error}") from None
    if not found.pipeline_info.name or not found.root.dag.tasks:
        raise Rejected(400, "Invalid input error: the pipeline spec is empty")
    return found


def check_parameters(
    spec: pipeline_spec_pb2.PipelineSpec, given: Mapping[str, Any] | None
) -> None:
    """Holds a run's parameters against the pipeline's.

    Raises:
        Rejected: one is unknown, or one without a default is absent.
    """
    known = spec.root.input_definitions.parameters
    for name in given or {}:
        if name not in known:
            raise Rejected(400, f"Unrecognized input parameter: {name}")
    for name, parameter in known.items():
        default = parameter.HasField("default_value") or parameter.is_optional
        if name not in (given or {}) and not default:
            raise Rejected(400, f"parameter {name} is not optional, yet has no value")


def _check_keys(data: Any, kind: str) -> None:
    """Refuses keys that a model does not have, at every depth."""
    if kind.startswith("list["):
        for item in data:
            _check_keys(item, kind[5:-1])
        return
    model = getattr(kfp_server_api.models, kind, None)
    if model is None or not model.openapi_types or not isinstance(data, dict):
        return
    kinds = {model.attribute_map[k]: t for k, t in model.openapi_types.items()}
    for key, value in data.items():
        if key not in kinds:
            raise ValueError(f"unknown field {key!r} in {kind}")
        _check_keys(value, kinds[key])
