"""Notices of how a run ended: by webhook, by a file in a store.

    SAFESCALE_WEBHOOK_URL      gets the notice by POST, JSON; https, or loopback
    SAFESCALE_WEBHOOK_SECRET   signs it (HMAC-SHA256) in a header
    SAFESCALE_NOTIFY_FILE      gets it as an object: s3://bucket/key, file:///path,
                               or a URI that ends in "/" for one object per run

A webhook's URL is a secret (chat services put their token into its path): no
sentence and no log line, of urllib3's neither, ever holds more of it than the host.
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
from safescale_ammt.files.canonical import json_file
from safescale_ammt.library_logs import quiet_libraries
from safescale_ammt.releasing.run_outcome import CRASHED, RunOutcome
from safescale_ammt.retry import TRANSIENT, RetryPolicy
from safescale_ammt.store.uri import open_store, split_uri

WEBHOOK = "SAFESCALE_WEBHOOK_URL"
SECRET = "SAFESCALE_WEBHOOK_SECRET"  # noqa: S105  the variable's name
FILE = "SAFESCALE_NOTIFY_FILE"
PLACES = (WEBHOOK, FILE)
"""Environment variables that name where notices go."""
SCHEMA_VERSION = 1
CANCELLED = "cancelled"
UNFINISHED = "unfinished"
"""A run that did not reach its gate, by a failure or by somebody's will."""
# Kubeflow's words for how a task ended are those of its database: they differ by
# version, so every spelling stands here.
_DONE = ("SUCCEEDED", "COMPLETE", "CACHED")
_STOPPED = ("CANCELLED", "CANCELED")
WEBHOOK_RETRY = RetryPolicy(
    # The run's last pod waits for this: after some 50 s at most it ends without it.
    retries=3,
    # A receiver has to take a few lines, not to work on them.
    read=5.0,
    # RFC 9110 (408) and RFC 8470 (425): the request came too slowly or too early, and
    # may be repeated.
    statuses=TRANSIENT | {408, 425},
)
"""How long a webhook is waited for."""


class Undelivered(SafescaleError):
    """A notice that did not arrive."""


@dataclass(frozen=True)
class Notice:
    """What people read about a run; its JSON form is public, see `schema`.

    Attributes:
        run: the run's id.
        pipeline_state: Kubeflow's word: SUCCEEDED or COMPLETE, FAILED, ...
        status, sentence, decision, registry, version, model, verdict, at: as in
            `RunOutcome`.
        text: all of it as one line; chat services show the key of this name.
        schema: version of this form.
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
        """Makes the notice of an outcome and of Kubeflow's word for the run's end."""
        fields = outcome.to_dict()
        # The outcome counts its own versions; a notice has its own schema, no table.
        del fields["schema"], fields["promises"]
        # The gate wrote its outcome before the step ended, so both can be true: the
        # version is registered, and the run is red.
        if outcome.exit_code == 0 and state == "FAILED":
            fields["sentence"] += " The run itself FAILED after that."
        text = f"safescale-train {outcome.run}: {outcome.status}. {fields['sentence']}"
        return cls(pipeline_state=state, text=text, **fields)

    def to_bytes(self) -> bytes:
        """Returns the JSON form."""
        return json_file(asdict(self))


def outcome_at_exit(
    outcome: RunOutcome | None, run: str, state: str, message: str
) -> RunOutcome:
    """Returns how a run ended: the gate's outcome, else what Kubeflow's word means.

    Args:
        outcome: the outcome that the run wrote; None if it wrote none.
        run: the run's id.
        state: Kubeflow's word. While the exit task runs, that of a run which failed
            and of one which somebody stops is RUNNING or FAILED alike.
        message: Kubeflow's own message about the failure; 2.17 sends none.
    """
    if outcome is not None:
        return outcome
    # A failed pod's message can be a whole log; a notice is one line.
    message = " ".join(message.split())[:500]
    if state in _DONE:
        sentence = "The run succeeded, but its outcome record cannot be read."
        return RunOutcome.now(run=run, status="unknown", sentence=sentence)
    if state in _STOPPED:
        sentence = "The run was cancelled before it reached its gate."
        return RunOutcome.now(run=run, status=CANCELLED, sentence=sentence)
    if message:
        sentence = f"The run broke off before it reached its gate: {message}"
        return RunOutcome.now(run=run, status=CRASHED, sentence=sentence)
    sentence = (
        "The run did not reach its gate: a step failed, whose log says why, or "
        "somebody stopped it."
    )
    return RunOutcome.now(run=run, status=UNFINISHED, sentence=sentence)


def send(
    notice: Notice,
    environ: Mapping[str, str] = os.environ,
    *,
    retry: RetryPolicy = WEBHOOK_RETRY,
    clock: Callable[[], float] = time.time,
    attempt: int = 1,
) -> str:
    """Posts a notice to the webhook; returns its host.

    With a secret, `X-Safescale-Signature: sha256=<hex>` is the HMAC-SHA256 of the
    `X-Safescale-Timestamp`, a dot, and the body: a receiver that checks both, and
    the time's age, cannot be fooled by a copy of an old notice.

    Args:
        notice: what to send.
        environ: holds URL and secret.
        retry: timeouts and retries.
        clock: gives the time in seconds since 1970.
        attempt: how often the run has ended.

    Raises:
        ConfigError: the URL is neither https nor loopback.
        Undelivered: the receiver cannot be reached, is slow, or refuses.
    """
    url, host = _checked_url(environ[WEBHOOK])
    body = notice.to_bytes()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "safescale-ammt",
        # The same for every try: a receiver that took a notice whose answer was lost
        # can drop the second copy. A second end of the run is another notice.
        "X-Safescale-Delivery": f"{notice.run}-{notice.status}"
        + (f"-{attempt}" if attempt > 1 else ""),
    }
    if environ.get(SECRET):
        # The time is part of what is signed, or an old notice could be sent again.
        stamp = str(int(clock()))
        headers["X-Safescale-Timestamp"] = stamp
        headers["X-Safescale-Signature"] = sign(body, stamp, environ[SECRET])
    ca_file = environ.get("SSL_CERT_FILE") or certifi.where()
    status = _post(url, host, body, headers, ca_file=ca_file, policy=retry)
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
    """Writes a notice as an object into a store; returns the object's URI.

    Args:
        notice: what to write.
        environ: holds the object's URI and the store's keys.

    Raises:
        StorageError: no such store, no right to write, or a store that fails.
    """
    uri = environ[FILE]
    uri += f"{notice.run}.json" if uri.endswith("/") else ""
    store, key = split_uri(uri)
    open_store(store, environ=environ).put(key, notice.to_bytes())
    return uri


def _checked_url(url: str) -> tuple[str, str]:
    """Returns a URL that a notice may go to, and the part of it that is no secret."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        # Its message may quote the URL, so it goes no further.
        host, port = "", None
    # Credentials before the host would be a second secret in the URL.
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


@quiet_libraries()
def _post(
    url: str,
    host: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    ca_file: str,
    policy: RetryPolicy,
) -> int:
    """Posts with retries and returns the status of the last answer.

    Raises:
        Undelivered: no try got an answer.
    """
    retry = urllib3.Retry(
        # Every verb: a receiver that got the same notice twice has lost nothing.
        **policy.urllib3_options(),
        # Another address has not been checked, and would get the signed body.
        redirect=0,
        # The last answer is reported by its status, like a first one.
        raise_on_status=False,
        raise_on_redirect=False,
    )
    timeout = policy.timeout()
    try:
        with urllib3.PoolManager(
            timeout=timeout, retries=retry, ca_certs=ca_file
        ) as pool:
            # Only the status is read: an answer may be a page without an end.
            answer: Any = pool.request(
                "POST", url, body=body, headers=dict(headers), preload_content=False
            )
            answer.close()
            return int(answer.status)
    except urllib3.exceptions.HTTPError as error:
        # urllib3's own texts hold the URL, and with it the secret, so only the kind
        # of the failure is used, and nothing is chained.
        kind = type(getattr(error, "reason", None) or error).__name__
        symptom = "could not be reached or broke off"
        if "SSL" in kind:
            symptom = "has no certificate that this machine trusts"
        elif "Timeout" in kind:
            symptom = "did not answer in time"
        raise Undelivered(
            f"The notice could not be delivered to {host}: it {symptom} in "
            f"{policy.retries + 1} tries."
        ) from None
