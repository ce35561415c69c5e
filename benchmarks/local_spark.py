"""A real Spark Connect server on this machine, for benchmarks and tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS
from safescale_ammt.spark.local_server import JAVA, java_of
from safescale_ammt.spark.session import open_session

FOLDER = Path(sys.prefix) / "spark"
"""Where `make spark` puts PySpark, apart from what types are checked against."""


def lacking() -> str:
    """Says what of Spark is not here; nothing if all is, and can be imported."""
    if not java_of(os.environ):
        return f"Spark: there is no Java (Debian: {JAVA})"
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    if not importlib.util.find_spec("pyspark"):
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
    own = {**os.environ, **environ, SPARK_ADDRESS: f"local[{cores}]"}
    with open_session(own, settings=settings, patience=180) as session:
        yield session
