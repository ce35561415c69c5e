"""Starting a run once, whatever happens to the answer.

A run bears a name of its own. If the answer to its creation is lost, the API is
asked for a run of that name before another try, and should a second one come of it
after all, it is stopped. So a name stands for one run.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.answers import Answered, Unanswered, Unreachable
from pipelines.kubeflow.api import Kubeflow, equals
from pipelines.kubeflow.preparation import RunSpec
from safescale_ammt.errors import InputError
from safescale_ammt.execution import utc_now

EXPERIMENT = "safescale"
ACCOUNT = "safescale-pipeline"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")
_SETTLE = 1.0  # seconds that a server needs as a rule for an order that it took
_STRAGGLES = 120.0  # ... and at most, gateways and all
_OVER = ("SUCCEEDED", "FAILED", "CANCELED", "CANCELING", "SKIPPED")


def new_name(stem: str) -> str:
    """Returns a name that no other run has: stem, time, six hexadecimal digits."""
    return f"{stem}-{utc_now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def check_name(name: str, option: str = "--name") -> str:
    """Returns a name that Kubeflow takes.

    Raises:
        InputError: it is empty, too long, or holds other characters.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{option} {name[:140]!r} is no name: 1-128 letters, digits, blanks, dots, "
            "underscores and hyphens are expected, a letter or digit first."
        )
    return name


def experiment_id(kubeflow: Kubeflow, name: str) -> str:
    """Returns the id of an experiment in the session's namespace, made if need be."""
    import kfp_server_api as kfp

    def look() -> str | None:
        found = kubeflow.ask(
            f"looking for experiment {name!r}",
            kubeflow.experiments.experiment_service_list_experiments,
            filter=equals(display_name=name),
            **_where(kubeflow),
        )
        return found.experiments[0].experiment_id if found.experiments else None

    wanted = kfp.V2beta1Experiment(display_name=name, namespace=kubeflow.namespace)
    for wait in kubeflow.retry.tries():
        known = look()
        if known:
            return known
        try:
            made = kubeflow.order(
                f"creating experiment {name!r}",
                kubeflow.experiments.experiment_service_create_experiment,
                experiment=wanted,
            )
        except Unreachable:
            if not wait:
                raise
        except Answered as error:
            if error.status != 409:  # 409: somebody else was faster
                raise
        else:
            return str(made.experiment_id)
        time.sleep(wait)
    raise Unreachable(f"Experiment {name!r} could not be created.")


def run_body(
    prepared: RunSpec, name: str, experiment: str, account: str = ACCOUNT
) -> Any:
    """Returns the run to create."""
    import kfp_server_api as kfp

    return kfp.V2beta1Run(
        display_name=name,
        experiment_id=experiment,
        pipeline_spec=prepared.pipeline.to_api(),
        runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(prepared.parameters)),
        service_account=account,
    )


@dataclass(frozen=True)
class Started:
    """A run that goes on.

    Attributes:
        id: its id.
        new: whether this call started it.
        lost: whether an answer was lost on the way, so that a twin may still come.
    """

    id: str
    new: bool = True
    lost: bool = False


def start(kubeflow: Kubeflow, body: Any) -> Started:
    """Starts a run unless one of its name is there.

    Raises:
        InputError: not allowed or not understood.
        Unreachable: the API stayed away; a later call with the same name goes on.
    """
    found = named(kubeflow, body)
    if found:
        return Started(found[0].run_id, new=False)
    lost = False
    for wait in kubeflow.retry.tries():
        try:
            made = kubeflow.order(
                "starting a run", kubeflow.runs.run_service_create_run, run=body
            )
            return Started(made.run_id, lost=lost)
        except Unreachable as error:
            lost = lost or isinstance(error, Unanswered)
            if not wait:
                raise
            time.sleep(max(wait, _SETTLE) if lost else wait)
            found = named(kubeflow, body) if lost else []
            if found:
                return Started(found[0].run_id, lost=True)
    raise AssertionError("the last try returns or raises")


def alone(kubeflow: Kubeflow, body: Any, started: Started) -> Started:
    """Returns the one run of a name that two callers may have started at once.

    Both keep the oldest, so that they end up with the same one.
    """
    first, *twins = named(kubeflow, body) or [None]
    if first is None or not started.new:
        return started
    for twin in twins:
        if twin.state not in _OVER:
            stop(kubeflow, twin.run_id)
    return started if first.run_id == started.id else Started(first.run_id, new=False)


def sweeper(kubeflow: Kubeflow, body: Any, started: Started) -> Callable[[], None]:
    """Returns what stops twins of a run, for as long as some may still come.

    A server that was slow, not deaf, carries out an order after we gave it up.
    """
    until = time.monotonic() + (_STRAGGLES if started.lost else 0.0)

    def sweep() -> None:
        if time.monotonic() < until:
            for twin in named(kubeflow, body):
                if twin.run_id != started.id and twin.state not in _OVER:
                    stop(kubeflow, twin.run_id)

    return sweep


def named(kubeflow: Kubeflow, body: Any) -> list[Any]:
    """Returns the runs of a body's name and experiment, oldest first."""
    found = kubeflow.pages(
        "looking for the run",
        kubeflow.runs.run_service_list_runs,
        "runs",
        experiment_id=body.experiment_id,
        filter=equals(display_name=body.display_name),
        sort_by="created_at asc",
    )
    return sorted(found, key=lambda run: (run.created_at, run.run_id))


def stop(kubeflow: Kubeflow, run_id: str) -> None:
    """Stops a run; one that has ended meanwhile is no error."""
    try:
        kubeflow.ask(
            f"stopping run {run_id}",
            kubeflow.runs.run_service_terminate_run,
            run_id=run_id,
        )
    except Answered as error:
        if error.status != 400:
            raise


def _where(kubeflow: Kubeflow) -> Mapping[str, str]:
    return {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
