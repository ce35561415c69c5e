"""One request: its route, its rights, its answer or stream."""

from __future__ import annotations

import copy
import json
import re
import time
from datetime import datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cluster.api import ClusterApi, merge
from cluster.guards import guard
from cluster.logs import spell
from cluster.objects import Event, Failure, Kind, Object
from cluster.selectors import selects
from cluster.trainer_status import is_valid

if TYPE_CHECKING:
    from cluster.api import _Server

_ROUTE = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>status|log))?)?"
)
_OTHERS = re.compile(
    r"/apis/authorization.k8s.io/v1/namespaces/(?P<namespace>[^/]+)"
    r"/localsubjectaccessreviews"
)
_GROUP = re.compile(r"/apis/(?P<group>[^/]+)/(?P<version>[^/]+)")
# Groups of Kubernetes itself: what a list holds does not repeat its kind.
_TYPED = ("", "batch", "networking.k8s.io", "rbac.authorization.k8s.io")
_ALL = "delete deletecollection get list patch create update watch"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Answers(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: the second would wait 40 ms for the first one's ACK.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._guarded()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    @property
    def api(self) -> ClusterApi:
        return self.server.api

    def _guarded(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body: Object = json.loads(self.rfile.read(length) or b"{}")
        self.api.seen.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        self.query = {k: v[-1] for k, v in parse_qs(url.query).items()}
        sick = self.api.answers.pop(0) if self.api.answers else "well"
        if sick == "drop":
            self.close_connection = True
            return
        try:
            if isinstance(sick, int):
                raise Failure(sick, "Sick", f"the test asked for a {sick}")
            self._authenticate()
            self._route(url.path.rstrip("/"))
        except Failure as failure:
            self._send(failure.status, failure.to_dict())

    def _authenticate(self) -> None:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or token != self.api.token:
            raise Failure(401, "Unauthorized", "Unauthorized")
        self.user = self.headers.get("Impersonate-User") or self.api.user
        place = self.user.split(":")[2] if self.user.count(":") == 3 else ""
        right = ("impersonate", "", "serviceaccounts", place)
        if self.user != self.api.user and not self.api.allows(*right):
            raise Failure(
                403,
                "Forbidden",
                f'serviceaccounts "{self.user.rpartition(":")[2]}" is forbidden: User '
                f'"{self.api.user}" cannot impersonate resource "serviceaccounts" in '
                f'API group "" in the namespace "{place}"',
            )

    def _route(self, path: str) -> None:
        if path == "/version":
            self._send(200, _version(self.api.version))
        elif path in ("/healthz", "/livez", "/readyz"):
            self._send_bytes(200, b"ok", "text/plain")
        elif path.endswith("/selfsubjectreviews"):
            who = {"userInfo": {"username": self.api.user}}
            self._send(201, {**self.body, "status": who})
        elif path.endswith("/selfsubjectaccessreviews"):
            self._send(201, self._review())
        elif match := _OTHERS.fullmatch(path):
            self._send(201, self._review_of_others(match["namespace"]))
        elif (match := _GROUP.fullmatch(path)) and self._discover(match):
            pass
        elif match := _ROUTE.fullmatch(path):
            self._resource(match)
        else:
            self._send_bytes(404, b"404 page not found\n", "text/plain")

    def _resource(self, match: re.Match[str]) -> None:
        group = match["group"] or ""
        full_name = f"{match['plural']}.{group}" if group else match["plural"]
        kind = self.api.kinds.get(full_name)
        if kind is None or kind.version != (match["version"] or "v1"):
            self._send_bytes(404, b"404 page not found\n", "text/plain")
            return
        place, name = match["namespace"] or "", match["name"] or ""
        self._authorise(kind, place, name, match["sub"] or "")
        if match["sub"] == "log":
            self._log(place, name)
        elif self.command == "GET":
            self._read(kind, place, name)
        else:
            self._write(kind, place, name, match["sub"] or "")

    def _authorise(self, kind: Kind, place: str, name: str, sub: str) -> None:
        verb = _VERBS.get(self.command) or ("get" if name else "list")
        if "watch" in self.query:
            verb = "watch"
        resource = f"{kind.plural}/{sub}" if sub else kind.plural
        if not self.api.allows(verb, kind.group, resource, place):
            quoted = f' "{name}"' if name else ""
            where = f' in the namespace "{place}"' if place else " at the cluster scope"
            raise Failure(
                403,
                "Forbidden",
                f'{kind.full_name}{quoted} is forbidden: User "{self.api.user}" cannot '
                f'{verb} resource "{resource}" in API group "{kind.group}"{where}',
            )

    def _read(self, kind: Kind, place: str, name: str) -> None:
        if name:
            self._send(200, self.api.objects.get(kind, place, name))
        elif "watch" in self.query:
            self._watch(kind, place)
        else:
            with self.api.objects.changed:
                version = self.api.objects.version
                found = self.api.objects.list(kind, place)
            listed = {
                "apiVersion": kind.api_version,
                "kind": f"{kind.kind}List",
                "metadata": {"resourceVersion": str(version)},
                "items": [item for item in found if self._selected(item)],
            }
            if kind.group in _TYPED:
                for item in listed["items"]:
                    del item["kind"], item["apiVersion"]
            self._send(200, listed)

    def _selected(self, found: Object) -> bool:
        labels = self.query.get("labelSelector", "")
        return selects(found, labels, self.query.get("fieldSelector", ""))

    def _write(self, kind: Kind, place: str, name: str, sub: str) -> None:
        objects = self.api.objects
        if self.command == "POST" and sub == "status":
            # Kubeflow Trainer's own server takes these, for the train pods.
            self._send(200, objects.update(kind, place, name, self._report))
        elif self.command == "POST":
            if kind.namespaced:
                objects.get(self.api.kind("namespaces"), "", place)
            self._admit("create", kind, self.body)
            self._guard(kind, place, new=self.body)
            if self.query.get("dryRun") == "All":
                self._send(201, self.body)
                return
            self._send(201, objects.create(kind, place, self.body))
        elif self.command == "DELETE":
            asked = {**self.body, **self.query}
            self._guard(kind, place, old=objects.get(kind, place, name))
            made = objects.delete(
                kind,
                place,
                name,
                policy=asked.get("propagationPolicy") or "Background",
                preconditions=self.body.get("preconditions"),
            )
            self._send(200, made)
        else:
            change = self._change(sub)

            def guarded(found: Object) -> None:
                before = copy.deepcopy(found)
                change(found)
                self._guard(kind, place, old=before, new=found, sub=sub)

            self._send(200, objects.update(kind, place, name, guarded))

    def _guard(self, kind: Kind, place: str, **about: Any) -> None:
        guard(self.api, kind, place, user=self.user, **about)

    def _report(self, found: Object) -> None:
        if not is_valid(self.body["trainerStatus"]):
            raise Failure(422, "Invalid", "status.trainerStatus: Invalid value")
        merge(found.setdefault("status", {}), self.body)

    def _change(self, sub: str) -> Any:
        kept = "spec" if sub == "status" else "status"
        content = self.headers.get("Content-Type", "")
        if self.command == "PATCH" and "merge-patch" not in content:
            raise Failure(415, "UnsupportedMediaType", f"no patch of type {content}")

        def change(found: Object) -> None:
            before = found.get(kept)
            if self.command == "PUT":
                system = {k: found["metadata"][k] for k in ("uid", "creationTimestamp")}
                found.clear()
                merge(found, self.body)
                found["metadata"].update(system)
            else:
                merge(found, self.body)
            merge(found, {kept: before})

        return change

    def _admit(self, verb: str, kind: Kind, body: Object) -> None:
        for webhook in self.api.admission:
            if reason := webhook(verb, kind.plural, body):
                raise Failure(403, "Forbidden", reason)

    def _review(self) -> Object:
        asked = self.body["spec"].get("resourceAttributes", {})
        sub = asked.get("subresource")
        resource = asked.get("resource", "") + (f"/{sub}" if sub else "")
        allowed = self.api.allows(
            asked.get("verb", ""),
            asked.get("group", ""),
            resource,
            asked.get("namespace", ""),
        )
        return self._reviewed(allowed, "")

    def _reviewed(self, allowed: bool, reason: str) -> Object:
        """Returns a review as asked, without what is empty, and its answer."""
        spec = dict(self.body["spec"])
        asked = spec.get("resourceAttributes", {})
        spec["resourceAttributes"] = {k: v for k, v in asked.items() if v}
        status = {"allowed": allowed, **({"reason": reason} if reason else {})}
        return {"metadata": {}, **self.body, "spec": spec, "status": status}

    def _review_of_others(self, namespace: str) -> Object:
        """Answers what another user may do, to those who may ask."""
        group, plural = "authorization.k8s.io", "localsubjectaccessreviews"
        kind = Kind(group, "v1", plural, "LocalSubjectAccessReview")
        self._authorise(kind, namespace, "", "")
        asked = self.body["spec"]["resourceAttributes"]
        sub = asked.get("subresource")
        resource = asked["resource"] + (f"/{sub}" if sub else "")
        user = self.body["spec"].get("user", "")
        right = (asked["verb"], resource)
        lacks = bool({right, (*right, user)} & self.api.withheld)
        account = user.rpartition(":")[2]
        by = f'RoleBinding "{account}/{namespace}" of Role "{account}"'
        to = f'to ServiceAccount "{account}/{namespace}"'
        return self._reviewed(not lacks, "" if lacks else f"RBAC: allowed by {by} {to}")

    def _discover(self, match: re.Match[str]) -> bool:
        """Lists the kinds of a group, to everybody; False if it is not served."""
        wanted = (match["group"], match["version"])
        kinds = [k for k in self.api.kinds.values() if (k.group, k.version) == wanted]
        if kinds:
            resources = [
                {
                    "name": k.plural,
                    "singularName": k.kind.lower(),
                    "namespaced": k.namespaced,
                    "kind": k.kind,
                    "verbs": _ALL.split(),
                }
                for k in kinds
            ]
            listed = {"kind": "APIResourceList", "apiVersion": "v1"}
            listed["groupVersion"] = "/".join(wanted)
            self._send(200, {**listed, "resources": resources})
        return bool(kinds)

    def _watch(self, kind: Kind, place: str) -> None:
        objects = self.api.objects
        at = int(self.query.get("resourceVersion") or 0)
        with objects.changed:
            if at and at < objects.oldest:
                raise Failure(410, "Expired", f"too old resource version: {at}")
            before = [] if at else objects.list(kind, place)
            at = at or objects.version
        self._start_stream("application/json")
        for found in before:
            self._event("ADDED", found)
        marks = self.query.get("allowWatchBookmarks") == "true"
        ends = time.monotonic() + float(self.query.get("timeoutSeconds") or 1800)
        while not self.api.closing.is_set() and (left := ends - time.monotonic()) > 0:
            with objects.changed:
                fresh = list(objects.since(at))
                expired = at < objects.oldest
                if not fresh and not expired:
                    objects.changed.wait(min(left, 0.5))
            if expired:
                gone = Failure(410, "Expired", f"too old resource version: {at}")
                self._event("ERROR", gone.to_dict())
                break
            for event in fresh:
                self._pass_on(event, kind, place)
                at = event.version
            if fresh and marks:
                self._bookmark(kind, at)
        self._end_stream()

    def _bookmark(self, kind: Kind, at: int) -> None:
        """Says up to where the watch has come, with an object that holds no more."""
        mark = {"kind": kind.kind, "apiVersion": kind.api_version}
        self._event("BOOKMARK", {**mark, "metadata": {"resourceVersion": str(at)}})

    def _pass_on(self, event: Event, kind: Kind, place: str) -> None:
        meta = event.object["metadata"]
        fits = event.kind == kind and place in ("", meta.get("namespace", ""))
        if fits and self._selected(event.object):
            self._event(event.type, event.object)

    def _event(self, type_: str, found: Object) -> None:
        self._chunk(json.dumps({"type": type_, "object": found}).encode() + b"\n")

    def _log(self, place: str, name: str) -> None:
        pod = self.api.objects.get(self.api.kind("pods"), place, name)
        if pod.get("status", {}).get("phase") in (None, "Pending"):
            raise Failure(
                400,
                "BadRequest",
                f'container "node" in pod "{name}" is waiting to start: '
                "ContainerCreating",
            )
        since = _nanoseconds(self.query.get("sinceTime"))
        follow = self.query.get("follow", "").lower() == "true"
        stamped = self.query.get("timestamps", "").lower() == "true"
        left = self.api.cuts.pop(0) if follow and self.api.cuts else None
        self._start_stream("text/plain")
        log = self.api.log(name, place)
        for line in log.read(since, follow, self.api.closing):
            if line is None:
                continue
            text = (f"{spell(line[0])} {line[1]}" if stamped else line[1]) + "\n"
            if left == 0:
                # In the middle of a line: a reader must not take it for a whole one.
                self._chunk(text.encode()[: len(text) // 2])
                self.close_connection = True
                return
            self._chunk(text.encode())
            left = None if left is None else left - 1
        self._end_stream()

    def _start_stream(self, content: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _end_stream(self) -> None:
        if self.api.closing.is_set():
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, body: Object) -> None:
        path = urlsplit(self.path).path
        self.api.answered.append((self.command, path, status, body))
        self._send_bytes(status, json.dumps(body).encode(), "application/json")

    def _send_bytes(self, status: int, data: bytes, content: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Returns the `Date` header; the clock of the test's cluster."""
        skew = self.api.skew
        return formatdate((timestamp or time.time()) + skew, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""


def _version(git: str) -> Object:
    major, minor, *_ = git.lstrip("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": git,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def _nanoseconds(text: str | None) -> int:
    if not text:
        return 0
    return int(datetime.fromisoformat(text).timestamp()) * 10**9
