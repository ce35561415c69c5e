"""`safescale submit`: a run on a cluster, from a workload file to its verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.interruptions import Interruptions
from pipelines.ir import CompiledPipeline
from pipelines.kubeflow import runs
from pipelines.kubeflow.answers import Answered
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.follow import (
    RunFollower,
    ending,
    follow,
    how_on,
    read_record,
)
from pipelines.kubeflow.preparation import KubeflowRequest, prepare
from pipelines.progress import Progress, progress_for
from safescale_ammt.errors import InputError, Interrupted

TIMEOUT = 86400.0
"""Seconds that a run is followed for unless told otherwise."""


@dataclass(frozen=True)
class SubmitRequest:
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

    order: KubeflowRequest | None
    name: str = ""
    experiment: str = runs.EXPERIMENT
    account: str = runs.ACCOUNT
    wait: bool = True
    timeout: float = TIMEOUT
    poll: float = 5.0
    stop: bool = False
    store: str = ""


@dataclass(frozen=True)
class Going:
    """A run that goes on.

    Attributes:
        id: its id.
        titles: task name -> title.
        sweep: stops twins that a lost answer may have left.
    """

    id: str
    titles: Mapping[str, str]
    sweep: Callable[[], None] = lambda: None


def submit(kubeflow: Kubeflow, wanted: SubmitRequest) -> str:
    """Starts or finds a run, follows it, and returns its last sentence.

    Raises:
        Refusal: the gate refused.
        InputError: what was given cannot be used, here or by Kubeflow.
        SafescaleError: the run broke off, or nobody can tell how it ended.
    """
    with Interruptions():
        if wanted.order is None:
            kubeflow.require_version()
            going = Going(wanted.name, _titles_of(kubeflow, wanted.name))
        else:
            going = _start(kubeflow, wanted, wanted.order)
        if not wanted.wait:
            going.sweep()
            return f"Run {going.id} goes on; {how_on(going.id)}"
        with progress_for(going.id[:8]) as progress:
            run = _followed(
                kubeflow, wanted, going, RunFollower(progress, going.titles)
            )
        return ending(run, read_record(wanted.store, run), going.titles)


def _start(kubeflow: Kubeflow, wanted: SubmitRequest, order: KubeflowRequest) -> Going:
    """Starts a run, or finds the one that has its name.

    What is wrong on this machine is said before any server is asked.
    """
    prepared = prepare(order)
    name = runs.check_name(wanted.name or runs.new_name(prepared.name))
    group = runs.check_name(wanted.experiment, "--experiment")
    kubeflow.require_version()
    experiment = runs.experiment_id(kubeflow, group)
    body = runs.run_body(prepared, name, experiment, wanted.account)
    started = runs.start(kubeflow, body)
    if wanted.name:  # a name of the caller's own may be another's, too
        started = runs.alone(kubeflow, body, started)
    did = "started" if started.new else "is there already"
    line = f"run {name!r} {did}: {page(kubeflow, started.id)}"
    Progress(started.id[:8]).say(line)
    sweep = runs.sweeper(kubeflow, body, started)
    return Going(started.id, prepared.pipeline.titles, sweep)


def page(kubeflow: Kubeflow, run_id: str) -> str:
    """Returns the address of a run's page."""
    return f"{kubeflow.session.host}/#/runs/details/{run_id}"


def _followed(
    kubeflow: Kubeflow, wanted: SubmitRequest, going: Going, watch: RunFollower
) -> Any:
    """Follows a run; a signal ends the following and, if asked, the run."""
    try:
        return follow(
            kubeflow,
            going.id,
            watch,
            timeout=wanted.timeout,
            poll=wanted.poll,
            each=going.sweep,
        )
    except Interrupted:
        watch.progress.close()
        if not wanted.stop:
            raise Interrupted(
                f"Run {going.id} goes on without us; {how_on(going.id)}"
            ) from None
        runs.stop(kubeflow, going.id)
        raise Interrupted(f"Run {going.id} is being stopped, as asked.") from None


def _titles_of(kubeflow: Kubeflow, run_id: str) -> dict[str, str]:
    """Returns task name -> title of a run that is there.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    try:
        run = kubeflow.ask(
            f"looking for run {run_id}",
            kubeflow.runs.run_service_get_run,
            run_id=run_id,
        )
    except Answered as error:
        if error.status != 404:
            raise
        raise InputError(
            f"There is no such run at {kubeflow.session.host}: {run_id!r}; --follow "
            "takes the id that `safescale submit` printed."
        ) from None
    spec = run.pipeline_spec
    if not spec and run.pipeline_version_reference:
        reference = run.pipeline_version_reference
        spec = kubeflow.ask(
            "reading its pipeline",
            kubeflow.pipelines.pipeline_service_get_pipeline_version,
            pipeline_id=reference.pipeline_id,
            pipeline_version_id=reference.pipeline_version_id,
        ).pipeline_spec
    titles = CompiledPipeline.from_api(spec).titles if spec else {}
    if "register-model" not in titles:
        raise InputError(f"Run {run_id} is no run of the training pipeline.")
    return titles
