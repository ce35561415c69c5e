"""Telling people how a run ended: by webhook, by a file in a store.

    SAFESCALE_WEBHOOK_URL      gets the notice by POST, JSON; https, or loopback
    SAFESCALE_WEBHOOK_SECRET   signs it (HMAC-SHA256) in a header
    SAFESCALE_NOTIFY_FILE      gets it as an object: s3://bucket/key, file:///path,
                               or a place that ends in "/" for one object per run

A webhook's URL is a secret (chat services put their token into its path): no
sentence and no log line ever holds more of it than the host.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import certifi
import urllib3

from safescale_ammt.addresses import is_loopback
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.releasing.run_outcome import CRASHED, RunOutcome
from safescale_ammt.retry import TRANSIENT, RetryPolicy
from safescale_ammt.store.uri import open_store, split_uri

WEBHOOK = "SAFESCALE_WEBHOOK_URL"
SECRET = "SAFESCALE_WEBHOOK_SECRET"  # noqa: S105  the variable's name
FILE = "SAFESCALE_NOTIFY_FILE"
PLACES = (WEBHOOK, FILE)
"""Environment variables that name a place to tell."""
SCHEMA_VERSION = 1
CANCELLED = "cancelled"
_DONE = ("SUCCEEDED", "COMPLETE", "CACHED")
_STOPPED = ("CANCELLED", "CANCELED")
"""Kubeflow's words for how a task ended are those of its database, by version."""
WEBHOOK_RETRY = RetryPolicy(
    # The run waits for its notice: after some 50 s at most it ends without it.
    retries=3,
    # A receiver has to take a few lines, not to work on them.
    read=5.0,
    # RFC 9110 (408) and RFC 8470 (425): the request came too slowly or too early, and
    # may be repeated; the receiver knows a repeated one by its delivery id.
    statuses=TRANSIENT | {408, 425},
)
"""How long a webhook is waited for."""


class Undelivered(SafescaleError):
    """A notice that did not arrive."""


@dataclass(frozen=True)
class Notice:
    """What people are told.

    Attributes:
        run: the run's id.
        pipeline_state: what Kubeflow says: SUCCEEDED or COMPLETE, FAILED, ...
        status, sentence, decision, registry, version, model, verdict, at: as in
            `RunOutcome`.
        text: the whole as one line: what chat services show.
    """

    run: str
    pipeline_state: str
    status: str
    sentence: str
    decision: str
    registry: str
    version: int
    model: str
    verdict: str
    at: str
    text: str
    schema: int = SCHEMA_VERSION

    @classmethod
    def of(cls, outcome: RunOutcome, state: str) -> Notice:
        """Makes the notice of an outcome, and of what Kubeflow says beside it."""
        odd = outcome.exit_code == 0 and state == "FAILED"
        after = " The run itself FAILED after that." if odd else ""
        told = outcome.to_dict()
        del told["schema"]
        told["sentence"] += after
        text = f"safescale-train {outcome.run}: {outcome.status}. {told['sentence']}"
        return cls(pipeline_state=state, text=text, **told)

    def to_bytes(self) -> bytes:
        """Returns the JSON form."""
        return canonical_json(asdict(self)) + b"\n"


def outcome_at_exit(
    outcome: RunOutcome | None, run: str, state: str, message: str
) -> RunOutcome:
    """Returns how a run ended, its gate's word first, else Kubeflow's.

    Args:
        outcome: what the run left behind; None if nothing.
        run: the run's id.
        state: what Kubeflow says; anything but done or stopped is a crash.
        message: Kubeflow's own message about the failure; 2.17 sends none.
    """
    if outcome is not None:
        return outcome
    message = " ".join(message.split())[:500]
    if state in _DONE:
        sentence = "The run succeeded, but its outcome record cannot be read."
        return RunOutcome.now(run=run, status="unknown", sentence=sentence)
    if state in _STOPPED:
        sentence = "The run was cancelled before it reached its gate."
        return RunOutcome.now(run=run, status=CANCELLED, sentence=sentence)
    sentence = "The run broke off before it reached its gate"
    sentence += f": {message}" if message else "; the failed step's log says why."
    return RunOutcome.now(run=run, status=CRASHED, sentence=sentence)


def send(
    notice: Notice,
    environ: Mapping[str, str] = os.environ,
    *,
    retry: RetryPolicy = WEBHOOK_RETRY,
    clock: Callable[[], float] = time.time,
) -> str:
    """Posts a notice to the webhook; returns its host.

    With a secret, `X-Safescale-Signature: sha256=<hex>` is the HMAC-SHA256 of the
    `X-Safescale-Timestamp`, a dot, and the body: a receiver that checks both, and
    the time's age, cannot be fooled by a copy of an old notice.

    Args:
        notice: what to tell.
        environ: holds URL and secret.
        retry: timeouts and retries.
        clock: tells the time in seconds since 1970.

    Raises:
        ConfigError: the URL is neither https nor loopback.
        Undelivered: the receiver cannot be reached, is slow, or says no.
    """
    url, host = _checked(environ[WEBHOOK])
    body = notice.to_bytes()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "safescale-ammt",
        "X-Safescale-Delivery": f"{notice.run}-{notice.status}",
    }
    if environ.get(SECRET):
        stamp = str(int(clock()))
        headers["X-Safescale-Timestamp"] = stamp
        headers["X-Safescale-Signature"] = sign(body, stamp, environ[SECRET])
    try:
        status = _post(url, body, headers, environ, retry)
    except urllib3.exceptions.HTTPError as error:
        raise Undelivered(
            f"The notice could not be delivered to {host}: it {_symptom(error)} in "
            f"{retry.retries + 1} tries."
        ) from None
    if not 200 <= status < 300:
        raise Undelivered(
            f"The notice was not taken by {host}: it answered HTTP {status}."
        )
    return host


def sign(body: bytes, stamp: str, secret: str) -> str:
    """Returns the signature of a body sent at a time, `sha256=<hex>`."""
    message = stamp.encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def put(notice: Notice, environ: Mapping[str, str] = os.environ) -> str:
    """Writes a notice to its place in a store; returns the object's URI.

    Raises:
        StorageError: no such place, no right to write, or a store that fails.
    """
    uri = environ[FILE]
    uri += f"{notice.run}.json" if uri.endswith("/") else ""
    store, key = split_uri(uri)
    open_store(store, environ=environ).put(key, notice.to_bytes())
    return uri


def _checked(url: str) -> tuple[str, str]:
    """Returns a URL that a notice may go to, and the part of it that is no secret."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.username is not None:
        raise ConfigError(
            f"{WEBHOOK} is no URL of the form https://HOST/PATH, so nobody was told."
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigError(
            f"{WEBHOOK} at {host} is not https, so nobody was told: a notice goes "
            "over https, or to this machine itself."
        )
    return parts.geturl(), f"{host}:{port}" if port else host


def _post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    environ: Mapping[str, str],
    policy: RetryPolicy,
) -> int:
    """Posts with retries; a redirect is an answer like any other, not followed."""
    retry = urllib3.Retry(
        redirect=0,
        raise_on_status=False,
        raise_on_redirect=False,
        **policy.urllib3_options(),
    )
    timeout = policy.timeout()
    ca = environ.get("SSL_CERT_FILE") or certifi.where()
    with urllib3.PoolManager(timeout=timeout, retries=retry, ca_certs=ca) as pool:
        # Its body is not wanted, however long it is.
        answer: Any = pool.request(
            "POST", url, body=body, headers=dict(headers), preload_content=False
        )
        answer.close()
        return int(answer.status)


def _symptom(error: urllib3.exceptions.HTTPError) -> str:
    """Says in words how a receiver failed, quoting nothing: texts hold the URL."""
    reason = getattr(error, "reason", None) or error
    name = type(reason).__name__
    if "SSL" in name:
        return "has no certificate that this machine trusts"
    if "Timeout" in name:
        return "did not answer in time"
    return "could not be reached or broke off"
