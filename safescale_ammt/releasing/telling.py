"""Telling people how a run ended, once, whoever comes to tell it.

Kubeflow's exit task may be killed before it runs, and is not repeated when somebody
retries a run. So whoever follows or stops a run tells the same places. An object that
one writer alone can make, `runs/<run>/told-<n>.json`, says that the n-th end of a run
has been told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from safescale_ammt.errors import (
    ConfigError,
    PreconditionFailed,
    SafescaleError,
    StorageError,
    one_of,
)
from safescale_ammt.execution import utc_now
from safescale_ammt.files.canonical import json_file
from safescale_ammt.releasing import notice
from safescale_ammt.releasing.notice import CANCELLED, UNFINISHED, Notice
from safescale_ammt.releasing.run_outcome import CRASHED, STATUSES, key_of
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.base import Store

ALL = "all"
# The ends that somebody has to act on; a champion needs nobody.
OFTEN = "pending,refused,crashed,cancelled"
"""Statuses of which a notice is sent by default."""
WORDS = (
    *(*STATUSES, CANCELLED, UNFINISHED, "unknown", ALL),
    *("lost_race", "superseded", "rejected", "revoked"),
)
"""Statuses that may be asked for."""


def is_wanted(status: str, on: str) -> bool:
    """Says whether people asked to be told of a status; complains of unknown words.

    Who wants to hear of a crash hears of a run that did not reach its gate too: nobody
    can tell the two apart from inside of the run.

    Args:
        status: of the run.
        on: the statuses that people asked for, separated by commas.
    """
    words = {word.strip() for word in on.split(",") if word.strip()}
    # A misspelt word must not silence the others, nor pass unseen.
    for word in sorted(words - set(WORDS)):
        complain(ConfigError(f"notify_on names {word!r}, {one_of(WORDS, word)}."))
    asked = words | ({UNFINISHED} if CRASHED in words else set())
    return bool(asked & {status, ALL})


def claim(store: Store, run: str, attempt: int, status: str) -> bool:
    """Says whether it is for the caller to tell the n-th end of a run.

    Raises:
        StorageError: the store cannot be asked.
    """
    key = key_of(run).replace("outcome.json", f"told-{attempt}.json")
    record = {"schema": 1, "status": status, "at": utc_now().isoformat()}
    try:
        store.put(key, json_file(record), if_absent=True)
    except PreconditionFailed:
        return False
    return True


def tell(
    note: Notice,
    on: str,
    environ: Mapping[str, str],
    *,
    store: Store | None,
    attempt: int = 1,
    retry: RetryPolicy = notice.WEBHOOK_RETRY,
    say: Callable[[str], None] = print,
) -> None:
    """Sends a notice to every receiver, unless nobody asked or somebody else did.

    No error passes on: it would turn a good run red.

    Args:
        note: what to tell.
        on: statuses that people asked for.
        environ: names the receivers.
        store: of outcomes, where the telling is claimed; None = it cannot be asked,
            and a second notice is better than none.
        attempt: how often the run has ended.
        retry: timeouts and retries of the webhook.
        say: takes what became of it, line by line.
    """
    receivers = [name for name in notice.PLACES if environ.get(name)]
    if not receivers:
        say(f"Nobody to tell: neither of {', '.join(notice.PLACES)} is set.")
        return
    if not is_wanted(note.status, on):
        say(f"Nobody was told: notify_on is {on!r}.")
        return
    try:
        if store is not None and not claim(store, note.run, attempt, note.status):
            say("Nobody was told again: this end of the run has been told.")
            return
    except StorageError as error:
        complain(error)
    # Each by itself: a webhook that is down must not keep the file from being written.
    for receiver in receivers:
        try:
            if receiver == notice.WEBHOOK:
                address = notice.send(note, environ, retry=retry, attempt=attempt)
            else:
                address = notice.put(note, environ)
            say(f"Told {address}.")
        except Exception as error:  # noqa: BLE001
            complain(error)


def complain(error: Exception) -> None:
    """Logs an error as one sentence."""
    # Our own sentences hold no secret. A library's may quote the webhook's URL, which
    # is one, so only its class is named.
    ours = isinstance(error, SafescaleError)
    sentence = str(error) if ours else f"Telling broke: {type(error).__name__}."
    print(sentence, file=sys.stderr, flush=True)
