"""How long a store that is away or ill is waited for, and what is said of it.

A store is restarted, a network hiccups, a lease moves: work of hours must not be
lost to that. Requests are tried again with growing waits for about a minute, one
line says so, and only then the work ends.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.exceptions import MaxRetryError, ResponseError

_RETRIED = (409, 429, 500, 502, 503, 504)
"""409: AWS answers a conditional write in conflict with "try again"."""
_HICCUP = 2.0
"""Seconds that are not worth a line."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long one request may take; times in seconds.

    By default a store that is gone is given up after about 75 s, one that accepts
    connections but never answers after about 90 s.
    """

    retries: int = 14
    """Tries after the first one."""
    backoff: float = 0.25
    """Second wait; each further one doubles, plus a random part of this size."""
    longest: float = 8.0
    """Longest single wait."""
    connect: float = 5.0
    """Limit for opening a connection."""
    read: float = 30.0
    """Limit between two pieces of an answer."""
    outage: float = 70.0
    """No further try once so much time has passed since the first that failed."""

    def wait(self, failures: int) -> None:
        """Sleeps before the next try, as urllib3 does between requests."""
        time.sleep(min(self.longest, self.backoff * 2 ** (failures - 1)))

    def pool(self, kind: type[urllib3.PoolManager], ca: str) -> urllib3.PoolManager:
        """Builds a connection pool that retries every request this patiently.

        Every verb is retried: a put is idempotent, and what a conditional put
        or a completed upload meant when its reply was lost, `S3Store` asks.
        """
        retry = Persistent(
            total=self.retries,
            backoff_factor=self.backoff,
            backoff_max=self.longest,
            backoff_jitter=self.backoff,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            # A sick server must not put us to sleep for an hour.
            respect_retry_after_header=False,
        )
        retry.outage = Outage(self.outage)
        # It would tell each try; we tell one line.
        logging.getLogger("urllib3.connectionpool").addFilter(_not_ours)
        timeout = urllib3.Timeout(connect=self.connect, read=self.read)
        return kind(maxsize=10, timeout=timeout, retries=retry, ca_certs=ca)


@dataclass
class Outage:
    """A time without a store, shared by all requests to it.

    Attributes:
        longest: seconds that a request is tried again.
        said: when it was last spoken of, on the monotonic clock.
    """

    longest: float
    said: float = field(default=float("-inf"))

    def say(self, where: str) -> None:
        """Logs one line for an outage, however many requests meet it."""
        now = time.monotonic()
        if now - self.said > self.longest:
            self.said = now
            _LOG.warning(
                "The store at %s does not answer as it should; trying for %.0f s.",
                where,
                self.longest,
            )


class Persistent(urllib3.Retry):
    """Retries of one request: bounded in number and in time, and told once."""

    outage = Outage(0.0)
    since: float | None = None
    """When the request first failed."""

    def new(self, **changes: Any) -> Persistent:
        """Returns the next state, as urllib3 does."""
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
    ) -> Persistent:
        """Counts a failure.

        Raises:
            MaxRetryError: it was the last try; `tries` says how many there were.
        """
        now = time.monotonic()
        since = now if self.since is None else self.since
        try:
            again = super().increment(method, url, response, error, _pool, _stacktrace)
            if now - since >= self.outage.longest:
                reason = error or ResponseError(f"HTTP {response.status}")
                raise MaxRetryError(_pool, url or "", reason)
        except MaxRetryError as last:
            last.tries = len(self.history) + 1  # type: ignore[attr-defined]
            raise
        if now - since > _HICCUP:
            self.outage.say(f"{_pool.scheme}://{_pool.host}:{_pool.port}")
        again.since = since
        return again


def _not_ours(record: logging.LogRecord) -> bool:
    """Filters what urllib3 says of each of our retries."""
    return not (
        isinstance(record.args, tuple)
        and record.args
        and isinstance(record.args[0], Persistent)
    )
