"""What the container tests stand on: a real engine, with this code's images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from components import STAGES, image
from pipelines.local.engine import engine as found_engine
from pipelines.local.engine import stage_images
from safescale_ammt.errors import InputError


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the container engine; without one, or its images, a skip."""
    try:
        with found_engine() as client:
            stage_images(client, map(image, STAGES))
            yield client
    except InputError as error:
        pytest.skip(f"{error} (`make engines images` does both.)")


def eventually(holds: Callable[[], Any], patience: float = 30.0) -> Any:
    """Waits until something holds and returns it."""
    deadline = time.monotonic() + patience
    while not (found := holds()):
        assert time.monotonic() < deadline, "It did not come to hold in time."
        time.sleep(0.1)
    return found
