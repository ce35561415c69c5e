"""Stopping a run for certain, and what Kubeflow shows of a run that it cannot read.

KFP marks a run as CANCELING before it stops its workflow, so an answer that was lost
leaves three cases: nothing was done, only the mark was set, or all was done.
"""

from __future__ import annotations

import time
from typing import Any

from pipelines.kubeflow.answers import Rejection, Unreachable
from pipelines.kubeflow.api import Kubeflow
from safescale_ammt.errors import InputError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
STOPPING = (*ENDED, "CANCELING")
"""States of a run that needs no stop."""


def shown_run(run: Any) -> Any:
    """Returns a run that the API shows whole.

    Raises:
        InputError: it shows ids and an error alone; nobody can say how such a run is.
    """
    if run.error and not run.state:
        why = " ".join(str(run.error.message or "").split()).rpartition(": ")[2]
        raise InputError(
            f"Kubeflow cannot show run {run.run_id} ({why or 'it does not say why'}); "
            "delete it there, or give another --name."
        )
    return run


def stop(kubeflow: Kubeflow, run_id: str) -> None:
    """Stops a run; one that has ended meanwhile is no error.

    KFP marks the run before it stops the workflow, and refuses (400) whatever is not
    running. So after an answer that was lost a refusal says nothing: the run may have
    ended, or be marked alone, and then it goes on (run_store.go:823-843,
    resource_manager.go:1042-1063, 2.17.0).

    Raises:
        InputError: not allowed, not found, or not shown.
        Unreachable: the API stayed away, or cannot reach the workflow.
    """
    doubtful = False
    for wait in kubeflow.retry.tries():
        try:
            kubeflow.call_once(
                f"stopping run {run_id}",
                kubeflow.runs.run_service_terminate_run,
                run_id=run_id,
            )
            return
        except Unreachable:
            if not wait:
                raise
            doubtful = True
        except Rejection as error:
            if error.status != 400:
                raise
            find = kubeflow.runs.run_service_get_run
            run = kubeflow.call(f"looking at run {run_id}", find, run_id=run_id)
            if shown_run(run).state in (ENDED if doubtful else STOPPING):
                return
        time.sleep(wait)
    raise Unreachable(
        f"Run {run_id} is marked as being stopped, and Kubeflow did not stop its "
        "workflow; it may go on: look there, and stop it again."
    )
