"""The HTTP server: who may do what, what is ill, and where it listens."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cluster.logs import PodLog
from cluster.objects import Failure, Kind, Object, Objects
from cluster.tokens import Bearer

TRAINER = ("trainer.kubeflow.org", "v1alpha1")
SPARK = ("sparkoperator.k8s.io", "v1alpha1")
ADMISSION = ("admissionregistration.k8s.io", "v1")
KINDS = (
    Kind("", "v1", "namespaces", "Namespace", namespaced=False),
    Kind("", "v1", "nodes", "Node", namespaced=False),
    Kind("", "v1", "pods", "Pod"),
    Kind("", "v1", "events", "Event"),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "configmaps", "ConfigMap"),
    Kind("", "v1", "services", "Service"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount"),
    Kind("", "v1", "resourcequotas", "ResourceQuota"),
    Kind("", "v1", "limitranges", "LimitRange"),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet"),
    Kind(*TRAINER, "trainjobs", "TrainJob"),
    Kind(*TRAINER, "trainingruntimes", "TrainingRuntime"),
    Kind(*TRAINER, "clustertrainingruntimes", "ClusterTrainingRuntime", False),
    # Where the operator is installed; a test that has none takes the kind away.
    Kind(*SPARK, "sparkconnects", "SparkConnect"),
    Kind("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue"),
    Kind("argoproj.io", "v1alpha1", "workflows", "Workflow"),
    Kind("argoproj.io", "v1alpha1", "workflowtaskresults", "WorkflowTaskResult"),
    *(
        Kind(*ADMISSION, plural, f"ValidatingAdmissionPolicy{end}", False)
        for plural, end in (
            ("validatingadmissionpolicies", ""),
            ("validatingadmissionpolicybindings", "Binding"),
        )
    ),
)
Rule = tuple[str, str, str]
"""A verb, an API group and a resource such as "pods" or "pods/log"."""


class ClusterApi:
    """A Kubernetes API on loopback; see the package for what it does."""

    def __init__(
        self,
        namespace: str = "safescale",
        account: str = "safescale-pipeline",
        version: str = "v1.33.1",
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.namespace = namespace
        self.user = f"system:serviceaccount:{namespace}:{account}"
        self.token = "token-of-the-test"
        self.pod: tuple[str, str] | None = None
        """Name and uid of the pod that the token was made for; None = for none."""
        self.tokens: dict[str, Bearer] = {}
        """Those that somebody asked for, beside `token`."""
        self.version = version
        self.tls = tls
        """Files of a certificate and its key; None = plain HTTP."""
        self.objects = Objects()
        self.kinds = {kind.full_name: kind for kind in KINDS}
        self.logs: dict[tuple[str, str], PodLog] = {}
        self.answers: list[int | str] = []
        self.admission: list[Callable[[str, str, Object], str | None]] = []
        self.seen: list[str] = []
        """Every request: method, path and query."""
        self.answered: list[tuple[str, str, int, Object]] = []
        """Method, path, status and body of every answer that is JSON."""
        self.cuts: list[int] = []
        self.skew = 0.0
        """Seconds by which the clock in the answers' `Date` header is ahead."""
        self.withheld: set[tuple[str, ...]] = set()
        """Verb and resource that reviews of other accounts say no to; a third part
        names the one user who lacks it."""
        self.closing = threading.Event()
        self._allowed: set[Rule] | None = None
        self._forbidden: set[tuple[str, str, str]] = set()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self.add("namespaces", namespace)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listens, on the port it had before if it had one."""
        self.closing.clear()
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), name="cluster-api"
        )
        self._thread.start()

    def stop(self) -> None:
        """Goes away: nobody listens, open connections are cut, objects stay."""
        if self._server is None or self._thread is None:
            return
        self.closing.set()
        with self.objects.changed:
            self.objects.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop()
        self._thread.join()
        self._server = self._thread = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    def write_kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig with this server, its token and its namespace."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [
                {
                    "name": "test",
                    "context": {
                        "cluster": "test",
                        "user": "test",
                        "namespace": self.namespace,
                    },
                }
            ],
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def add(
        self,
        plural: str,
        name: str,
        *,
        namespace: str | None = None,
        labels: dict[str, str] | None = None,
        owners: list[Object] | None = None,
        **rest: Any,
    ) -> Object:
        """Puts an object there, as if somebody had created it."""
        kind = self.kind(plural)
        meta: Object = {"name": name, "labels": labels or {}}
        if owners:
            meta["ownerReferences"] = owners
        return self.objects.create(
            kind, self._place(kind, namespace), {"metadata": meta, **rest}
        )

    def get(self, plural: str, name: str, namespace: str | None = None) -> Object:
        """Returns one object; `KeyError` if it is not there."""
        kind = self.kind(plural)
        try:
            return self.objects.get(kind, self._place(kind, namespace), name)
        except Failure:
            raise KeyError(name) from None

    def list(self, plural: str, namespace: str | None = None) -> list[Object]:
        """Returns all objects of a kind in a namespace."""
        kind = self.kind(plural)
        return self.objects.list(kind, self._place(kind, namespace))

    def patch(
        self, plural: str, name: str, body: Object, namespace: str | None = None
    ) -> Object:
        """Merges a mapping into an object."""
        kind = self.kind(plural)
        return self.objects.update(
            kind, self._place(kind, namespace), name, lambda found: merge(found, body)
        )

    def delete(self, plural: str, name: str, namespace: str | None = None) -> None:
        """Deletes an object, in the background."""
        kind = self.kind(plural)
        self.objects.delete(kind, self._place(kind, namespace), name)

    def log(self, pod: str, namespace: str | None = None) -> PodLog:
        """Returns the log of a pod."""
        return self.logs.setdefault((namespace or self.namespace, pod), PodLog())

    def kind(self, plural: str) -> Kind:
        """Finds a resource by its plural, with or without the group."""
        for full_name, kind in self.kinds.items():
            if plural in (full_name, kind.plural):
                return kind
        raise KeyError(plural)

    def forget(self, plural: str) -> None:
        """Serves a resource no more: its CRD is not installed."""
        del self.kinds[self.kind(plural).full_name]

    def forbid(self, verb: str, resource: str, namespace: str = "") -> None:
        """Forbids a verb ("*": all) on a resource, in one or all namespaces."""
        self._forbidden.add((verb, resource, namespace))

    def allow_only(self, rules: Iterable[Rule]) -> None:
        """Forbids whatever is not among these rules."""
        self._allowed = set(rules)

    def permit_all(self) -> None:
        """Takes back every `forbid` and `allow_only`."""
        self._forbidden.clear()
        self._allowed = None

    def allows(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Says whether the caller may do this."""
        for denied, plural, place in self._forbidden:
            here = plural == resource and place in ("", namespace)
            if here and denied in ("*", verb):
                return False
        return self._allowed is None or (verb, group, resource) in self._allowed

    def cut_logs(self, *after: int) -> None:
        """Breaks the next log streams, each after so many lines."""
        self.cuts.extend(after)

    def compact(self) -> None:
        """Makes every version that is known so far too old for a watch."""
        self.objects.compact()

    def drop_connections(self) -> None:
        """Cuts every open connection."""
        if self._server is not None:
            self._server.drop()

    def _place(self, kind: Kind, namespace: str | None) -> str:
        return (namespace or self.namespace) if kind.namespaced else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], api: ClusterApi) -> None:
        from cluster.http import Answers

        self.api = api
        self._open: set[socket.socket] = set()
        super().__init__(address, Answers)
        if api.tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*api.tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def drop(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up, and connections that are cut, are the point."""


def merge(into: Object, patch: Object) -> None:
    """Applies a JSON merge patch (RFC 7396): None deletes, lists are replaced."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
