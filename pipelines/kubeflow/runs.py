"""Starting a run once, whatever happens to the answer.

A run bears a name of its own. If the answer to its creation is lost, the API is
asked for a run of that name before another try, and should two have come of it,
the younger one is stopped. So a name stands for one run.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from pipelines.kubeflow.api import Answered, Kubeflow, Unanswered, Unreachable, equals
from pipelines.kubeflow.preparation import Prepared
from safescale_ammt.errors import InputError
from safescale_ammt.execution import utc_now

EXPERIMENT = "safescale"
ACCOUNT = "safescale-pipeline"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")
_SETTLE = 1.0  # seconds that a server may still need for an order it took


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
    for wait in kubeflow.patience.tries():
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
    prepared: Prepared, name: str, experiment: str, account: str = ACCOUNT
) -> Any:
    """Returns the run to create."""
    import kfp_server_api as kfp

    return kfp.V2beta1Run(
        display_name=name,
        experiment_id=experiment,
        pipeline_spec=prepared.spec,
        runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(prepared.parameters)),
        service_account=account,
    )


def start(kubeflow: Kubeflow, body: Any) -> tuple[str, bool]:
    """Starts a run unless one of its name is there.

    Returns:
        The run's id, and whether this call started it.

    Raises:
        InputError: not allowed or not understood.
        Unreachable: the API stayed away; a later call with the same name goes on.
    """
    found = named(kubeflow, body)
    if found:
        return found[0].run_id, False
    lost = False
    for wait in kubeflow.patience.tries():
        try:
            made = kubeflow.order(
                "starting a run", kubeflow.runs.run_service_create_run, run=body
            )
        except Unreachable as error:
            lost = lost or isinstance(error, Unanswered)
            if not wait:
                raise
            time.sleep(max(wait, _SETTLE) if lost else wait)
            found = named(kubeflow, body) if lost else []
            if found:
                return _only(kubeflow, found), True
        else:
            if lost:
                return _only(kubeflow, named(kubeflow, body)), True
            return str(made.run_id), True
    raise Unreachable("The run could not be started.")


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


def _only(kubeflow: Kubeflow, found: list[Any]) -> str:
    """Keeps the oldest of equal runs and stops the others."""
    for extra in found[1:]:
        stop(kubeflow, extra.run_id)
    return str(found[0].run_id)


def _where(kubeflow: Kubeflow) -> Mapping[str, str]:
    return {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
