"""Pipelines' files, as KFP's upload server takes them.

It is plain HTTP beside gRPC's gateway, and answers in ways of its own: missing
rights are 400 without a reason, a name that is too long is 400 in plain text, all
else is `{"error_message": ..., "error_details": ...}` (pipeline_upload_server.go,
2.17.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING, Any

from kfp_api.state import found
from kfp_api.wire import Rejected

if TYPE_CHECKING:
    from kfp_api.requests import Handler

_LONGEST = {"Pipeline": 128, "PipelineVersion": 127}
_SUBDOMAIN = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)


class UploadRejected(Rejected):
    """A no of the upload server; `text` = as plain text."""

    def __init__(self, status: int, message: str, text: bool = False) -> None:
        super().__init__(status, message)
        self.text = text

    def body(self) -> bytes:
        """Returns what the upload server writes."""
        if self.text:
            return f"{self}\n".encode()
        said = {"error_message": str(self), "error_details": str(self)}
        return json.dumps(said).encode()


def upload(handler: Handler, asked: Mapping[str, str], body: bytes) -> Any:
    """Takes the file of a new pipeline, or of a new version of one."""
    version = handler.path.split("?")[0].endswith("upload_version")
    what = "a pipeline version" if version else "a pipeline"
    try:
        return (_version if version else _pipeline)(handler, asked, body)
    except UploadRejected:
        raise
    except Rejected as error:
        if error.status == 409 and not version:
            what += " and a pipeline version"
        told = error.cause if error.code == 3 else f"Failed to create {what}"
        status = error.status if error.status in (409, 500) else 400
        raise UploadRejected(status, told) from None


def _pipeline(handler: Handler, asked: Mapping[str, str], body: bytes) -> Any:
    world, text = handler.api.world, _file(handler, body)
    namespace = asked.get("namespace", "")
    if world.multi_user and not namespace:
        raise UploadRejected(400, "Invalid input error: Namespace is empty", text=True)
    handler.permit(namespace, "create", "pipelines")
    name = asked.get("name") or asked.get("display_name", "")
    _check_name("Pipeline", name)
    if world.kubernetes_native and not _SUBDOMAIN.fullmatch(name):
        raise UploadRejected(400, f'Invalid pipeline name "{name}": {_SAID}')
    made = world.add_pipeline(
        name, namespace, asked.get("description", ""), asked.get("display_name", "")
    )
    world.add_version(made.pipeline_id, text, name, asked.get("display_name", ""))
    return made


def _version(handler: Handler, asked: Mapping[str, str], body: bytes) -> Any:
    world, text = handler.api.world, _file(handler, body)
    name = asked.get("name") or asked.get("display_name", "")
    _check_name("PipelineVersion", name)
    parent = found(world.pipelines, asked.get("pipelineid", ""), "Pipeline")
    handler.permit(world.namespace_of(parent), "create", "pipelines")
    if world.kubernetes_native and not _SUBDOMAIN.fullmatch(name):
        raise UploadRejected(400, f'Invalid pipeline version name "{name}": {_SAID}')
    more = asked.get("display_name", ""), asked.get("description", "")
    return world.add_version(parent.pipeline_id, text, name, *more)


_SAID = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
    "characters, '-' or '.', and must start and end with an alphanumeric character. "
    "Use 'display_name' for human-readable labels"
)


def _check_name(kind: str, name: str) -> None:
    most = _LONGEST[kind]
    if len(name) > most:
        said = f"Invalid input error: {kind}.Name length cannot exceed {most}"
        raise UploadRejected(400, said, text=True)


def _file(handler: Handler, body: bytes) -> str:
    """Returns the file of a multipart form."""
    kind = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    for part in BytesParser(policy=HTTP).parsebytes(kind + body).iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return str(part.get_payload(decode=True).decode())
    raise UploadRejected(400, "Failed to read pipeline from file")
