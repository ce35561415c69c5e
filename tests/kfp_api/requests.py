"""From an HTTP request to a call of the installation, and back."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from kfp_api.state import found
from kfp_api.wire import Rejected, read_model, to_json

if TYPE_CHECKING:
    from kfp_api.server import KfpApi

API = "/apis/v2beta1"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    api: ClassVar[KfpApi]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Returns the time of the server's own clock."""
        return super().date_time_string((timestamp or time.time()) + self.api.skew)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Sends an answer."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.api.away:
            self.close_connection = True
            return
        self.api.requests.append((self.command, parts.path))
        trouble = self.api.next_trouble(self.command, parts.path)
        kind = trouble.kind if trouble else ""
        if kind == "drop":
            self.close_connection = True
        elif kind == "hang" and trouble:
            time.sleep(trouble.seconds)
            self.close_connection = True
        elif kind == "late" and trouble:
            self.connection.shutdown(socket.SHUT_RDWR)
            time.sleep(trouble.seconds)
            self._work(parts.path, parts.query, body)
            self.close_connection = True
        elif isinstance(kind, int):
            self.answer(kind, _error(kind, "the test said so", 13))
        else:
            if kind == "slow" and trouble:
                time.sleep(trouble.seconds)
            status, said, headers = self._work(parts.path, parts.query, body)
            if kind == "lose":
                self.close_connection = True
            else:
                self.answer(status, said, **headers)

    def _work(
        self, path: str, query: str, body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if self.api.dex is not None:
            shown = self.api.dex.serve(self.command, self.path, self.headers, body)
            if shown is not None:
                return shown
        asked = {k: v[0] for k, v in parse_qs(query).items()}
        try:
            if path == f"{API}/healthz":
                return 200, json.dumps(self.api.healthz()).encode(), {}
            with self.api.world.lock:
                said = self._route(path.removeprefix(API), asked, body)
            return 200, to_json(said if said is not None else {}), {}
        except Rejected as error:
            return error.status, _error(error.status, str(error), error.code), {}

    def _route(self, path: str, asked: Mapping[str, str], body: bytes) -> Any:
        for verb, pattern, call in ROUTES:
            match = re.fullmatch(pattern, path)
            if verb == self.command and match:
                return call(self, asked, body, *match.groups())
        raise Rejected(404, f"Not Found: {path}", 5)

    def permit(self, namespace: str) -> None:
        """Refuses who may not use a namespace, in multi-user mode.

        Raises:
            Rejected: 401 for a stranger, 403 for a guest, 400 without namespace.
        """
        if self.api.tokens is None:
            if self.api.world.multi_user and not namespace:
                raise Rejected(400, "Invalid input error: Namespace is empty")
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.api.seen_tokens.add(token)
        allowed = self.api.may(token)
        if allowed is None:
            raise Rejected(401, "Request header error: there is no user identity", 16)
        if self.api.world.multi_user and not namespace:
            raise Rejected(400, "Invalid input error: Namespace is empty")
        if self.api.world.multi_user and namespace not in allowed:
            raise Rejected(403, f"User is not authorized in {namespace}", 7)


def _create(kind: str, add: str) -> Callable[..., Any]:
    def create(handler: Handler, _asked: Mapping[str, str], body: bytes) -> Any:
        given = read_model(body, kind)
        world = handler.api.world
        handler.permit(world.namespace_of(given))
        return getattr(world, add)(given)

    return create


def _list(items: str, plural: str) -> Callable[..., Any]:
    def listed(
        handler: Handler, asked: Mapping[str, str], _body: bytes, *parent: str
    ) -> Any:
        world = handler.api.world
        where = asked.get("namespace", "")
        if "experiment_id" in asked:
            where = world.namespace_of(world.experiments[asked["experiment_id"]])
        if parent:
            where = world.namespace_of(found(world.pipelines, parent[0], "Pipeline"))
        handler.permit(where)
        chosen = _filtered(getattr(world, items).values(), asked)
        if world.multi_user:
            chosen = [i for i in chosen if not where or _lies_in(handler, i, where)]
        if parent:
            chosen = [i for i in chosen if i.pipeline_id == parent[0]]
        return _page(chosen, plural, asked)

    return listed


def _lies_in(handler: Handler, item: Any, namespace: str) -> bool:
    world = handler.api.world
    owner = world.pipelines.get(getattr(item, "pipeline_id", None) or "", item)
    return bool(world.namespace_of(owner) == namespace)


def _filtered(items: Iterable[Any], asked: Mapping[str, str]) -> list[Any]:
    """Applies a filter's predicates, of which the clients use EQUALS alone."""
    chosen = list(items)
    if "experiment_id" in asked:
        chosen = [i for i in chosen if i.experiment_id == asked["experiment_id"]]
    for predicate in json.loads(asked.get("filter") or "{}").get("predicates", []):
        if predicate.get("operation") not in ("EQUALS", 1):
            raise Rejected(400, f"Unknown operation in {predicate}")
        key = {"name": "display_name"}.get(predicate["key"], predicate["key"])
        if key not in ("display_name", "experiment_id", "state"):
            raise Rejected(400, f"no support for filtering on field {key}")
        value = predicate.get("stringValue", predicate.get("string_value"))
        chosen = [i for i in chosen if getattr(i, key) == value]
    return chosen


def _page(chosen: list[Any], plural: str, asked: Mapping[str, str]) -> dict[str, Any]:
    field, _, order = (asked.get("sort_by") or "created_at asc").partition(" ")
    chosen.sort(key=lambda item: getattr(item, field), reverse=order == "desc")
    start, size = int(asked.get("page_token") or 0), int(asked.get("page_size") or 20)
    end = start + size
    more = {"next_page_token": str(end)} if end < len(chosen) else {}
    return {plural: chosen[start:end], "total_size": len(chosen), **more}


def _one(items: str, what: str, look: str = "") -> Callable[..., Any]:
    def one(
        handler: Handler, _asked: Mapping[str, str], _body: bytes, *ids: str
    ) -> Any:
        world = handler.api.world
        item = found(getattr(world, items), ids[-1], what)
        handler.permit(world.namespace_of(world.pipelines.get(ids[0], item)))
        return getattr(world, look)(ids[-1]) if look else item

    return one


def _act(items: str, what: str, act: str, *more: str) -> Callable[..., Any]:
    def acted(
        handler: Handler, asked: Mapping[str, str], _body: bytes, key: str
    ) -> Any:
        world = handler.api.world
        handler.permit(world.namespace_of(found(getattr(world, items), key, what)))
        policy = [asked.get("propagation_policy", "")] if act.startswith("del") else []
        getattr(world, act)(key, *more, *policy)
        return {}

    return acted


def _upload(handler: Handler, asked: Mapping[str, str], body: bytes) -> Any:
    world, text = handler.api.world, _uploaded(handler, body)
    if handler.path.split("?")[0].endswith("upload_version"):
        parent = asked.get("pipelineid", "")
        handler.permit(world.namespace_of(found(world.pipelines, parent, "Pipeline")))
        note = asked.get("description", "")
        return world.add_version(parent, asked.get("name", ""), text, note)
    namespace = asked.get("namespace", "")
    handler.permit(namespace)
    return world.add_pipeline(asked.get("name", ""), namespace, text)


def _uploaded(handler: Handler, body: bytes) -> str:
    """Returns the file of a multipart form."""
    kind = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    for part in BytesParser(policy=HTTP).parsebytes(kind + body).iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return part.get_payload(decode=True).decode()
    raise Rejected(400, "Failed to read pipeline from file")


def _error(status: int, message: str, code: int) -> bytes:
    said = {"error": message, "code": code, "message": message, "details": []}
    return json.dumps(said if status != 502 else "bad gateway").encode()


_ID = "([0-9a-f-]{36})"
_VERSIONS = f"/pipelines/{_ID}/versions"
ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("POST", "/experiments", _create("V2beta1Experiment", "add_experiment")),
    ("GET", "/experiments", _list("experiments", "experiments")),
    ("GET", f"/experiments/{_ID}", _one("experiments", "Experiment")),
    ("POST", "/pipelines/upload(?:_version)?", _upload),
    ("GET", "/pipelines", _list("pipelines", "pipelines")),
    ("GET", _VERSIONS, _list("versions", "pipeline_versions")),
    ("GET", f"{_VERSIONS}/{_ID}", _one("versions", "PipelineVersion")),
    ("POST", "/runs", _create("V2beta1Run", "add_run")),
    ("GET", "/runs", _list("runs", "runs")),
    ("GET", f"/runs/{_ID}", _one("runs", "Run", "look_at")),
    ("POST", f"/runs/{_ID}:terminate", _act("runs", "Run", "terminate")),
    ("POST", "/recurringruns", _create("V2beta1RecurringRun", "add_recurring")),
    ("GET", "/recurringruns", _list("recurring", "recurringRuns")),
    ("GET", f"/recurringruns/{_ID}", _one("recurring", "Job")),
    (
        "POST",
        f"/recurringruns/{_ID}:enable",
        _act("recurring", "Job", "switch", "ENABLE"),
    ),
    (
        "POST",
        f"/recurringruns/{_ID}:disable",
        _act("recurring", "Job", "switch", "DISABLE"),
    ),
    ("DELETE", f"/recurringruns/{_ID}", _act("recurring", "Job", "delete_recurring")),
)
