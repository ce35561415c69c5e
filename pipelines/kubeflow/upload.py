"""`safescale submit --upload-only`: the pipeline as a version that people can start.

A version's name is `<semver>-<commit>`. The same name stands for the same bytes:
a second upload of them changes nothing, one of other bytes is refused.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.ir import CompiledPipeline
from pipelines.kubeflow.answers import Answered, Unreachable
from pipelines.kubeflow.api import Kubeflow, equals
from pipelines.kubeflow.runs import check_name
from safescale_ammt import __version__
from safescale_ammt.errors import InputError, IntegrityError

PIPELINE = "safescale-train"
_COMMIT = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT")
_SHORT = 12


def version_name(environ: Mapping[str, str] = os.environ) -> str:
    """Returns `<semver>-<commit>` of the code that is running.

    Raises:
        InputError: the commit is not known, or the working tree is another.
    """
    commit = next((environ[name] for name in _COMMIT if environ.get(name)), "")
    if not commit:
        root = Path(__file__).parents[2]
        commit, changes = (
            _git(root, "rev-parse", "HEAD"),
            _git(root, "status", "--porcelain", "--untracked-files=no"),
        )
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
        file = Path(folder, "pipeline.yaml")
        file.write_text(text, encoding="utf-8")
        for wait in kubeflow.retry.tries():
            pipeline = _pipeline(kubeflow, name)
            known = _version(kubeflow, pipeline, version) if pipeline else None
            if known is not None:
                _compare(known, text, version)
                return f"Version {version} of {name} is there, with these very bytes."
            try:
                return _send(kubeflow, file, pipeline, name, version)
            except Unreachable:
                if not wait:
                    raise
            except Answered as error:
                if error.status != 409 or not wait:  # 409: another was faster
                    raise
            time.sleep(wait)
    raise Unreachable(f"Version {version} could not be uploaded.")


def _send(
    kubeflow: Kubeflow, file: Path, pipeline: Any, name: str, version: str
) -> str:
    """Uploads a version; the first one brings its pipeline with it."""
    if pipeline is None:
        where = {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
        pipeline = kubeflow.order(
            f"uploading pipeline {name}",
            kubeflow.uploads.upload_pipeline,
            uploadfile=str(file),
            name=name,
            **where,
        )
    kubeflow.order(
        f"uploading version {version}",
        kubeflow.uploads.upload_pipeline_version,
        uploadfile=str(file),
        name=version,
        pipelineid=pipeline.pipeline_id,
    )
    return f"Uploaded version {version} of {name}."


def _pipeline(kubeflow: Kubeflow, name: str) -> Any | None:
    where = {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
    found = kubeflow.ask(
        f"looking for pipeline {name}",
        kubeflow.pipelines.pipeline_service_list_pipelines,
        filter=equals(name=name),
        **where,
    )
    return found.pipelines[0] if found.pipelines else None


def _version(kubeflow: Kubeflow, pipeline: Any, version: str) -> Any | None:
    found = kubeflow.pages(
        f"looking for version {version}",
        kubeflow.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline.pipeline_id,
        filter=equals(name=version),
    )
    return next(iter(found), None)


def _compare(known: Any, text: str, version: str) -> None:
    """Holds a version against the bytes that it should have.

    Raises:
        IntegrityError: it has others.
    """
    held = known.pipeline_spec or {}
    if "pipeline_spec" not in held:
        held = {"pipeline_spec": held, "platform_spec": {}}
    if _plain(held) != _plain(CompiledPipeline.parse(text).to_api()):
        raise IntegrityError(
            f"Version {version} is there already and holds another pipeline; nothing "
            "was uploaded: a version never changes."
        )


def _plain(spec: Mapping[str, Any]) -> tuple[Any, Any]:
    """Brings a pipeline into one form: the API gives numbers as 1.0, not as 1."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    graph = json_format.ParseDict(
        dict(spec["pipeline_spec"]),
        pipeline_spec_pb2.PipelineSpec(),
        ignore_unknown_fields=True,
    )
    platform = json_format.ParseDict(
        dict(spec.get("platform_spec") or {}),
        pipeline_spec_pb2.PlatformSpec(),
        ignore_unknown_fields=True,
    )
    return json_format.MessageToDict(graph), json_format.MessageToDict(platform)


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
