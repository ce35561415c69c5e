"""A Kubeflow Pipelines API over HTTP, for tests; the real clients talk to it.

`KfpApi` serves `/apis/v2beta1` of KFP 2.17 on loopback: experiments, pipelines
and their versions, runs with a scripted life, recurring runs, multi-user
namespaces, bearer tokens or a Dex login in front, and every trouble a network
has: error statuses, dropped questions, dropped answers, slowness, silence.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kfp_api.dex import Dex
from kfp_api.requests import Handler
from kfp_api.state import Installation


@dataclass
class Trouble:
    """What goes wrong with the next requests of a kind.

    Attributes:
        method: HTTP verb; "" = any.
        path: part of the path; "" = any.
        kind: an HTTP status, `drop` (nothing is done), `hang` (the same, after
            some seconds), `lose` (the work is done, the answer is not sent),
            `late` (the same, done some seconds after the connection broke) or
            `slow`.
        times: how often.
        after: how many requests of the kind are spared before.
        seconds: of `hang`, `late` and `slow`.
        says: of a status, the message with the cause at its end.
    """

    method: str
    path: str
    kind: int | str
    times: int = 1
    after: int = 0
    seconds: float = 0.0
    says: str = "the test said so"

    def hits(self, method: str, path: str) -> bool:
        """Says whether a request meets it."""
        same = self.method in ("", method) and self.path in path
        return self.times > 0 and same


@dataclass
class KfpApi:
    """The API and what stands in front of it.

    Attributes:
        tag: version that the server states; "" = it states none.
        tokens: token -> the namespaces it may use; None = everybody may.
        dex: a login in front; None = none.
        skew: seconds by which the server's clock is ahead.
        tls: certificate and key to serve HTTPS with; None = HTTP.
        requests: method and path of every request that came.
        answered: method, path, status and body of every answer of the API's own.
    """

    tag: str = "2.17.3"
    tokens: dict[str, tuple[str, ...]] | None = None
    dex: Dex | None = None
    skew: float = 0.0
    tls: tuple[Path, Path] | None = None
    world: Installation = field(default_factory=Installation)
    requests: list[tuple[str, str]] = field(default_factory=list)
    answered: list[tuple[str, str, int, bytes]] = field(default_factory=list)
    seen_tokens: set[str] = field(default_factory=set)
    _troubles: list[Trouble] = field(default_factory=list)
    _away_until: float = 0.0

    def __enter__(self) -> KfpApi:
        handler = type("Bound", (Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            socket = self._server.socket
            self._server.socket = context.wrap_socket(socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def trouble(
        self, kind: int | str, method: str = "", path: str = "", **more: Any
    ) -> None:
        """Makes the next requests of a kind fail; see `Trouble`."""
        self._troubles.append(Trouble(method, path, kind, **more))

    def go_away(self, seconds: float) -> None:
        """Answers nobody for a while: every connection is closed."""
        self._away_until = time.monotonic() + seconds

    @property
    def away(self) -> bool:
        """Whether it answers nobody now."""
        return time.monotonic() < self._away_until

    def next_trouble(self, method: str, path: str) -> Trouble | None:
        """Returns the trouble that a request meets, and counts it."""
        with self.world.lock:
            for item in self._troubles:
                if item.hits(method, path):
                    if item.after:
                        item.after -= 1
                        return None
                    item.times -= 1
                    return item
        return None

    def count(self, method: str, path: str) -> int:
        """Counts the requests of a verb whose path ends so."""
        return sum(m == method and p.endswith(path) for m, p in self.requests)

    def may(self, token: str) -> tuple[str, ...] | None:
        """Returns the namespaces of a token; None if it is not known."""
        return (self.tokens or {}).get(token)

    def healthz(self) -> Mapping[str, Any]:
        """What the server says of itself."""
        store = "kubernetes" if self.world.kubernetes_native else "database"
        said = {"multi_user": self.world.multi_user, "pipeline_store": store}
        return {"commit_sha": "0" * 40, "tag_name": self.tag or "unknown", **said}
