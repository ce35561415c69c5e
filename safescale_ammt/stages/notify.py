"""The exit task: tells people how a run ended, and never changes how it ended.

It runs whatever became of the five stages. Nobody to tell: it says so and is
done. A notice that cannot be delivered is one line in the log and no failure: a
model that became champion is champion, whether a chat service was up or not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from safescale_ammt.errors import ConfigError, SafescaleError, one_of
from safescale_ammt.releasing import notice
from safescale_ammt.releasing.notice import CANCELLED, Notice, outcome_at_exit
from safescale_ammt.releasing.run_outcome import STATUSES, RunOutcome
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.environment import data_store

STAGE = "notify"
ALL = "all"
OFTEN = "pending,refused,crashed"
"""What people are told of unless they ask for other things."""
_KNOWN = (*STATUSES, CANCELLED, "lost_race", "superseded", "unknown", ALL)


def run(
    run_id: str,
    state: str,
    message: str = "",
    on: str = OFTEN,
    *,
    environ: Mapping[str, str] = os.environ,
    retry: RetryPolicy = notice.WEBHOOK_RETRY,
) -> Notice:
    """Tells how a run ended, if somebody wants to know; never raises on purpose.

    Args:
        run_id: the run's id.
        state: what Kubeflow says of the stages: SUCCEEDED, FAILED, ...
        message: Kubeflow's own message about the failure.
        on: statuses to tell of, separated by commas; `all` tells of every one.
        environ: names the store of the outcome, and the places to tell.
        retry: timeouts and retries of the webhook.

    Returns:
        The notice, told or not.
    """
    found = outcome_at_exit(_left_behind(run_id, environ), run_id, state, message)
    told = Notice.of(found, state)
    print(told.text, flush=True)
    places = [name for name in notice.PLACES if environ.get(name)]
    if not places:
        print(f"Nobody to tell: neither of {', '.join(notice.PLACES)} is set.")
    elif not _wanted(found.status, on):
        print(f"Nobody was told: notify_on is {on!r}.")
    else:
        _tell(told, environ, retry)
    return told


def _tell(told: Notice, environ: Mapping[str, str], retry: RetryPolicy) -> None:
    ways: dict[str, Callable[[], str]] = {
        notice.WEBHOOK: lambda: notice.send(told, environ, retry=retry),
        notice.FILE: lambda: notice.put(told, environ),
    }
    for name, way in ways.items():
        if environ.get(name):
            try:
                print(f"Told {way()}.", flush=True)
            except Exception as error:  # noqa: BLE001  the run has ended as it has
                _complain(error)


def _left_behind(run_id: str, environ: Mapping[str, str]) -> RunOutcome | None:
    """Reads the outcome; a store that is down must not keep people untold."""
    try:
        return RunOutcome.read(data_store(environ), run_id)
    except Exception as error:  # noqa: BLE001
        _complain(error)
        return None


def _wanted(status: str, on: str) -> bool:
    """Says whether a status is on the list; an unknown word is complained of."""
    words = {word.strip() for word in on.split(",") if word.strip()}
    for word in sorted(words - set(_KNOWN)):
        _complain(ConfigError(f"notify_on names {word!r}, {one_of(_KNOWN)}."))
    return status in words or ALL in words


def _complain(error: Exception) -> None:
    """Logs a sentence of ours; of a foreign error only the name, it may quote a URL."""
    known = isinstance(error, SafescaleError)
    sentence = str(error) if known else f"Telling broke: {type(error).__name__}."
    print(sentence, file=sys.stderr, flush=True)
