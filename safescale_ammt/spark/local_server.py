"""A server of Spark Connect on this machine, for as long as a run needs it.

A process of its own, as on a cluster, so that this one has no Java in it: Spark's own
local mode puts it inside, on a port that two runs would share. Only this machine
reaches it, with a token. It ends with this process, however that goes, and its log,
which may quote rows, with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import safescale_ammt
from safescale_ammt import parent_death
from safescale_ammt.errors import EngineError, InputError

JAVA = "openjdk-17-jre-headless"
_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
_SETTINGS = {
    "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.rdd.compress": "true",
}
# Settings of a client or of another server would turn this one into theirs.
_FOREIGN = ("SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_MODE_ENABLED")


def java_of(environ: Mapping[str, str]) -> str:
    """Returns the path of Java; "" where there is none."""
    home = environ.get("JAVA_HOME")
    folders = f"{home}/bin" if home else environ.get("PATH", os.defpath)
    return shutil.which("java", path=folders) or ""


@contextmanager
def local_server(
    cores: str,
    environ: Mapping[str, str],
    settings: Mapping[str, str],
    patience: float,
) -> Iterator[str]:
    """Runs a server while the block does; yields its address, for Spark's client.

    Args:
        cores: how many, or `*` for all.
        environ: of the server and its workers: place and keys of the store.
        settings: of the server, beside its own.
        patience: seconds until it has to listen.

    Raises:
        InputError: there is no Java, or PySpark without Spark itself.
        EngineError: it does not start.
    """
    if not java_of(environ):
        raise InputError(
            "There is no Java here, which Spark on this machine needs (17 or later); "
            f"install one (Debian: {JAVA}) or name it by JAVA_HOME, or set "
            "SAFESCALE_SPARK to the sc:// address of a server."
        )
    found = find_spec("pyspark")
    home = Path(found.origin or "").parent if found else Path()
    if not (home / "bin/spark-submit").exists():
        raise InputError(
            "PySpark is here without Spark itself, as pyspark-client is; install "
            "pyspark, or set SAFESCALE_SPARK to the sc:// address of a server."
        )
    with tempfile.TemporaryDirectory(prefix="spark-") as folder:
        token, port = secrets.token_hex(16), free_port()
        options = {
            **_SETTINGS,
            "spark.connect.grpc.binding.port": str(port),
            "spark.local.dir": folder,
            **settings,
        }
        command = [sys.executable, "-m", parent_death.__name__]
        command += [str(home / "bin/spark-submit"), "--class", _SERVER]
        command += ["--master", f"local[{cores}]", "--name", "safescale"]
        for name, value in options.items():
            command += ["--conf", f"{name}={value}"]
        with (
            tempfile.TemporaryFile(dir=folder) as log,
            subprocess.Popen(
                [*command, "spark-internal"],
                cwd=folder,
                env=server_environ(environ, home, token),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                await_server(process, port, patience)
                # By this name gRPC sends a token without TLS, which never leaves here.
                yield f"sc://localhost:{port}/;token={token}"
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def server_environ(
    environ: Mapping[str, str], home: Path, token: str
) -> dict[str, str]:
    """Returns the environment of a server whose workers are as this process is."""
    # They find our code and PySpark where this process did, installed or not.
    places = [str(Path(safescale_ammt.__file__).parents[1]), str(home.parent)]
    if before := environ.get("PYTHONPATH"):
        places.append(before)
    own = {
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(places),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
        parent_death.PARENT: str(os.getpid()),
    }
    return {k: v for k, v in environ.items() if k not in _FOREIGN} | own


def free_port() -> int:
    """Returns a port of the loopback that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def await_server(process: subprocess.Popen[bytes], port: int, patience: float) -> None:
    """Waits until a server listens.

    Raises:
        EngineError: it ended, or does not listen in time.
    """
    end = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as asking:
            asking.settimeout(1)
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    code = process.poll()
    how = f"ended with code {code}" if code is not None else f"took over {patience:g} s"
    raise EngineError(
        f"Spark did not start on this machine: it {how}. It needs Java 17 or later and "
        "1.5 GiB of memory; `java -version` says which one is here."
    )
