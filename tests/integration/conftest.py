"""What tests stand on that not every machine has: a container engine, a Spark."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import spark_server

from benchmarks.local_spark import lacking, local_spark
from components import STAGES, image
from pipelines.local.container_engine import engine as found_engine
from pipelines.local.container_engine import stage_images
from safescale_ammt.errors import InputError


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the container engine; without one, or its images, a skip."""
    with ExitStack() as stack:
        missing = ""
        try:
            client = stack.enter_context(found_engine())
            stage_images(client, map(image, STAGES))
        except InputError as error:
            missing = str(error)
        if missing:
            # Where nobody answers, Docker's client leaves its socket to the collector,
            # whose warning would be the error of whatever test runs then.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
            pytest.skip(f"{missing} (`make engines images` does both.)")
        yield client


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A session of a real Spark Connect server; without Java or PySpark, a skip."""
    if reason := lacking():
        pytest.skip(reason)
    environ = request.getfixturevalue("s3_environ") | spark_server.ENVIRON
    with local_spark(1, spark_server.SETTINGS, environ) as session:
        yield session
