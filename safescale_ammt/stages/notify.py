"""The exit task: sends notices of how a run ended, and never changes how it ended.

It runs however the five stages ended. Without a receiver it says so and ends. A
notice that cannot be delivered is one line in the log and no failure: a model that
became champion is champion, whether a chat service was up or not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from safescale_ammt.errors import ConfigError, SafescaleError, one_of
from safescale_ammt.library_logs import quiet_libraries
from safescale_ammt.releasing import notice
from safescale_ammt.releasing.notice import CANCELLED, Notice, outcome_at_exit
from safescale_ammt.releasing.run_outcome import STATUSES, RunOutcome
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.environment import data_store

STAGE = "notify"
ALL = "all"
# The ends that somebody has to act on; a champion needs nobody.
OFTEN = "pending,refused,crashed"
"""Statuses of which a notice is sent by default."""
_STATUSES = (*STATUSES, CANCELLED, "lost_race", "superseded", "unknown", ALL)


@quiet_libraries()
def run(
    run_id: str,
    state: str,
    message: str = "",
    on: str = OFTEN,
    *,
    environ: Mapping[str, str] = os.environ,
    retry: RetryPolicy = notice.WEBHOOK_RETRY,
) -> Notice:
    """Sends the notice of how a run ended, if somebody wants it.

    Reads the outcome, writes the notice into the log, sends it to every receiver.
    No error of these passes on: it would turn a good run red.

    Args:
        run_id: the run's id.
        state: Kubeflow's word for the end of the stages: SUCCEEDED, FAILED, ...
        message: Kubeflow's own message about the failure.
        on: statuses to send a notice of, separated by commas; `all` for every one.
        environ: names the store of the outcome, and the receivers.
        retry: timeouts and retries of the webhook.

    Returns:
        The notice, whether it was sent or not.
    """
    outcome = None
    try:
        outcome = RunOutcome.read(data_store(environ), run_id)
    except Exception as error:  # noqa: BLE001
        # Without the store, Kubeflow's word still makes a notice.
        _complain(error)
    outcome = outcome_at_exit(outcome, run_id, state, message)
    note = Notice.of(outcome, state)
    print(note.text, flush=True)
    receivers = [name for name in notice.PLACES if environ.get(name)]
    if not receivers:
        print(f"Nobody to tell: neither of {', '.join(notice.PLACES)} is set.")
        return note
    words = {word.strip() for word in on.split(",") if word.strip()}
    # A misspelt word must not silence the others, nor pass unseen.
    for word in sorted(words - set(_STATUSES)):
        _complain(ConfigError(f"notify_on names {word!r}, {one_of(_STATUSES, word)}."))
    if not words & {outcome.status, ALL}:
        print(f"Nobody was told: notify_on is {on!r}.")
        return note
    # Each by itself: a webhook that is down must not keep the file from being written.
    for receiver in receivers:
        try:
            if receiver == notice.WEBHOOK:
                address = notice.send(note, environ, retry=retry)
            else:
                address = notice.put(note, environ)
            print(f"Told {address}.", flush=True)
        except Exception as error:  # noqa: BLE001
            _complain(error)
    return note


def _complain(error: Exception) -> None:
    """Logs an error as one sentence."""
    # Our own sentences hold no secret. A library's may quote the webhook's URL, which
    # is one, so only its class is named.
    ours = isinstance(error, SafescaleError)
    sentence = str(error) if ours else f"Telling broke: {type(error).__name__}."
    print(sentence, file=sys.stderr, flush=True)
