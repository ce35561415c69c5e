#!/bin/sh
# kfp.Client waits for a run that is CANCELED until its timeout, and then calls it a timeout.
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
from kfp_server_api import V2beta1RuntimeState

warnings.simplefilter("ignore")
logging.disable()
RUN = "00000000-0000-4000-8000-000000000000"
state = ""


class Server(BaseHTTPRequestHandler):
    """Answers as Kubeflow Pipelines answers of a run."""

    def do_GET(self):
        body = json.dumps({"run_id": RUN, "display_name": "one", "state": state})
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
ends = {}
for state in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"):
    assert state in V2beta1RuntimeState.allowable_values
    try:
        client.wait_for_run_completion(RUN, timeout=2, sleep_duration=0.2)
        ends[state] = "returned"
    except TimeoutError as error:
        ends[state] = f"TimeoutError: {error}"

print("kfp", version("kfp"))
print("guess: each of the API's four final states ends the waiting")
for state, end in ends.items():
    print(f"{state}: {end}")
others = [end for state, end in ends.items() if state != "CANCELED"]
if set(others) != {"returned"} or ends["CANCELED"] == "returned":
    raise SystemExit("changed: a canceled run ends the waiting, or another does not")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3
# SUCCEEDED: returned
# FAILED: returned
# SKIPPED: returned
# CANCELED: TimeoutError: Run timeout
