"""`safescale doctor`: what a cluster lacks."""

from __future__ import annotations

import functools
import json
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
from safescale_ammt.errors import InputError

if TYPE_CHECKING:
    from pipelines.kubeflow.doctor.doctor import Doctor


@click.command()
@work_options
@functools.partial(session_options, patience=5.0)
@click.option("--skip", multiple=True, metavar="CHECK", help="Leaves a check out.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON instead of lines.")
def doctor(**given: Any) -> None:
    """Checks what a run on Kubeflow needs: one line each, and what to do.

    A check whose ground is missing is skipped, so one fault is named once. Exits
    with 2 if anything failed.
    """
    from pipelines.kubeflow.doctor.checks import FAILED, examine

    checks = _doctor(given).checks()
    names = [check.name for check in checks]
    for name in given["skip"]:
        if name not in names:
            raise click.UsageError(f"--skip {name!r} is none of: {', '.join(names)}.")
    width = max(map(len, names))
    findings = []
    for finding in examine(checks, given["skip"]):
        findings.append(finding)
        if not given["as_json"]:
            click.echo(finding.line(width))
    if given["as_json"]:
        click.echo(json.dumps([found.to_dict() for found in findings], indent=2))
    failed = [found.check for found in findings if found.state == FAILED]
    if failed:
        which = ", ".join(failed)
        raise InputError(f"{len(failed)} of {len(findings)} checks failed: {which}.")


def _doctor(given: Mapping[str, Any]) -> Doctor:
    from pipelines.kubeflow.doctor.cluster import Cluster
    from pipelines.kubeflow.doctor.doctor import Doctor
    from pipelines.kubeflow.doctor.quota import needs
    from pipelines.kubeflow.preparation import needs_of

    # One session for all checks; opening it is the first check's business.
    kubeflow = functools.cache(lambda: kubeflow_of(given))
    work = needs_of(request_of(given, (), cache=True))
    training = work.training
    trainjob = training.backend == "trainjob"
    cluster = Cluster(
        namespace=given["namespace"],
        account=given["account"],
        runtime=training.runtime,
        trains_there=trainjob,
        multi_user=lambda: bool(kubeflow().health.get("multi_user")),
        environ=os.environ,
        patience=given["patience"],
    )
    return Doctor(
        kubeflow,
        cluster,
        needs(work.parameters, training.nodes, trainjob=trainjob),
        store_of(given),
        work.source,
        os.environ,
    )
