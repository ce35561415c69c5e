#!/bin/sh
# In Spark Connect a checkpoint belongs to the thread's active session, whose frame it need not be, and is lost.
#
# It starts a server of Spark on this machine, which needs Java 17 or later; without
# Java it exits with 77.
set -eu
command -v java >/dev/null || { echo "skipped: there is no Java"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  'pyspark[connect]==4.3.0' pandas==3.1.1 pyarrow==26.0.1
cd "$work"
cat >server.py <<'PYTHON'
import os
import secrets
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pyspark

SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def spark_connect():
    """Yields the address of a server that only this machine reaches."""
    home, port, token = Path(pyspark.__file__).parent, free_port(), secrets.token_hex(8)
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": os.getcwd(),
        "spark.ui.enabled": "false",
    }
    command = [f"{home}/bin/spark-submit", "--class", SERVER, "--master", "local[1]"]
    for name, value in settings.items():
        command += ["--conf", f"{name}={value}"]
    own = {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
    }
    with (
        open("log", "wb") as log,
        subprocess.Popen(
            [*command, "spark-internal"], env=os.environ | own, stdout=log, stderr=log
        ) as server,
    ):
        try:
            while server.poll() is None:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.2)
            yield f"sc://localhost:{port}/;token={token}"
        finally:
            server.terminate()
PYTHON
cat >finding.py <<'PYTHON'
from importlib.metadata import version

from pyspark.errors import PySparkException
from pyspark.sql.connect.session import SparkSession
from server import spark_connect


def asked(frame):
    """Says what an action of a frame gives."""
    try:
        return f"{frame.count()} rows"
    except PySparkException as error:
        return error.getCondition() or type(error).__name__


with (
    spark_connect() as address,
    SparkSession.builder.remote(address).create() as one,
    # The first one stays the active session of this thread.
    SparkSession.builder.remote(address).create() as other,
):
    found = {}
    for name, session in {"one": one, "other": other}.items():
        frame = session.range(3)
        kept = frame.localCheckpoint()
        found[name] = kept.sparkSession is session, asked(frame), asked(kept)

print("pyspark", version("pyspark"))
print("guess: a frame that is checkpointed belongs to the session of the frame")
for name, (same, plain, kept) in found.items():
    print(f"{name}: frame {plain}; checkpoint of its session: {same}, {kept}")
if found != {
    "one": (True, "3 rows", "3 rows"),
    "other": (False, "3 rows", "CONNECT_INVALID_PLAN.DATAFRAME_NOT_FOUND"),
}:
    raise SystemExit("changed: a checkpoint belongs to the session of its frame")
PYTHON
PATH="$work/venv/bin:$PATH" python -W ignore finding.py 2>errors || {
  cat errors >&2
  exit 1
}

# Seen:
# pyspark 4.3.0
# one: frame 3 rows; checkpoint of its session: True, 3 rows
# other: frame 3 rows; checkpoint of its session: False, CONNECT_INVALID_PLAN.DATAFRAME_NOT_FOUND
