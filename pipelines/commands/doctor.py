"""`safescale doctor`: what a cluster lacks for a run."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.kubeflow_options import (
    kubeflow_of,
    request_of,
    session_options,
    store_of,
    work_options,
)
from pipelines.output import say, say_json
from safescale_ammt.errors import InputError, one_of

if TYPE_CHECKING:
    from pipelines.kubeflow.doctor.doctor import Doctor


@click.command()
@work_options
@functools.partial(session_options, patience=5.0)
@click.option("--skip", multiple=True, metavar="CHECK", help="Leaves a check out.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON instead of lines.")
def doctor(**options: Any) -> None:
    """Checks what a run on Kubeflow needs: one line each, and what to do.

    A check whose ground is missing is skipped, so one fault is named once. Exits
    with 2 if anything failed.
    """
    from pipelines.kubeflow.doctor.checks import FAILED, examine

    checks = _doctor(options).checks()
    names = [check.name for check in checks]
    # Here, not as a click.Choice: the names depend on the workload's backend.
    for name in options["skip"]:
        if name not in names:
            raise click.UsageError(f"--skip is {name!r}, {one_of(names, name)}.")
    width = max(map(len, names))
    results = []
    for result in examine(checks, options["skip"]):
        results.append(result)
        # At once: a check may wait as long as --patience says.
        if not options["as_json"]:
            say(result.line(width))
    if options["as_json"]:
        say_json([result.to_dict() for result in results])
    failures = [result.check for result in results if result.state == FAILED]
    if failures:
        which = ", ".join(failures)
        raise InputError(f"{len(failures)} of {len(results)} checks failed: {which}.")


def _doctor(options: Mapping[str, Any]) -> Doctor:
    """Returns the doctor that the options describe; contacts nobody yet."""
    from pipelines.kubeflow.doctor.cluster import Cluster
    from pipelines.kubeflow.doctor.doctor import Doctor
    from pipelines.kubeflow.doctor.quota import resources_of
    from pipelines.kubeflow.preparation import needs_of

    # One session for all checks; opening it is the first check's business.
    kubeflow = functools.cache(lambda: kubeflow_of(options))
    workload = needs_of(request_of(options, (), cache=True))
    training = workload.training
    cluster = Cluster(
        namespace=options["namespace"],
        account=options["account"],
        runtime=training.runtime,
        trainjob=training.backend == "trainjob",
        multi_user=lambda: bool(kubeflow().health.get("multi_user")),
        environ=os.environ,
        patience=options["patience"],
        spark=workload.spark,
    )
    return Doctor(
        kubeflow,
        cluster,
        resources_of(workload.parameters, training),
        store_of(options),
        workload.source,
        os.environ,
    )
