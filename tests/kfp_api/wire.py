"""JSON as KFP 2.17 speaks it, checked against the models of `kfp-server-api`.

A request with a key that the models do not know is answered with 400, as the
gateway's strict JSON does; an answer can only hold what the models can hold. What
protobuf calls unset is left out: an empty text or list, 0, false, the first name of
an enumeration. What a client stored as a structure (parameters, a pipeline) keeps
its empty values, has its keys in order, and its whole numbers without a fraction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import kfp_server_api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

_CLIENT = kfp_server_api.ApiClient()


# Server-side faults keep their cause out of `details`, not out of `message`.
_EXTERNAL = {13: "Internal Server Error", 14: "Service unavailable"}
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}


class Rejected(Exception):
    """An answer that says no.

    Attributes:
        status: of HTTP.
        code: of gRPC.
        message: the cause behind all that was wrapped around it on its way.
        cause: what the innermost error says to a client.
    """

    def __init__(self, status: int, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or _CODES.get(status, 2)
        self.cause = _EXTERNAL.get(self.code, message.rsplit(": ", 1)[-1])

    def inside(self, *wraps: str) -> Rejected:
        """Returns the error as callers further out pass it on, outermost last."""
        said = ": ".join([*reversed(wraps), str(self)])
        outer = Rejected(self.status, said, self.code)
        outer.cause = self.cause
        return outer

    def body(self) -> bytes:
        """Returns what gRPC's gateway writes."""
        kind = "type.googleapis.com/google.rpc.Status"
        details = {"@type": kind, "code": self.code, "message": self.cause}
        said = {"code": self.code, "message": str(self), "details": [details]}
        return json.dumps(said).encode()


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
    return json.dumps(_plain(value)).encode()


def as_struct(value: Any) -> Any:
    """Returns free JSON as a `google.protobuf.Struct` keeps it."""
    if isinstance(value, dict):
        return {key: as_struct(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [as_struct(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()[:19] + "Z"  # `%Y` of year 1 is "1"
    if isinstance(value, list):
        return [_plain(item) for item in value]
    kinds = getattr(type(value), "openapi_types", None)
    free = isinstance(value, _Free)
    if free or (kinds is None and not isinstance(value, dict)):
        return value
    items = value.items() if kinds is None else _fields(value, kinds)
    return {key: _plain(item) for key, item in items if not _unset(item)}


def _fields(model: Any, kinds: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Returns a model's fields by their names; free JSON has been made one."""
    found = []
    for name, kind in kinds.items():
        item = getattr(model, name)
        free = item and (kind == "object" or kind.startswith("dict("))
        key = model.attribute_map[name]
        found.append((key, _Free(as_struct(item)) if free else item))
    return found


class _Free(dict[str, Any]):
    """JSON of a client's own: nothing in it is left out."""


def _unset(item: Any) -> bool:
    nothing = item in (None, "", 0, False) or (isinstance(item, list) and not item)
    return bool(nothing) or (isinstance(item, str) and item.endswith("_UNSPECIFIED"))


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
