"""The exit task: tells people how a run ended, and never changes how it ended.

It runs however the five stages ended. It leaves a page for Kubeflow's graph, and tells
the receivers if there are any. A notice that cannot be delivered is one line in the
log and no failure: a model that became champion is champion, whether a chat service
was up or not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safescale_ammt.cluster.api import ACCOUNT
from safescale_ammt.cluster.own_account import own_api
from safescale_ammt.cluster.run_pods import pods_of_run, step_end
from safescale_ammt.library_logs import quiet_libraries
from safescale_ammt.releasing import notice
from safescale_ammt.releasing.notice import Notice, outcome_at_exit
from safescale_ammt.releasing.outcome_page import outcome_page
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.releasing.telling import OFTEN, complain, tell
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.environment import data_store

STAGE = "notify"
PATIENCE = 10.0
"""Seconds that the Kubernetes API is waited for; people should be told soon."""
WHERE = (
    "Where to look: *Evaluate safety* has the report, if the run came so far; "
    "`safescale submit --follow {run}` says how the run ended, and the sentence of a "
    "step that failed where it may read pods."
)
"""What the page says at its end."""


@quiet_libraries()
def run(
    run_id: str,
    state: str,
    message: str = "",
    on: str = OFTEN,
    *,
    page: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    retry: RetryPolicy = notice.WEBHOOK_RETRY,
    account: Path = ACCOUNT,
) -> Notice:
    """Writes the page of how a run ended, and sends the notice if somebody wants it.

    No error of these passes on: it would turn a good run red.

    Args:
        run_id: the run's id.
        state: Kubeflow's word for the end of the stages: SUCCEEDED, FAILED, ...
        message: Kubeflow's own message about the failure.
        on: statuses to send a notice of, separated by commas; `all` for every one.
        page: Markdown file to write; None writes none.
        environ: names the store of the outcome, and the receivers.
        retry: timeouts and retries of the webhook.
        account: folder with the pod's token for the Kubernetes API.

    Returns:
        The notice, whether it was sent or not.
    """
    outcome = store = None
    try:
        store = data_store(environ)
        outcome = RunOutcome.read(store, run_id)
    except Exception as error:  # noqa: BLE001
        # Without the store, Kubeflow's word still makes a notice.
        complain(error)
    if outcome is None and not message:
        message = last_words(run_id, environ, account)
    outcome = outcome_at_exit(outcome, run_id, state, message)
    note = Notice.of(outcome, state)
    print(note.text, flush=True)
    if page is not None:
        try:
            text = outcome_page(outcome, WHERE.format(run=run_id))
            page.write_text(text, encoding="utf-8")
        except Exception as error:  # noqa: BLE001
            complain(error)
    tell(note, on, environ, store=store, retry=retry)
    return note


def last_words(run_id: str, environ: Mapping[str, str], account: Path) -> str:
    """Returns why a step of the run failed, as its pod says; "" = not known.

    A step that a signal ended says nothing of why: somebody may have stopped the run.

    Args:
        run_id: the run.
        environ: names the Kubernetes API, in a pod.
        account: folder with the pod's token.
    """
    try:
        with own_api(environ, PATIENCE, account) as api:
            end = step_end(pods_of_run(api, run_id))
    except Exception as error:  # noqa: BLE001
        if environ.get("KUBERNETES_SERVICE_HOST"):
            complain(error)
        return ""
    if end is None or end.stopped or not end.sentence:
        return ""
    return f"{end.stage or end.pod}: {end.sentence}"
