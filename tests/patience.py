"""How long a test waits before it takes what it waits for to be hung.

A wait ends as soon as what it waits for is there. A generous limit thus costs
nothing and breaks nothing on a busy machine: it ends a test that would hang for
ever, and no test passes by being fast. Where a time is what a test is about, the
test compares it with a time of the product that is far from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 600.0
"""Seconds; less than pytest's own limit, so that the test says what hung."""


def eventually(holds: Callable[[], Any], *, every: float = 0.05) -> Any:
    """Waits until something holds and returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline, "It did not come to hold in time."
        time.sleep(every)
    return found
