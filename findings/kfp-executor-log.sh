#!/bin/sh
# KFP's executor writes a component's inputs into the pod's log, and turns on all libraries': urllib3's with paths.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  kfp==2.17.3 urllib3==2.8.0
cd "$work"
cat >component.py <<'PYTHON'
def tell(port: int) -> None:
    """Posts to a webhook, retries, and shows nobody the error."""
    import urllib3

    # As chat services hand them out: who knows the path may post.
    path = "/services/T0000/B0000/not-a-secret-of-anybody"
    retries = urllib3.Retry(1, allowed_methods=None, backoff_factor=0)
    try:
        url = f"http://127.0.0.1:{port}{path}"
        urllib3.PoolManager().request("POST", url, body=b"{}", retries=retries)
    except urllib3.exceptions.MaxRetryError:
        pass
PYTHON
cat >finding.py <<'PYTHON'
import json
import socket
import subprocess
import sys
from importlib.metadata import version

with socket.socket() as unused:  # nobody listens there
    unused.bind(("127.0.0.1", 0))
    port = unused.getsockname()[1]
given = {
    "inputs": {"parameterValues": {"port": port}},
    "outputs": {"outputFile": "made/output.json"},
}
# The very command that KFP's SDK compiles into each Python component.
command = [sys.executable, "-m", "kfp.dsl.executor_main"]
command += ["--component_module_path", "component.py"]
command += ["--executor_input", json.dumps(given), "--function_to_execute", "tell"]
alone = [sys.executable, "-c", f"import component; component.tell({port})"]


def log_of(call):
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


by_kfp, by_python = log_of(command), log_of(alone)
lines = [line for line in by_kfp.splitlines() if line.endswith("not-a-secret-of-anybody")]
inputs = f'"port": {port}' in by_kfp

print("kfp", version("kfp"), "urllib3", version("urllib3"))
print("guess: a component that prints nothing, and catches its error, logs neither its")
print("inputs nor the address that it called")
print("seen by python alone:", repr(by_python))
print("seen by KFP's executor, the inputs:", inputs)
for line in lines:
    print("seen by KFP's executor:", line.partition("]: ")[2].replace(str(port), "PORT"))
if by_python or not inputs or len(lines) != 1:
    raise SystemExit("changed: the executor keeps the inputs or the path to itself")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# kfp 2.17.3 urllib3 2.8.0
# seen by python alone: ''
# seen by KFP's executor, the inputs: True
# seen by KFP's executor: Retrying (Retry(total=0, ...)) after connection broken by
#     'NewConnectionError("HTTPConnection(host='127.0.0.1', port=PORT): Failed to
#     establish a new connection: [Errno 111] Connection refused")':
#     /services/T0000/B0000/not-a-secret-of-anybody
