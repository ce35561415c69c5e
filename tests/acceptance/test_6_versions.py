"""An uploaded version reads what lies there when it runs, never what lay there once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from plane import ENDED, Plane

pytestmark = pytest.mark.cluster


def test_a_version_sees_rows_that_changed_behind_its_source(
    plane: Plane, look: Callable[[str], None]
) -> None:
    source = plane.put_rows("version")
    workload = plane.workload("version", source)
    version = plane.name("version")
    where = ("--namespace", plane.namespace, "--store", plane.uri)
    given = ("--config", str(workload), *where, *plane.options)
    done = plane.safescale("submit", *given, "--upload-only", "--version-name", version)
    assert done.code == 0, done.last
    pipeline, found = _version(plane, version)
    plane.later(f"version {version}", lambda: _away(plane, found))
    before = _run(plane, pipeline, found, "version-before")
    look(f"safescale submit --follow {before} --namespace {plane.namespace}")
    plane.put_rows("version", seed=1, rows=8_000)
    after = _run(plane, pipeline, found, "version-after")
    models = [plane.outcome(run).model for run in (before, after)]
    assert models[0] != models[1], "The second run trained on the rows of the first."


def _version(plane: Plane, version: str) -> tuple[str, Any]:
    service = plane.kubeflow.pipelines
    for pipeline in plane.kubeflow.pages(
        "listing pipelines",
        service.pipeline_service_list_pipelines,
        "pipelines",
        **plane.kubeflow.scope,
    ):
        versions = plane.kubeflow.pages(
            "listing versions",
            service.pipeline_service_list_pipeline_versions,
            "pipeline_versions",
            pipeline_id=pipeline.pipeline_id,
        )
        for found in versions:
            if version in (found.display_name, found.name):
                return str(pipeline.pipeline_id), found
    raise AssertionError(f"Version {version} is not listed.")


def _run(plane: Plane, pipeline: str, version: Any, what: str) -> str:
    """Starts the version as its form does, with its defaults; returns the run's id."""
    import kfp_server_api as kfp

    from pipelines.kubeflow.runs import ACCOUNT, experiment_id

    body = kfp.V2beta1Run(
        display_name=plane.name(what),
        experiment_id=experiment_id(plane.kubeflow, plane.name("runs")),
        pipeline_version_reference=kfp.V2beta1PipelineVersionReference(
            pipeline_id=pipeline, pipeline_version_id=version.pipeline_version_id
        ),
        runtime_config=kfp.V2beta1RuntimeConfig(parameters={}),
        service_account=ACCOUNT,
    )
    create = plane.kubeflow.runs.run_service_create_run
    made = plane.kubeflow.call_once(f"starting {body.display_name}", create, run=body)
    run = str(made.run_id)
    plane.later(f"run {body.display_name}", lambda: plane.terminate(run))
    plane.until(
        lambda: plane.run(run).state in ENDED, f"Run {run} of the version does not end."
    )
    return run


def _away(plane: Plane, version: Any) -> None:
    plane.kubeflow.call(
        "deleting the version",
        plane.kubeflow.pipelines.pipeline_service_delete_pipeline_version,
        pipeline_id=version.pipeline_id,
        pipeline_version_id=version.pipeline_version_id,
    )
