"""A little HTTP server that stands in for a store that is ill.

It keeps objects in a dictionary and follows a script: each request takes the
next symptom, and once the script has ended it is in good health. A number is a
status, with a code of S3 behind it if one is given.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from patience import PATIENCE

from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.s3 import S3Store
from safescale_ammt.store.s3_retry import S3_RETRY

QUICK = replace(
    S3_RETRY, retries=3, first=0.01, longest=0.02, connect=PATIENCE, read=PATIENCE
)
"""Few tries with hardly a pause in between; each may take its time."""
KEYS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "very-secret"}


class SickStore(ThreadingHTTPServer):
    """Objects by path, the symptoms to come, and the requests that were seen."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.objects: dict[str, bytes] = {}
        self.bucket = "/bucket"
        self.parts: list[bytes] = []
        self.script: list[str] = []
        self.seen: list[str] = []
        self.well = threading.Event()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def store(self, policy: RetryPolicy = QUICK) -> S3Store:
        environ = {**KEYS, "AWS_ENDPOINT_URL": self.endpoint}
        return S3Store.from_environ("bucket", "", environ, policy)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what this is for."""


class _Answers(BaseHTTPRequestHandler):
    server: SickStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as in cluster/http.py

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "partNumber=" in self.path:
            self.server.parts.append(body)
            self._send(200, b"", {"ETag": f'"{md5(body).hexdigest()}"'})
            return
        taken = (
            self.headers["If-None-Match"] == "*" and self.path in self.server.objects
        )
        if taken:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>", {})
        else:
            self._answer(200, b"", {self.path: body})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if query.startswith("uploads"):
            self._send(200, b"<R><UploadId>u</UploadId></R>", {})
        elif not self.server.parts:
            self._send(404, b"<Error><Code>NoSuchUpload</Code></Error>", {})
        elif self.server.script == ["error-inside"]:
            self.server.script = []
            self._send(200, b"<Error><Code>InternalError</Code></Error>", {})
        else:
            whole = b"".join(sorted(self.server.parts, key=len, reverse=True))
            self.server.parts = []
            self._answer(200, b"<R><ETag>x</ETag></R>", {path: whole})

    def do_DELETE(self) -> None:
        self._answer(204, b"", {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.split("?")[0] == self.server.bucket:
            listing = "" if self.command == "HEAD" else self._listing()
            self._send(200, listing.encode(), {})
            return
        if self.path not in self.server.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
            return
        data = self.server.objects[self.path]
        start = int((self.headers["Range"] or "bytes=0-")[6:].rstrip("-"))
        self._answer(206 if start else 200, data[start:], {})

    def _listing(self) -> str:
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        beginning = f"{self.server.bucket}/"
        keys = (path.removeprefix(beginning) for path in sorted(self.server.objects))
        found = "".join(
            f"<Contents><Key>{key}</Key></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        name = self.server.bucket.strip("/")
        whole = f"<Name>{name}</Name><IsTruncated>false</IsTruncated>{found}"
        return f'<ListBucketResult xmlns="{space}">{whole}</ListBucketResult>'

    def _answer(self, status: int, body: bytes, stored: dict[str, bytes]) -> None:
        script = self.server.script
        symptom = script.pop(0) if script else "well"
        self.server.seen.append(f"{self.command} {symptom}")
        if symptom == "stall":
            self.server.well.wait()
            self.close_connection = True
            return
        number, _, code = symptom.partition(" ")
        if number.isdigit():
            said = f"<Error><Code>{code or 'Sick'}</Code></Error>"
            self._send(int(number), said.encode(), {})
            return
        self.server.objects.update(stored)
        if symptom == "lost-reply":
            self.close_connection = True
            return
        if symptom == "ignores-range":
            status = 200
        if symptom == "not-s3":
            self._send(403, b"<html>proxy login</html>", {"Content-Type": "text/html"})
            return
        self._send(status, body, {"ETag": '"tag"'}, half=symptom == "half")

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], half: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/xml", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""


@contextmanager
def sick_store(*script: str) -> Iterator[SickStore]:
    with SickStore() as server:
        server.script = list(script)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.well.set()
            server.shutdown()
            thread.join()
