"""A server that answers as the real plane did, in the same order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from replay.recordings import Exchange


class ReplayServer:
    """Answers each request with what came to the same method and path.

    Of several answers the next is given, and the last again and again. A question
    that nobody had asked is answered with 404 and kept in `unknown`.

    Attributes:
        unknown: method and path of the requests that were not recorded.
        asked: method and path of all requests.
    """

    def __init__(
        self,
        recorded: Iterable[Exchange],
        watched: Mapping[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        """Takes exchanges, and for a watched path its events."""
        self._left: dict[tuple[str, str], list[Exchange]] = {}
        for exchange in recorded:
            key = (exchange.method, exchange.path)
            self._left.setdefault(key, []).append(exchange)
        self._watched = dict(watched or {})
        self._lock = threading.Lock()
        self.unknown: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        handler = type("Bound", (_Handler,), {"replay": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def next(self, method: str, path: str) -> Exchange | None:
        """Returns the answer that is due."""
        with self._lock:
            self.asked.append((method, path))
            left = self._left.get((method, path))
            if not left:
                self.unknown.append((method, path))
                return None
            return left.pop(0) if len(left) > 1 else left[0]

    def events(self, path: str) -> list[dict[str, Any]] | None:
        """Returns what a watch of a path shows, once."""
        with self._lock:
            return self._watched.pop(path, None)


class _Handler(BaseHTTPRequestHandler):
    replay: ReplayServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as in cluster/http.py

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        if "watch" in parse_qs(parts.query):
            shown = self.replay.events(parts.path) or []
            lines = "".join(f"{json.dumps(event)}\n" for event in shown)
            self._answer(200, lines.encode(), "application/json")
            return
        found = self.replay.next(self.command, parts.path)
        if found is None:
            said = {"kind": "Status", "code": 5, "message": "Not Found"}
            self._answer(404, json.dumps(said).encode(), "application/json")
        else:
            text = found.answer if isinstance(found.answer, str) else None
            body = json.dumps(found.answer) if text is None else text
            self._answer(found.status, body.encode(), found.type)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
