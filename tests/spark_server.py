"""What tests on a real Spark share: `benchmarks.local_spark` starts it, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from safescale_ammt.config.kubernetes_names import SPARK_ADDRESS

SPARK = [
    # One server of 1 GB for all tests of it, whatever the number of workers.
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet:FutureWarning"),
]
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
}
# Half the CPU seconds: what runs for a minute need not be compiled well.
ENVIRON = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"}


@contextmanager
def partitions(session: Any, count: int) -> Iterator[None]:
    """Lets shuffles make so many partitions, however few rows they are."""
    names = {
        "spark.sql.shuffle.partitions": str(count),
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    }
    before = {name: session.conf.get(name) for name in names}
    for name, value in names.items():
        session.conf.set(name, value)
    yield
    for name, value in before.items():
        session.conf.set(name, value)


def address(spark, port: int = 0) -> dict[str, str]:
    """Names the server of the tests, or a way to it by another port."""
    url = spark.client._builder.url
    shown = f"sc://localhost:{port or url.port}/;{url.params}"
    return {SPARK_ADDRESS: shown}
