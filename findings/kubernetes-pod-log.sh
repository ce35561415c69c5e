#!/bin/sh
# The Kubernetes client rewrites a pod's log as Python's repr when the log is one JSON value.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  kubernetes==30.1.0
cd "$work"
cat >finding.py <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from kubernetes import client

LOGS = {
    "one-line": '{"loss": 0.5, "converged": true, "error": null}\n',
    "two-lines": '{"loss": 0.7}\n{"loss": 0.5}\n',
    "number": "0.50\n",
}


class Server(BaseHTTPRequestHandler):
    """Answers as a Kubernetes API server answers for a log: plain text."""

    def do_GET(self):
        body = LOGS[self.path.split("/")[-2]].encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
settings = client.Configuration()
settings.host = f"http://127.0.0.1:{server.server_port}"
api = client.CoreV1Api(client.ApiClient(settings))
seen = {pod: api.read_namespaced_pod_log(pod, "team") for pod in LOGS}

print("kubernetes", version("kubernetes"), "(the newest that kfp 2.17 accepts)")
print("guess: the log's text comes back as the server sent it")
for pod, log in LOGS.items():
    print(f"{pod}: sent {log!r}")
    print(f"{pod}: seen {seen[pod]!r}")
try:
    json.loads(seen["one-line"])
except ValueError as error:
    print("json.loads of the first:", error)
expected = {
    "one-line": "{'loss': 0.5, 'converged': True, 'error': None}",
    "two-lines": LOGS["two-lines"],
    "number": "0.5",
}
if seen != expected:
    raise SystemExit("changed: logs come back differently")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kubernetes 30.1.0 (the newest that kfp 2.17 accepts)
# one-line: sent '{"loss": 0.5, "converged": true, "error": null}\n'
# one-line: seen "{'loss': 0.5, 'converged': True, 'error': None}"
# two-lines: sent '{"loss": 0.7}\n{"loss": 0.5}\n'
# two-lines: seen '{"loss": 0.7}\n{"loss": 0.5}\n'
# number: sent '0.50\n'
# number: seen '0.5'
# json.loads of the first: Expecting property name enclosed in double quotes: line 1
#     column 2 (char 1)
