"""A real Spark Connect server on this machine, for benchmarks and tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.provenance import ROOT

FOLDER = Path(sys.prefix) / "spark"
"""Where `make spark` puts PySpark, apart from what types are checked against."""


def lacking() -> str:
    """Says what of Spark is not here; nothing if all is."""
    java = os.environ.get("JAVA_HOME", "")
    if not shutil.which("java", path=f"{java}/bin" if java else None):
        return "Spark: there is no Java (Debian: openjdk-17-jre-headless)"
    if not FOLDER.is_dir() and not importlib.util.find_spec("pyspark"):
        return "Spark: there is no PySpark (`make spark` installs it)"
    return ""


@contextmanager
def local_spark(
    cores: int, settings: Mapping[str, str], environ: Mapping[str, str]
) -> Iterator[Any]:
    """Yields a session of a server that runs while the block does.

    Args:
        cores: of Spark.
        settings: of the server.
        environ: that it and its workers have beside this process's.
    """
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    found = importlib.util.find_spec("pyspark")
    assert found
    assert found.origin
    home = Path(found.origin).parent
    started = {
        # Workers are other processes: they find the same packages by these.
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(home.parent)]),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_HOME": str(home),
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": uuid.uuid4().hex,
        # A port that is free: two servers may share a machine.
        "SPARK_TESTING": "1",
        "SPARK_LOCAL_IP": "127.0.0.1",
        **environ,
    }
    with patch.dict(os.environ, started):
        with warnings.catch_warnings():
            # Of pandas 3, which nothing here uses; and that settings of a server are
            # none of its sessions, which have them all the same.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            from pyspark.sql import SparkSession

            builder = SparkSession.builder.remote(f"local[{cores}]")
            for name, value in settings.items():
                builder = builder.config(name, value)
            session = builder.getOrCreate()
        try:
            yield session
        finally:
            session.stop()
            end_java()


def end_java() -> None:
    """Waits for the server's Java, which else ends some time after its session."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway  # noqa: SLF001 - there is no public way to it
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(60)
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001
