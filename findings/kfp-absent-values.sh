#!/bin/sh
# Through KFP's client an empty list is None and a stored False is None: the server leaves both out.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  kfp==2.17.3
cd "$work"
cat >finding.py <<'PYTHON'
import json
import logging
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from kfp import Client

warnings.simplefilter("ignore")
logging.disable()
ID = "00000000-0000-4000-8000-000000000000"
# As the server (2.17, protojson without unpopulated fields) answers: of a list without
# items nothing, of a recurring run with no_catchup = false no such key.
RECURRING = {"recurring_run_id": ID, "display_name": "nightly", "mode": "ENABLE"}


class Server(BaseHTTPRequestHandler):
    """Answers as Kubeflow Pipelines does."""

    def do_GET(self):
        body = json.dumps(RECURRING if ID in self.path else {})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = Client(host=f"http://127.0.0.1:{server.server_port}", namespace="team")
listed = client.list_runs(namespace="team")
recurring = client.get_recurring_run(ID)

print("kfp", version("kfp"))
print("guess: no runs are [] and 0, and catching up is False or True")
print("seen:", listed.runs, listed.total_size, recurring.no_catchup)
print("a loop over the runs:", end=" ")
try:
    print([run.run_id for run in listed.runs])
except TypeError as error:
    print("TypeError:", error)
if (listed.runs, listed.total_size, recurring.no_catchup) != (None, None, None):
    raise SystemExit("changed: what is absent has its value")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3
# seen: None None None
# a loop over the runs: TypeError: 'NoneType' object is not iterable
