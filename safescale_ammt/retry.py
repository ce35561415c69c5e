"""One retry policy: which failures pass by themselves, how long they are waited for.

A service is restarted, a network breaks off, a gateway is full: work of hours must
not be lost to that. Each service has a `RetryPolicy` of its own beside its client,
with a reason at each value that differs from the defaults here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib3

# RFC 6585 (429) and RFC 9110 (5xx): the request may be right, its time is not. 501 and
# 505 are missing, because a server that lacks a feature lacks it a minute later too.
TRANSIENT = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses of a server, or of a gateway before it, that is not well."""

# 2.0 ** 1024 overflows; long before that the longest wait is what counts.
_MOST_DOUBLINGS = 60


@dataclass(frozen=True)
class RetryPolicy:
    """How long one service is waited for; times in seconds."""

    total: float = 60.0
    """From the first failure until the service is given up."""
    first: float = 0.5
    """First wait; each further one doubles."""
    longest: float = 8.0
    """Longest single wait."""
    # Time is what a user loses. A count of tries stands for anything from seconds, at
    # a port that refuses, to many minutes, at a server that accepts and stays silent.
    retries: int = sys.maxsize
    """Most tries after the first one; by default only the time counts."""
    connect: float = 5.0
    """Limit for opening a connection."""
    read: float = 30.0
    """Limit between two pieces of an answer."""
    statuses: frozenset[int] = TRANSIENT
    """HTTP statuses that another try may change."""

    def wait(self, failures: int) -> float:
        """Returns the seconds to wait after so many failures in a row (1, 2, ...)."""
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        return min(self.longest, self.first * 2.0**doublings)

    def tries(self, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
        """Yields for each try the seconds to wait should it fail; 0 = no further one.

        Lazy: the clock runs while the caller tries and waits. Each wait is chosen
        before its try and cut to the time that is left then.

        Args:
            clock: tells the time in seconds.
        """
        failures, left = 0, self.total
        while left > 0 and failures < self.retries:
            failures += 1
            wait = min(self.wait(failures), left)
            yield wait
            if failures == 1:
                # The caller has just waited: the first failure is that long ago.
                end = clock() - wait + self.total
            left = end - clock()
        yield 0.0

    def timeout(self) -> urllib3.Timeout:
        """Returns the limits of one try, as urllib3 takes them."""
        import urllib3

        return urllib3.Timeout(connect=self.connect, read=self.read)

    def urllib3_options(self) -> dict[str, Any]:
        """Returns the arguments of a `urllib3.Retry` that follows this policy.

        urllib3 waits as `wait` says, but not before the first retry, and it counts
        tries alone: `total` needs a subclass (`store.s3_retry`).
        """
        return {
            "total": self.retries,
            "backoff_factor": self.first,
            "backoff_max": self.longest,
            "status_forcelist": self.statuses,
            # By default urllib3 retries no POST; who uses this may send twice.
            "allowed_methods": None,
            # A sick server that asks for an hour must not get it: it would hold a pod.
            "respect_retry_after_header": False,
        }
