"""`safescale submit --upload-only`: the pipeline as a version that people can start.

A version's name is `<semver>-<commit>`. The same name stands for the same bytes:
a second upload of them changes nothing, one of other bytes is refused.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.ir import CompiledPipeline
from pipelines.kubeflow.answers import AnotherTry, Unreachable
from pipelines.kubeflow.api import Kubeflow, equals
from pipelines.kubeflow.orders import exactly
from pipelines.kubeflow.runs import check_name
from safescale_ammt import __version__
from safescale_ammt.errors import InputError, IntegrityError

PIPELINE = "safescale-train"
# GitHub's, GitLab's and Jenkins' variable: a job may run from an image without git.
_COMMIT = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT")
_SHORT = 12  # digits of a commit


def version_name(environ: Mapping[str, str] = os.environ) -> str:
    """Returns `<semver>-<commit>` of the code that is running.

    Raises:
        InputError: the commit is not known, or the working tree is another.
    """
    commit = next((environ[name] for name in _COMMIT if environ.get(name)), "")
    if not commit:
        root = Path(__file__).parents[2]
        commit = _git(root, "rev-parse", "HEAD")
        # A file that git does not track is no part of the code that a commit names.
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
        if changes:
            raise InputError(
                "The working tree has changes that no commit holds; commit them, or "
                "name the version with --version-name."
            )
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        raise InputError(
            "The commit of this code is not known (no git, no GITHUB_SHA or "
            "CI_COMMIT_SHA); name the version with --version-name."
        )
    return f"{__version__}-{commit[:_SHORT]}"


def upload(kubeflow: Kubeflow, text: str, version: str, name: str = PIPELINE) -> str:
    """Brings a compiled pipeline to Kubeflow as a version; returns a sentence.

    Raises:
        IntegrityError: a version of this name holds another pipeline.
        InputError: not allowed, or not understood.
        Unreachable: the API stayed away.
    """
    check_name(version, "--version-name")
    kubeflow.require_version()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pipeline.yaml")  # the generated client takes a path alone
        file.write_text(text, encoding="utf-8")
        for wait in kubeflow.retry.tries():
            # Looked up before each try: if an answer was lost, it may be there.
            pipeline, existing = _look_up(kubeflow, name, version)
            if existing is not None:
                spec = CompiledPipeline.from_api(existing.pipeline_spec or {})
                if _plain(spec) != _plain(CompiledPipeline.parse(text)):
                    raise IntegrityError(
                        f"Version {version} is there already and holds another "
                        "pipeline; nothing was uploaded: a version never changes."
                    )
                return f"Version {version} of {name} is there, with these very bytes."
            with AnotherTry(wait, {409} if wait else ()):  # 409: another was faster
                if pipeline is None:
                    # KFP makes a first version with it, which bears the pipeline's
                    # name and not ours; so the same file goes there once more below.
                    pipeline = kubeflow.call_once(
                        f"uploading pipeline {name}",
                        kubeflow.uploads.upload_pipeline,
                        uploadfile=str(file),
                        name=name,
                        **kubeflow.scope,
                    )
                kubeflow.call_once(
                    f"uploading version {version}",
                    kubeflow.uploads.upload_pipeline_version,
                    uploadfile=str(file),
                    name=version,
                    pipelineid=pipeline.pipeline_id,
                )
                return f"Uploaded version {version} of {name}."
    raise Unreachable(f"Version {version} could not be uploaded.")


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


def _git(root: Path, *arguments: str) -> str:
    """Returns what git prints; "" without git, or where no repository is."""
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
