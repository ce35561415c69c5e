"""How requests to an S3 store are tried again, and what is said of an outage.

Requests are tried again with growing waits for about a minute, one line says so,
and only then the work ends.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.exceptions import MaxRetryError, ResponseError

from safescale_ammt.retry import TRANSIENT, RetryPolicy

# A store that refuses is given up after about 75 s, one that accepts connections but
# never answers after about 90 s.
S3_RETRY = RetryPolicy(
    # urllib3 repeats a request at once, then after 0.5 s, 1 s, ...: what is lost most
    # often is one connection, not the store.
    first=0.25,
    # A minute for a store that restarts, as README promises, and room for the tries.
    total=70.0,
    # The waits of 14 retries (0, 0.5, 1, 2, 4, then 8 s each) alone are longer than
    # `total`: the count is a second guard, for answers that come at once.
    retries=14,
    # AWS answers a conditional write in conflict with 409, "try again".
    statuses=TRANSIENT | {409},
)
"""How long an S3 store is waited for."""
_HICCUP = 2.0
"""Seconds that are not worth a line."""
_LOG = logging.getLogger(__name__)


def connection_pool(
    kind: type[urllib3.PoolManager], policy: RetryPolicy, ca: str
) -> urllib3.PoolManager:
    """Builds a connection pool that retries every request as a policy says.

    Args:
        kind: class of the pool.
        policy: retries, waits and limits of one try.
        ca: file of the certificates that are trusted.
    """
    # Every verb is retried: a put is idempotent, and what a conditional put or a
    # completed upload meant when its reply was lost, `S3Store` finds out.
    retry = StoreRetry(backoff_jitter=policy.first, **policy.urllib3_options())
    retry.outage = Outage(policy.total)
    # It would log each try; `Outage` logs one line.
    logging.getLogger("urllib3.connectionpool").addFilter(_is_not_ours)
    return kind(maxsize=10, timeout=policy.timeout(), retries=retry, ca_certs=ca)


@dataclass
class Outage:
    """A time without a store, shared by all requests to it.

    Attributes:
        total: seconds from a request's first failure until it is given up.
        logged: when the last line was logged, on the monotonic clock.
    """

    total: float
    logged: float = field(default=float("-inf"))

    def log(self, where: str) -> None:
        """Logs one line for an outage, however many requests meet it."""
        now = time.monotonic()
        # After `total` the requests of that outage have ended: this is another one.
        if now - self.logged > self.total:
            self.logged = now
            _LOG.warning(
                "The store at %s does not answer as it should; trying for %.0f s.",
                where,
                self.total,
            )


class StoreRetry(urllib3.Retry):
    """Retries of one request: bounded in number and in time, and logged once."""

    outage = Outage(0.0)
    since: float | None = None
    """When the request first failed."""

    def new(self, **changes: Any) -> StoreRetry:
        """Returns the next state, as urllib3 does."""
        # urllib3 makes a new object for each failure and copies only its own fields.
        again = super().new(**changes)
        again.outage, again.since = self.outage, self.since
        return again

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> StoreRetry:
        """Counts a failure.

        Raises:
            MaxRetryError: it was the last try; `tries` says how many there were.
        """
        now = time.monotonic()
        since = now if self.since is None else self.since
        try:
            again = super().increment(method, url, response, error, _pool, _stacktrace)
            if now - since >= self.outage.total:
                reason = error or ResponseError(f"HTTP {response.status}")
                raise MaxRetryError(_pool, url or "", reason)
        except MaxRetryError as last:
            last.tries = len(self.history) + 1  # type: ignore[attr-defined]
            raise
        if now - since > _HICCUP:
            self.outage.log(f"{_pool.scheme}://{_pool.host}:{_pool.port}")
        again.since = since
        return again


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Filters what urllib3 says of each of our retries."""
    # Other users of urllib3 in this process keep their lines.
    return not (
        isinstance(record.args, tuple)
        and record.args
        and isinstance(record.args[0], StoreRetry)
    )
