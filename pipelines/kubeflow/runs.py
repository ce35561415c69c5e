"""Starting a run once, whatever happens to the answer.

A run bears a name of its own. If the answer to its creation is lost, the runs of that
name are listed before another try, and should a second one come of it after all, it
is stopped. So a name stands for one run.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.answers import (
    AnotherTry,
    LostAnswer,
    Rejection,
    Unreachable,
)
from pipelines.kubeflow.api import Kubeflow, equals
from pipelines.kubeflow.names import exactly
from pipelines.kubeflow.preparation import RunSpec
from pipelines.kubeflow.run_state import ENDED
from pipelines.kubeflow.same_order import check_order, is_same_order, order_digest
from safescale_ammt.config import kubernetes_names
from safescale_ammt.errors import InputError
from safescale_ammt.execution import utc_now

EXPERIMENT = "safescale"
ACCOUNT = kubernetes_names.ACCOUNT
_SETTLE = 1.0  # seconds that a server mostly needs for a request that it took
_LATEST = 120.0  # ... and at most, gateways and all
_LET_BE = (*ENDED, "CANCELING")


def new_name(stem: str) -> str:
    """Returns a name that no other run has: stem, time, six hexadecimal digits."""
    return f"{stem}-{utc_now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def experiment_id(kubeflow: Kubeflow, name: str) -> str:
    """Returns the id of an experiment in the session's namespace, made if need be.

    Raises:
        InputError: not allowed or not understood, archived, or spelled otherwise.
        Unreachable: the API stayed away.
    """
    import kfp_server_api as kfp

    experiment = kfp.V2beta1Experiment(display_name=name, namespace=kubeflow.namespace)
    for wait in kubeflow.retry.tries():
        # Looked up before each try: one whose answer was lost may have taken effect.
        page = kubeflow.call(
            f"looking for experiment {name!r}",
            kubeflow.experiments.experiment_service_list_experiments,
            filter=equals(display_name=name),
            **kubeflow.scope,
        )
        found = exactly(page.experiments or (), name, "Experiment", "display_name")
        # A run would start there all the same, where no list shows it.
        if found is not None and found.storage_state == "ARCHIVED":
            raise InputError(
                f"Experiment {name!r} is archived, and Kubeflow's pages would not "
                "list its runs; restore it there, or give another --experiment."
            )
        if found is not None:
            return str(found.experiment_id)
        with AnotherTry(wait, {409}):  # 409: somebody else was faster
            answer = kubeflow.call_once(
                f"creating experiment {name!r}",
                kubeflow.experiments.experiment_service_create_experiment,
                experiment=experiment,
            )
            return str(answer.experiment_id)
    raise Unreachable(f"Experiment {name!r} could not be created.")


def run_body(
    run_spec: RunSpec, name: str, experiment: str, account: str = ACCOUNT
) -> Any:
    """Returns the run to create; `experiment` is an id."""
    import kfp_server_api as kfp

    return kfp.V2beta1Run(
        display_name=name,
        # By the order a later call with the same name knows whether it is the same.
        description=f"{run_spec.description}\norder {order_digest(run_spec)}",
        experiment_id=experiment,
        # The spec itself: what runs is then what this machine compiled, with the digest
        # of its rows. KFP takes either a spec or a reference to an uploaded version
        # (`oneof pipeline_source`), so the description names the version.
        pipeline_spec=run_spec.pipeline.to_api(),
        runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(run_spec.parameters)),
        service_account=account,
    )


@dataclass(frozen=True)
class StartedRun:
    """A run that goes on.

    Attributes:
        id: its id.
        new: whether this call started it.
        answer_lost: whether an answer was lost on the way, so that a twin may still
            come.
        state: as it was found; "" = not looked at.
    """

    id: str
    new: bool = True
    answer_lost: bool = False
    state: str = ""

    @classmethod
    def found(cls, run: Any) -> StartedRun:
        """Returns a run that was there before this call."""
        return cls(run.run_id, new=False, state=str(run.state or ""))


def start(kubeflow: Kubeflow, body: Any) -> StartedRun:
    """Starts a run unless one of its name is there.

    Raises:
        InputError: not allowed or not understood, or the run of this name is another
            order.
        Unreachable: the API stayed away; a later call with the same name goes on.
    """
    same = runs_of_name(kubeflow, body)
    if same:
        check_order(same[0], body)
        return StartedRun.found(same[0])
    answer_lost = False
    for wait in kubeflow.retry.tries():
        try:
            run = kubeflow.call_once(
                "starting a run", kubeflow.runs.run_service_create_run, run=body
            )
            return StartedRun(run.run_id, answer_lost=answer_lost)
        except Unreachable as error:
            answer_lost = answer_lost or isinstance(error, LostAnswer)
            if not wait:
                raise
            # KFP creates the workflow before its database row, so a run that was
            # started is listed only after a while, and an id of ours would not
            # prevent a second one.
            time.sleep(max(wait, _SETTLE) if answer_lost else wait)
            same = runs_of_name(kubeflow, body) if answer_lost else []
            if same:
                return StartedRun(same[0].run_id, answer_lost=True)
    raise AssertionError("the last try returns or raises")


def keep_oldest(kubeflow: Kubeflow, body: Any, run: StartedRun) -> StartedRun:
    """Returns the one run of a name that two callers may have started at once.

    Both keep the oldest, so that they end up with the same one.
    """
    oldest, *twins = runs_of_name(kubeflow, body) or [None]
    # Who only found a run leaves the others to their callers.
    if oldest is None or not run.new:
        return run
    for twin in twins:
        if twin.state not in _LET_BE:
            stop(kubeflow, twin.run_id)
    if oldest.run_id == run.id:
        return run
    check_order(oldest, body)
    return StartedRun.found(oldest)


def twin_stopper(kubeflow: Kubeflow, body: Any, run: StartedRun) -> Callable[[], None]:
    """Returns what stops twins of a run, for as long as some may still come.

    A server that was slow, not dead, carries a request out after we gave it up.
    """
    until = time.monotonic() + (_LATEST if run.answer_lost else 0.0)

    def stop_twins() -> None:
        if time.monotonic() < until:
            for twin in runs_of_name(kubeflow, body):
                if twin.run_id != run.id and twin.state not in _LET_BE:
                    stop(kubeflow, twin.run_id)

    return stop_twins


def runs_of_name(kubeflow: Kubeflow, body: Any) -> list[Any]:
    """Returns the runs of a body's name and experiment, oldest first.

    Raises:
        InputError: one of them cannot be shown.
    """
    pages = kubeflow.pages(
        "looking for the run",
        kubeflow.runs.run_service_list_runs,
        "runs",
        experiment_id=body.experiment_id,
        filter=equals(display_name=body.display_name),
        sort_by="created_at asc",
    )
    # By time and then by id (list.go, 2.17.0), so two callers see one order. Whole
    # names are compared here: the database ignores case.
    shown = [shown_run(run) for run in pages]
    return [run for run in shown if run.display_name == body.display_name]


def is_there(kubeflow: Kubeflow, run_spec: RunSpec, experiment: str, name: str) -> bool:
    """Says whether an experiment, by its name, has a run of a name and this order."""
    body = run_body(run_spec, name, experiment_id(kubeflow, experiment))
    return any(is_same_order(run, body) for run in runs_of_name(kubeflow, body)[:1])


def shown_run(run: Any) -> Any:
    """Returns a run that the API shows whole.

    Raises:
        InputError: it shows ids and an error alone; nobody can say how such a run is.
    """
    if run.error and not run.state:
        why = " ".join(str(run.error.message or "").split()).rpartition(": ")[2]
        raise InputError(
            f"Kubeflow cannot show run {run.run_id} ({why or 'it does not say why'}); "
            "it may go on: delete it there, or give another --name."
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
            if shown_run(run).state in (ENDED if doubtful else _LET_BE):
                return
        time.sleep(wait)
    raise Unreachable(
        f"Run {run_id} is marked as being stopped, and Kubeflow did not stop its "
        "workflow; it may go on: look there, and stop it again."
    )
