"""`safescale submit`: a run on a cluster, from a workload file to its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow import runs
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.follow import (
    Watch,
    ending,
    follow,
    how_on,
    read_record,
)
from pipelines.kubeflow.preparation import Order, prepare, titles
from pipelines.local import Interruptions
from pipelines.progress import Progress, progress_for
from safescale_ammt.errors import InputError, Interrupted

TIMEOUT = 86400.0
"""Seconds that a run is followed for unless told otherwise."""


@dataclass(frozen=True)
class Submission:
    """How a run is to be started and followed.

    Attributes:
        order: what it is; None follows the run `name` that is there already.
        name: its name, or the id of the run to follow; "" = a new name.
        experiment: groups runs in Kubeflow's pages.
        account: Kubernetes service account of its pods.
        wait: whether it is followed to its end.
        timeout: seconds that it is followed for.
        poll: seconds between two looks.
        stop: whether a signal stops the run, too.
        store: URI of the store with the gate's records; "" = not known here.
    """

    order: Order | None
    name: str = ""
    experiment: str = runs.EXPERIMENT
    account: str = runs.ACCOUNT
    wait: bool = True
    timeout: float = TIMEOUT
    poll: float = 5.0
    stop: bool = False
    store: str = ""


def submit(kubeflow: Kubeflow, wanted: Submission) -> str:
    """Starts or finds a run, follows it, and returns its last sentence.

    Raises:
        Refusal: the gate refused.
        InputError: what was given cannot be used, here or by Kubeflow.
        SafescaleError: the run broke off, or nobody can tell how it ended.
    """
    with Interruptions():
        kubeflow.require_version()
        if wanted.order is None:
            run_id, known = wanted.name, titles(_spec_of(kubeflow, wanted.name))
        else:
            run_id, known = _start(kubeflow, wanted, wanted.order)
        if not wanted.wait:
            return f"Run {run_id} goes on; {how_on(run_id)}"
        with progress_for(run_id[:8]) as progress:
            run = _followed(kubeflow, wanted, run_id, Watch(progress, known))
        return ending(run, read_record(wanted.store, run), known)


def _start(
    kubeflow: Kubeflow, wanted: Submission, order: Order
) -> tuple[str, dict[str, str]]:
    """Starts a run; returns its id and the titles of its tasks."""
    prepared = prepare(order)
    name = runs.check_name(wanted.name or runs.new_name(prepared.name))
    experiment = runs.experiment_id(kubeflow, wanted.experiment)
    body = runs.run_body(prepared, name, experiment, wanted.account)
    run_id, new = runs.start(kubeflow, body)
    did = "started" if new else "is there already"
    Progress(run_id[:8]).say(f"run {name!r} {did}: {page(kubeflow, run_id)}")
    return run_id, prepared.titles


def page(kubeflow: Kubeflow, run_id: str) -> str:
    """Returns the address of a run's page."""
    return f"{kubeflow.session.host}/#/runs/details/{run_id}"


def _followed(kubeflow: Kubeflow, wanted: Submission, run_id: str, watch: Watch) -> Any:
    """Follows a run; a signal ends the following and, if asked, the run."""
    try:
        return follow(kubeflow, run_id, watch, timeout=wanted.timeout, poll=wanted.poll)
    except Interrupted:
        watch.progress.close()
        if not wanted.stop:
            raise Interrupted(
                f"Run {run_id} goes on without us; {how_on(run_id)}"
            ) from None
        runs.stop(kubeflow, run_id)
        raise Interrupted(f"Run {run_id} is being stopped, as asked.") from None


def _spec_of(kubeflow: Kubeflow, run_id: str) -> Any:
    """Returns the pipeline of a run that is there.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    run = kubeflow.ask(
        f"looking for run {run_id}", kubeflow.runs.run_service_get_run, run_id=run_id
    )
    spec = run.pipeline_spec
    if not spec and run.pipeline_version_reference:
        reference = run.pipeline_version_reference
        spec = kubeflow.ask(
            "reading its pipeline",
            kubeflow.pipelines.pipeline_service_get_pipeline_version,
            pipeline_id=reference.pipeline_id,
            pipeline_version_id=reference.pipeline_version_id,
        ).pipeline_spec
    if not spec or "register-model" not in titles(spec):
        raise InputError(f"Run {run_id} is no run of the training pipeline.")
    return spec
