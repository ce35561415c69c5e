"""Pace: when the next checkpoint is due.

Without a fixed number of rounds it is the clock that says so. Young (1974) puts
sqrt(2 C M) between checkpoints that cost C where faults are M apart. Nobody knows M
beforehand, so the cost is what is fixed: a fiftieth of the time. That is Young's answer
for M = 1,250 C; where faults are rarer it costs those two hundredths at most, and
whatever is lost to a fault is at most fifty times what one checkpoint costs.

What one costs is what the training waits for and the processor time of the upload
beside it. The upload's own time costs no step; it is held to a fifth of the time, so
that a slow store is not always busy.

A clock decides here what is kept, never what is computed: the model is the same.
"""

from __future__ import annotations

SHARE = 50.0
"""Seconds between checkpoints for each that one takes."""
BETWEEN = 4.0
"""Seconds without an upload for each that one takes."""
LEAST = 2.0
"""Least seconds between two."""


class Pace:
    """Says in which sync rounds a checkpoint is due.

    Args:
        every: rounds from one to the next; 0 = by the clock.
        now: seconds on a clock that never goes back.
    """

    def __init__(self, every: int, now: float) -> None:
        self._every = every
        self._rounds = 0
        self._next = now if every else now + LEAST

    def due(self, now: float) -> bool:
        """Counts a round and says whether a checkpoint is due in it."""
        self._rounds += 1
        if now < self._next:
            return False
        return not self._every or self._rounds % self._every == 0

    def begun(self) -> None:
        """Notes that one is on its way; by the clock none follows until it is there."""
        if not self._every:
            self._next = float("inf")

    def ended(self, now: float, cost: float, upload: float, *, failed: bool) -> None:
        """Notes that one has arrived, or failed.

        Args:
            now: as ever.
            cost: seconds that were lost to the training.
            upload: seconds that it was on its way.
            failed: whether it did not arrive; what fails slowly is not tried at once.
        """
        if not self._every:
            self._next = now + max(LEAST, SHARE * cost, BETWEEN * upload)
        elif failed:
            self._next = now + BETWEEN * upload
