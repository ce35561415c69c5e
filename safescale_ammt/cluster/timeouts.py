"""How long each thing may take."""

from __future__ import annotations

from dataclasses import dataclass

from safescale_ammt.retry import TRANSIENT, RetryPolicy

API_RETRY = RetryPolicy(
    # The job trains on without the API, and nobody repeats a step that fails: giving
    # up soon would lose hours of work to an outage of minutes.
    total=600.0,
    # Some forty requests in that time, not eighty, to an API server that starts.
    longest=15.0,
    # RFC 9110: the server did not get the whole request in time; it may be repeated.
    statuses=TRANSIENT | {408},
)
"""How long the Kubernetes API is waited for by a step that may take hours."""


@dataclass(frozen=True)
class Timeouts:
    """How long things may take, in seconds."""

    retry: RetryPolicy = API_RETRY
    """Calls; `read` is also the silence after which a log stream is opened anew."""
    watch: float = 25.0
    """One watch, after which the job is read anew; less than `retry.read`."""
    poll: float = 5.0
    """Between looks at pods, and at the job where it may not be watched."""
    pending: float = 1800.0
    """Until a first pod runs, or runs again."""
    queued: float = 86400.0
    """The same in a Kueue queue."""
    unexplained: float = 10.0
    """Until a wait for which the cluster gives no reason is said to have none."""
    denied: float = 60.0
    """A right that the caller has had is refused: API servers do so as they start."""
    gone: float = 300.0
    """Until a job and its pods are gone; a pod has 120 s for a last checkpoint."""
    grace: float = 20.0
    """For deleting the job at SIGTERM; pods have 30 s by default."""


TIMEOUTS = Timeouts()
"""Of a step that may take hours."""
