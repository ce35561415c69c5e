"""From an HTTP request to a call of the installation, and back."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from kfp_api.listing import page
from kfp_api.state import found
from kfp_api.uploads import upload
from kfp_api.wire import Rejected, read_model, to_json

if TYPE_CHECKING:
    from kfp_api.server import KfpApi

API = "/apis/v2beta1"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    api: ClassVar[KfpApi]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as in cluster/http.py

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
        for name, value in {"Content_Type": "application/json", **headers}.items():
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
        elif isinstance(kind, int) and trouble:
            self.answer(kind, *_ill(kind, trouble.says))
        else:
            if kind == "slow" and trouble:
                time.sleep(trouble.seconds)
            status, said, headers = self._work(parts.path, parts.query, body)
            self.api.answered.append((self.command, parts.path, status, said))
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
            text = getattr(error, "text", False)
            kind = {"Content_Type": "text/plain; charset=utf-8"} if text else {}
            return error.status, error.body(), kind

    def _route(self, path: str, asked: Mapping[str, str], body: bytes) -> Any:
        for verb, pattern, call in ROUTES:
            match = re.fullmatch(pattern, path)
            if verb == self.command and match:
                return call(self, asked, body, *match.groups())
        raise Rejected(404, "Not Found")

    def permit(self, namespace: str, verb: str, resource: str, name: str = "") -> None:
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
        inside = f"Check if you have access to namespace {namespace}"
        wraps = (f"Failed to access {resource}. {inside}", "Failed to authorize")
        if allowed is None:
            raise _stranger(token).inside(*wraps)
        if self.api.world.multi_user and not namespace:
            raise Rejected(400, "Invalid input error: Namespace is empty")
        if self.api.world.multi_user and namespace not in allowed:
            raise _guest(namespace, verb, resource, name).inside(*wraps)


def _stranger(token: str) -> Rejected:
    """Returns the answer to who shows no token, or one that nobody knows."""
    nobody = "Request header error: there is no user identity header."
    why, cause = f"{nobody}: {nobody}", "Failed to check authorization. User identity "
    cause += "is empty in the request header"
    if token:
        review = "Review.Status.Authenticated is false. Error invalid bearer token"
        bad = f"Unauthenticated: {review}: Failed to authenticate token review"
        why = f"[Unauthenticated: {why}, Authentication failure: {bad}]"
    refused = Rejected(401, f"Unauthenticated: {cause}: {why}")
    refused.cause = cause
    return refused


def _guest(namespace: str, verb: str, resource: str, name: str) -> Rejected:
    """Returns the answer to who is known and has no right here."""
    fields = {"Namespace": namespace, "Verb": verb, "Group": "pipelines.kubeflow.org"}
    fields |= {"Version": "v1beta1", "Resource": resource, "Subresource": ""}
    fields |= {"Name": name, "FieldSelector": "nil", "LabelSelector": "nil"}
    told = ",".join(f"{key}:{value}" for key, value in fields.items())
    cause = (
        "User 'system:serviceaccount:safescale:safescale-operator' is not authorized "
        f"with reason:  (request: &ResourceAttributes{{{told},}})"
    )
    refused = Rejected(403, f"PermissionDenied: {cause}: Unauthorized access")
    refused.cause = cause
    return refused


def _ill(status: int, says: str) -> tuple[bytes]:
    """Returns what a server that is not well writes; a gateway writes a page."""
    if status in (502, 504):
        return (b"<html><body>bad gateway</body></html>",)
    return (Rejected(status, says, 13).body(),)


def _create(kind: str, add: str, what: str) -> Callable[..., Any]:
    def create(handler: Handler, _asked: Mapping[str, str], body: bytes) -> Any:
        given = read_model(body, kind)
        world = handler.api.world
        try:
            handler.permit(world.namespace_of(given), "create", f"{what}s")
            return getattr(world, add)(given)
        except Rejected as error:
            raise error.inside(f"Failed to create a {what}") from None

    return create


def _list(items: str, plural: str, key: str) -> Callable[..., Any]:
    def listed(
        handler: Handler, asked: Mapping[str, str], _body: bytes, *parent: str
    ) -> Any:
        world = handler.api.world
        where = asked.get("namespace", "")
        try:
            chosen = list(getattr(world, items).values())
            if "experiment_id" in asked:
                of = found(world.experiments, asked["experiment_id"], "Experiment")
                where = world.namespace_of(of)
                chosen = [i for i in chosen if i.experiment_id == of.experiment_id]
            if parent:
                of = found(world.pipelines, parent[0], "Pipeline")
                where = world.namespace_of(of)
                chosen = [i for i in chosen if i.pipeline_id == of.pipeline_id]
            handler.permit(where, "list", items)
            if world.multi_user:
                chosen = [i for i in chosen if _lies_in(handler, i, where)]
            answer = page(chosen, plural, key, asked)
        except Rejected as error:
            raise error.inside(f"Failed to list {items}") from None
        if items == "runs":
            answer[plural] = [world.readable(run) for run in answer[plural]]
        if items == "recurring":
            rows = answer[plural]
            answer[plural] = [world.show_recurring(r.recurring_run_id) for r in rows]
        return answer

    return listed


def _lies_in(handler: Handler, item: Any, namespace: str) -> bool:
    world = handler.api.world
    owner = world.pipelines.get(getattr(item, "pipeline_id", None) or "", item)
    return bool(world.namespace_of(owner) == namespace)


def _one(items: str, what: str, look: str = "") -> Callable[..., Any]:
    def one(
        handler: Handler, _asked: Mapping[str, str], _body: bytes, *ids: str
    ) -> Any:
        world = handler.api.world
        try:
            item = found(getattr(world, items), ids[-1], what)
            where = world.namespace_of(world.pipelines.get(ids[0], item))
            handler.permit(where, "get", items, ids[-1])
        except Rejected as error:
            raise error.inside(f"Failed to get a {what.lower()}") from None
        return getattr(world, look)(ids[-1]) if look else item

    return one


def _delete_version(
    handler: Handler, _asked: Mapping[str, str], _body: bytes, pipeline: str, key: str
) -> Any:
    world = handler.api.world
    found(world.versions, key, "PipelineVersion")
    where = world.namespace_of(found(world.pipelines, pipeline, "Pipeline"))
    handler.permit(where, "delete", "versions", key)
    del world.versions[key]
    return {}


def _act(items: str, what: str, act: str, *more: str) -> Callable[..., Any]:
    def acted(
        handler: Handler, asked: Mapping[str, str], _body: bytes, key: str
    ) -> Any:
        world = handler.api.world
        policy = [asked.get("propagation_policy", "")] if act.startswith("del") else []
        try:
            where = world.namespace_of(found(getattr(world, items), key, what))
            handler.permit(where, act, items, key)
            getattr(world, act)(key, *more, *policy)
        except Rejected as error:
            raise error.inside(f"Failed to {act} a {what.lower()}") from None
        return {}

    return acted


def _pipeline(handler: Handler, _asked: Mapping[str, str], body: bytes) -> Any:
    given = read_model(body, "V2beta1Pipeline")
    if not given.name:
        raise Rejected(400, "Invalid input error: name is required")
    handler.permit(given.namespace or "", "create", "pipelines")
    more = given.description or "", given.display_name or ""
    return handler.api.world.add_pipeline(given.name, given.namespace or "", *more)


_ID = "([0-9a-f-]{36})"
_VERSIONS = f"/pipelines/{_ID}/versions"
ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    (
        "POST",
        "/experiments",
        _create("V2beta1Experiment", "add_experiment", "experiment"),
    ),
    ("GET", "/experiments", _list("experiments", "experiments", "experiment_id")),
    ("GET", f"/experiments/{_ID}", _one("experiments", "Experiment")),
    (
        "POST",
        f"/experiments/{_ID}:archive",
        _act("experiments", "Experiment", "store", "ARCHIVED"),
    ),
    (
        "POST",
        f"/experiments/{_ID}:unarchive",
        _act("experiments", "Experiment", "store", "AVAILABLE"),
    ),
    ("POST", "/pipelines/upload(?:_version)?", upload),
    ("POST", "/pipelines", _pipeline),
    ("GET", "/pipelines", _list("pipelines", "pipelines", "pipeline_id")),
    ("GET", _VERSIONS, _list("versions", "pipeline_versions", "pipeline_version_id")),
    ("GET", f"{_VERSIONS}/{_ID}", _one("versions", "PipelineVersion")),
    ("DELETE", f"{_VERSIONS}/{_ID}", _delete_version),
    ("POST", "/runs", _create("V2beta1Run", "add_run", "run")),
    ("GET", "/runs", _list("runs", "runs", "run_id")),
    ("GET", f"/runs/{_ID}", _one("runs", "Run", "look_at")),
    ("POST", f"/runs/{_ID}:terminate", _act("runs", "Run", "terminate")),
    ("POST", f"/runs/{_ID}:retry", _act("runs", "Run", "retry")),
    ("POST", "/recurringruns", _create("V2beta1RecurringRun", "add_recurring", "job")),
    ("GET", "/recurringruns", _list("recurring", "recurringRuns", "recurring_run_id")),
    ("GET", f"/recurringruns/{_ID}", _one("recurring", "Job", "show_recurring")),
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
