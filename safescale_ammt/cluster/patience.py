"""How long each thing may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """How long things may take, in seconds."""

    outage: float = 600.0
    """The API does not answer."""
    first: float = 0.5
    """Pause after a first failure; it doubles."""
    longest: float = 15.0
    """Longest pause."""
    connect: float = 5.0
    """One connection attempt."""
    read: float = 30.0
    """One answer; also the silence after which a log stream is opened anew."""
    watch: float = 25.0
    """One watch, after which the job is read anew; less than `read`."""
    poll: float = 5.0
    """Between looks at pods, and at the job where it may not be watched."""
    pending: float = 1800.0
    """Until a first pod runs, or runs again."""
    queued: float = 86400.0
    """The same in a Kueue queue."""
    denied: float = 60.0
    """A right that the caller has had is refused: API servers do so as they start."""
    gone: float = 300.0
    """Until a deleted job is gone; its pods have 120 s for a last checkpoint."""
    grace: float = 20.0
    """For deleting the job at SIGTERM; pods have 30 s by default."""


PATIENCE = Patience()
"""Of a step that may take hours."""
