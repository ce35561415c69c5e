"""`safescale submit`: a run on a cluster, from a workload file to its verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from pipelines.interruptions import Interruptions
from pipelines.ir import CompiledPipeline
from pipelines.kubeflow import runs
from pipelines.kubeflow.answers import Rejection
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.attempts import attempt_names, check_attempts, try_again
from pipelines.kubeflow.cluster_view import ClusterView
from pipelines.kubeflow.endings import (
    Ending,
    conclude,
    ended_unseen,
    gate_may_speak,
    read_record,
    tell_end,
)
from pipelines.kubeflow.follow import RunFollower, RunGone, follow, follow_hint
from pipelines.kubeflow.names import check_name
from pipelines.kubeflow.preparation import KubeflowRequest, RunSpec, prepare
from pipelines.kubeflow.promotion import PromotionRequest
from pipelines.kubeflow.run_state import ENDED, GATES
from pipelines.progress import Progress
from pipelines.progress_choice import progress_for
from safescale_ammt.errors import InputError, Interrupted
from safescale_ammt.execution import error_of
from safescale_ammt.releasing.notice import CANCELLED

TIMEOUT = 86400.0
"""Seconds that a run is followed for by default."""


@dataclass(frozen=True)
class SubmitRequest:
    """How a run is to be started and followed.

    Attributes:
        new_run: what it shall be; None follows the run `name` that is there already.
        name: its name, or the id of the run to follow; "" = a new name.
        experiment: groups runs in Kubeflow's pages.
        account: Kubernetes service account of its pods.
        wait: whether it is followed to its end.
        timeout: seconds that it is followed for.
        poll: seconds between two looks.
        stop: whether a signal stops the run, too.
        store: URI of the store with the gate's records; "" = not known here.
        attempts: runs that may be started in turn where the cluster breaks one off.
    """

    new_run: KubeflowRequest | PromotionRequest | None
    name: str = ""
    experiment: str = runs.EXPERIMENT
    account: str = runs.ACCOUNT
    wait: bool = True
    timeout: float = TIMEOUT
    poll: float = 5.0
    stop: bool = False
    store: str = ""
    attempts: int = 1


@dataclass(frozen=True)
class FollowedRun:
    """A run that was started or found.

    Attributes:
        id: its id.
        titles: task name -> title.
        name: its name; "" = it was found by its id.
        stop_twins: stops twins that a lost answer may have left.
        state: as it was found; "" = it was started just now.
    """

    id: str
    titles: Mapping[str, str]
    name: str = ""
    stop_twins: Callable[[], None] = lambda: None
    state: str = ""


def submit(kubeflow: Kubeflow, request: SubmitRequest) -> str:
    """Starts or finds a run, follows it, and returns its last sentence.

    Raises:
        Refusal: the gate refused.
        InputError: what was given cannot be used, here or by Kubeflow.
        Interrupted: a signal ended the following and, if asked, the run.
        SafescaleError: the run broke off, or nobody can tell how it ended.
    """
    with Interruptions():
        run_spec = None
        if request.new_run is None:
            kubeflow.require_version()
            run = find_run(kubeflow, request.name)
        else:
            # What is wrong on this machine is said before any server is contacted. And
            # once: who edits the files meanwhile orders nothing by that.
            order = request.new_run
            run_spec = (
                order.run_spec()
                if isinstance(order, PromotionRequest)
                else prepare(order)
            )
            run = _start(kubeflow, request, run_spec)
        if not request.wait and run.state not in ENDED:
            # The only chance: nobody looks for twins once this process has ended.
            run.stop_twins()
            return f"Run {run.id} goes on; {follow_hint(run.id)}"
        end = time.monotonic() + request.timeout

        def start(name: str) -> Ending:
            left = max(request.poll, end - time.monotonic())
            named = replace(request, name=name, timeout=left, attempts=1)
            assert run_spec is not None
            return follow_and_tell(kubeflow, named, _start(kubeflow, named, run_spec))

        ending = follow_and_tell(kubeflow, request, run)
        if run_spec is not None:
            say = Progress(run.name).say
            there = partial(runs.is_there, kubeflow, run_spec, request.experiment)
            names = attempt_names(run.name, request.attempts)
            ending = try_again(ending, names, start, there, say)
    if ending.code:
        raise error_of(ending.code, ending.sentence)
    return ending.sentence


def follow_and_tell(
    kubeflow: Kubeflow, request: SubmitRequest, run: FollowedRun
) -> Ending:
    """Follows a run to its end, and tells who is to be told if nobody else did.

    Raises:
        Interrupted: a signal came.
        SafescaleError: the time is up, or we have not been let in for too long.
    """
    namespace = kubeflow.session.namespace
    view, answer = ClusterView(namespace, os.environ), None
    with progress_for(run.id[:8]) as progress:
        try:
            answer = follow(
                kubeflow,
                run.id,
                RunFollower(progress, run.titles, view),
                timeout=request.timeout,
                poll=request.poll,
                after_look=run.stop_twins,
            )
        except Interrupted:
            progress.close()
            if not request.stop:
                raise Interrupted(
                    f"Run {run.id} goes on without us; {follow_hint(run.id)}"
                ) from None
            raise Interrupted(stop(kubeflow, request, run, progress.say)) from None
        except RunGone as error:
            progress.close()
            record = read_record(request.store, run.id, wait=False)
            ending = ended_unseen(str(error), record)
        else:
            record = read_record(request.store, run.id, wait=gate_may_speak(answer))
            look = partial(view.step_end, run.id)
            ending = conclude(
                answer, record, run.titles, namespace=namespace, look=look
            )
        tell_end(ending, run.id, request.store, answer, say=progress.say)
    return ending


def stop(
    kubeflow: Kubeflow,
    request: SubmitRequest,
    run: FollowedRun,
    say: Callable[[str], None],
) -> str:
    """Stops a run that a signal was to stop, and tells of it; returns the sentence."""
    runs.stop(kubeflow, run.id)
    sentence = f"Run {run.id} is being stopped, as asked."
    # Now: its exit task may come or not, and whoever comes second is silent.
    tell_end(Ending(CANCELLED, sentence, 1), run.id, request.store, say=say)
    return sentence


def _start(
    kubeflow: Kubeflow, request: SubmitRequest, run_spec: RunSpec
) -> FollowedRun:
    """Starts a run, or finds the one that has its name."""
    check_attempts(request.name, request.attempts)
    name = check_name(request.name or runs.new_name(run_spec.name))
    group = check_name(request.experiment, "--experiment")
    kubeflow.require_version()
    experiment = runs.experiment_id(kubeflow, group)
    body = runs.run_body(run_spec, name, experiment, request.account)
    run = runs.start(kubeflow, body)
    if request.name:  # a name of the caller's own may be another caller's, too
        run = runs.keep_oldest(kubeflow, body, run)
    event = "started" if run.new else "is there already"
    progress = Progress(run.id[:8])
    progress.say(f"run {name!r} {event}: {page(kubeflow, run.id)}")
    if run.new and run_spec.anew:
        progress.say(run_spec.anew)
    stop_twins = runs.twin_stopper(kubeflow, body, run)
    return FollowedRun(run.id, run_spec.pipeline.titles, name, stop_twins, run.state)


def page(kubeflow: Kubeflow, run_id: str) -> str:
    """Returns the address of a run's page; the front end routes by the fragment."""
    return f"{kubeflow.session.host}/#/runs/details/{run_id}"


def find_run(kubeflow: Kubeflow, run_id: str) -> FollowedRun:
    """Returns a run that is there.

    Raises:
        InputError: there is none, or it is not one of ours.
    """
    try:
        find = kubeflow.runs.run_service_get_run
        run = kubeflow.call(f"looking for run {run_id}", find, run_id=run_id)
    except Rejection as error:
        if error.status != 404:
            raise
        raise InputError(
            f"There is no such run at {kubeflow.session.host}: {run_id!r}; --follow "
            "takes the id that `safescale submit` printed."
        ) from None
    # A run of an uploaded version holds a reference in place of the pipeline.
    spec = runs.shown_run(run).pipeline_spec
    if not spec and (reference := run.pipeline_version_reference):
        spec = kubeflow.call(
            "reading its pipeline",
            kubeflow.pipelines.pipeline_service_get_pipeline_version,
            pipeline_id=reference.pipeline_id,
            pipeline_version_id=reference.pipeline_version_id,
        ).pipeline_spec
    titles = CompiledPipeline.from_api(spec).titles if spec else {}
    # Of another pipeline's run nobody could say how it ended: it leaves no record.
    if not GATES & titles.keys():
        raise InputError(f"Run {run_id} is no run of a pipeline of ours.")
    return FollowedRun(run_id, titles, state=str(run.state or ""))
