"""Work that takes a whole number of steps: its length tells nothing of what it found.

How long a test takes depends on the figures: a bound is searched for until it is found.
Everybody who sees a run sees when its stages end. CPU seconds and memory, which who
watches the node sees, are not evened out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEP = 4.0
"""Seconds; a judgement on some 10,000 rows takes one or two of them."""


@contextmanager
def even_time(
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    *,
    step: float = STEP,
) -> Iterator[None]:
    """Ends a block at the next whole step after its beginning, failed or not.

    Args:
        clock: tells seconds.
        pause: waits for so many.
        step: seconds.

    Example:
        with even_time():
            judge()
    """
    begun = clock()
    try:
        yield
    finally:
        pause(-(clock() - begun) % step)
