#!/bin/sh
# Spark Connect forgets a persisted frame as soon as session.sql is given it by name; Python runs anew.
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
from pathlib import Path

from pyspark.sql.connect.session import SparkSession
from server import spark_connect

RUNS = Path("runs").absolute()


def with_double(batches):
    """Doubles a column; writes down that it runs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with open(str(RUNS), "a") as file:
        file.write("run\n")
    for batch in batches:
        double = pc.multiply(batch["id"], 2)
        yield pa.RecordBatch.from_pydict({"id": batch["id"], "double": double})


with spark_connect() as address, SparkSession.builder.remote(address).create() as session:
    numbers = session.range(0, 100, 1, 1)
    kept = numbers.mapInArrow(with_double, "id bigint, double bigint").persist()
    RUNS.write_text("")
    kept.collect()
    kept.createOrReplaceTempView("kept")
    query = "SELECT sum(double) FROM"
    found = []
    for what, ask in {
        "kept.selectExpr": lambda: kept.selectExpr("sum(double)"),
        "sql, a view of kept": lambda: session.sql(query + " kept"),
        "sql, rows=kept": lambda: session.sql(query + " {rows}", rows=kept),
        "sql, the view again": lambda: session.sql(query + " kept"),
        "kept.selectExpr again": lambda: kept.selectExpr("sum(double)"),
    }.items():
        before = len(RUNS.read_text())
        total = ask().collect()[0][0]
        runs = (len(RUNS.read_text()) - before) // len("run\n")
        found.append((what, total, runs, kept.is_cached))

print("pyspark", version("pyspark"), "pyarrow", version("pyarrow"))
print("guess: a query reads the frame, which is kept until `unpersist`")
for what, total, runs, cached in found:
    print(f"{what}: {total}, Python ran {runs} times; kept afterwards: {cached}")
if [(runs, cached) for *_, runs, cached in found] != [
    (0, True),
    (0, True),
    (1, False),
    (1, False),
    (1, False),
]:
    raise SystemExit("changed: a persisted frame that SQL names stays kept, or not")
PYTHON
PATH="$work/venv/bin:$PATH" PYSPARK_PYTHON="$work/venv/bin/python" \
  python -W ignore finding.py

# Seen:
# pyspark 4.3.0 pyarrow 26.0.1
# kept.selectExpr: 9900, Python ran 0 times; kept afterwards: True
# sql, a view of kept: 9900, Python ran 0 times; kept afterwards: True
# sql, rows=kept: 9900, Python ran 1 times; kept afterwards: False
# sql, the view again: 9900, Python ran 1 times; kept afterwards: False
# kept.selectExpr again: 9900, Python ran 1 times; kept afterwards: False
