"""`safescale submit --upload-only`: the pipeline as a version that people can start.

A version's name is `<semver>-<commit>`. The same name stands for the same bytes:
a second upload of them changes nothing, one of other bytes is refused.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.ir import CompiledPipeline
from pipelines.kubeflow.answers import AnotherTry, Unreachable
from pipelines.kubeflow.api import Kubeflow, equals
from pipelines.kubeflow.names import check_dns_name, check_name, exactly
from pipelines.kubeflow.preparation import VersionFile
from pipelines.kubeflow.revision import Revision
from pipelines.kubeflow.runs import ACCOUNT
from safescale_ammt.errors import InputError, IntegrityError

_LONGEST = 127  # bytes of a version's name (validation/length.go, 2.17.0)


def version_name(environ: Mapping[str, str] = os.environ) -> str:
    """Returns `<semver>-<commit>` of the code that is running.

    Raises:
        InputError: the commit is not known, or the working tree is another.
    """
    revision = Revision.find(environ)
    if revision.changed:
        raise InputError(
            "The working tree has changes that no commit holds; commit them, or "
            "name the version with --version-name."
        )
    if not revision.commit:
        raise InputError(
            "The commit of this code is not known (no git, no GITHUB_SHA or "
            "CI_COMMIT_SHA); name the version with --version-name."
        )
    return revision.version


def upload(
    kubeflow: Kubeflow, file: VersionFile, version: str, account: str = ACCOUNT
) -> str:
    """Brings a compiled pipeline to Kubeflow as a version; returns a sentence.

    Args:
        kubeflow: where to.
        file: the pipeline, and what it is made of.
        version: name of the version.
        account: service account that the pipeline's page names.

    Raises:
        IntegrityError: a version of this name holds another pipeline.
        InputError: not allowed, or not understood.
        Unreachable: the API stayed away.
    """
    check_name(version, "--version-name", _LONGEST)
    kubeflow.require_version()
    check_dns_name(kubeflow, version, "--version-name")
    spec = CompiledPipeline.parse(file.text)
    name = spec.name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")  # the generated client takes a path alone
        path.write_text(file.text, encoding="utf-8")
        for wait in kubeflow.retry.tries():
            # Looked up before each try: if an answer was lost, it may be there.
            pipeline, existing = _look_up(kubeflow, name, version)
            if existing is not None:
                found = CompiledPipeline.from_api(existing.pipeline_spec or {})
                if _plain(found) != _plain(spec):
                    raise IntegrityError(
                        f"Version {version} is there already and holds another "
                        "pipeline; nothing was uploaded: a version never changes."
                    )
                return f"Version {version} of {name} is there, with these very bytes."
            with AnotherTry(wait, {409} if wait else ()):  # 409: another was faster
                if pipeline is None:
                    pipeline = create_pipeline(kubeflow, name, spec, account)
                kubeflow.call_once(
                    f"uploading version {version}",
                    kubeflow.uploads.upload_pipeline_version,
                    uploadfile=str(path),
                    name=version,
                    display_name=version,
                    description=file.description,
                    pipelineid=pipeline.pipeline_id,
                )
                return f"Uploaded version {version} of {name}."
    raise Unreachable(f"Version {version} could not be uploaded.")


def create_pipeline(
    kubeflow: Kubeflow, name: str, spec: CompiledPipeline, account: str
) -> Any:
    """Makes a pipeline without a version, and returns it.

    Uploaded with its first one, that would bear the pipeline's name beside ours.

    Args:
        kubeflow: where.
        name: of the pipeline.
        spec: whose title and description it gets.
        account: service account that the description names.

    Raises:
        Rejection: not allowed, or of this name one is there.
        Unreachable: the API stayed away.
    """
    import kfp_server_api as kfp

    info = spec.graph["pipelineInfo"]
    pipeline = kfp.V2beta1Pipeline(
        name=name,
        display_name=info.get("displayName", name),
        description=str(info.get("description", "")).replace(ACCOUNT, account),
        namespace=kubeflow.namespace,
    )
    return kubeflow.call_once(
        f"creating pipeline {name}",
        kubeflow.pipelines.pipeline_service_create_pipeline,
        pipeline=pipeline,
    )


def _look_up(kubeflow: Kubeflow, name: str, version: str) -> tuple[Any, Any]:
    """Returns a pipeline and its version of a name; None for what is not there."""
    page = kubeflow.call(
        f"looking for pipeline {name}",
        kubeflow.pipelines.pipeline_service_list_pipelines,
        filter=equals(name=name),
        **kubeflow.scope,
    )
    pipeline = exactly(page.pipelines or (), name, "Pipeline")
    if pipeline is None:
        return None, None
    versions = kubeflow.pages(
        f"looking for version {version}",
        kubeflow.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline.pipeline_id,
        filter=equals(name=version),
    )
    return pipeline, exactly(versions, version, "Version")


def _plain(pipeline: CompiledPipeline) -> tuple[Any, Any]:
    """Brings a pipeline into one form: the API gives numbers as 1.0, not as 1."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    # A newer server may add fields, which are no difference of ours.
    graph = json_format.ParseDict(
        pipeline.graph, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=True
    )
    platform = json_format.ParseDict(
        pipeline.platform, pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=True
    )
    return json_format.MessageToDict(graph), json_format.MessageToDict(platform)
