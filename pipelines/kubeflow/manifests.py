"""A compiled pipeline as Kubernetes objects, for those who deploy from git.

KFP's Kubernetes-native API mode keeps pipelines as `Pipeline` and
`PipelineVersion` objects (pipelines.kubeflow.org/v2beta1) that Argo CD or Flux can
apply. A version cannot be changed once it is there, so its name ends in a digest
of what it holds: another content is another version, the same is the same.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components import IMAGE_PREFIX
from pipelines.compile import graph_of
from pipelines.ir import CompiledPipeline
from pipelines.output import write_text
from safescale_ammt import __version__
from safescale_ammt.config import kubernetes_names as names
from safescale_ammt.errors import ConfigError
from safescale_ammt.files.canonical import digest_json

NAMESPACE = "safescale"
TRAIN_IMAGE = "safescale-ammt/train-image"
"""Annotation of a namespace: the repository whose image a TrainJob may run."""
_NAMED = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: any
  annotations:
    {TRAIN_IMAGE}: {{}}
"""
_COMPONENT: dict[str, Any] = {
    "apiVersion": "kustomize.config.k8s.io/v1alpha1",
    "kind": "Component",
}


@dataclass(frozen=True)
class Release:
    """What a pipeline is called on the cluster.

    Attributes:
        version: name of the version without the pipeline's; "" makes one of the
            library's version and the content.
        namespace: where the objects live.
    """

    version: str = ""
    namespace: str = NAMESPACE


def kubernetes_objects(text: str, release: Release) -> list[dict[str, Any]]:
    """Returns the two objects of a compiled pipeline.

    KFP's compiler makes the objects, our text goes into them: it may have pinned
    images and filled-in defaults.

    Args:
        text: a pipeline as `pipelines.compile` gives it.
        release: names.

    Returns:
        Pipeline and PipelineVersion.

    Raises:
        ConfigError: version or namespace is no name that Kubernetes takes.
    """
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    names.namespace(release.namespace)
    pipeline = CompiledPipeline.parse(text)
    specs = {"pipelineSpec": pipeline.graph}
    if pipeline.platform:
        specs["platformSpec"] = pipeline.platform
    # Of the content alone: the same pipeline has the same name on every machine, so
    # that compiling it again commits nothing new.
    content = digest_json(specs).removeprefix("sha256:")[:12]
    version = release.version or f"{__version__}-{content}"
    # An object's name is unique in its namespace, so the pipeline's stands first.
    name = f"{pipeline.name}-{version}"
    # Both: a version that is too long shows only together with the pipeline's name.
    if not names.is_object_name(version) or not names.is_object_name(name):
        raise ConfigError(
            f"{version!r} is no version that Kubernetes takes as a name: lower-case "
            "letters, digits, '-' and '.', such as 1.4.0-3f2a9c1, are."
        )
    options = KubernetesManifestOptions(
        pipeline_name=pipeline.name,
        pipeline_version_name=name,
        pipeline_version_display_name=version,
        namespace=release.namespace,
        include_pipeline_manifest=True,
    )
    # KFP's compiler writes objects into a file only.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "objects.yaml")
        compiler.Compiler().compile(
            graph_of(pipeline.name.removeprefix("safescale-")),
            str(path),
            kubernetes_manifest_format=True,
            kubernetes_manifest_options=options,
        )
        objects = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    objects[-1]["spec"].update(specs)
    # Shown on the pipeline's page; KFP's compiler leaves both out.
    info = pipeline.graph["pipelineInfo"]
    objects[0]["spec"].update(
        displayName=info["displayName"], description=info["description"]
    )
    return objects


def write_objects(objects: list[dict[str, Any]], output: Path) -> list[Path]:
    """Writes Pipeline and PipelineVersion; returns what was written.

    `output` is one file if it ends in .yaml or .yml, else a folder that kustomize takes
    as a component.
    """

    def write(path: Path, documents: list[dict[str, Any]]) -> Path:
        return write_text(path, yaml.safe_dump_all(documents, sort_keys=True))

    if output.suffix in {".yaml", ".yml"}:
        return [write(output, objects)]
    # A component, so that an overlay can list it beside others.
    files = [write(output / f"{o['kind'].lower()}.yaml", [o]) for o in objects]
    component = {**_COMPONENT, "resources": [file.name for file in files]}
    # The TrainingRuntime of the manifests then runs the image that train_agents runs.
    by_stage = CompiledPipeline.from_api(objects[-1]["spec"]).pinned_images
    images = [
        {
            "name": f"{IMAGE_PREFIX}/{stage}",
            "newName": image.name,
            "digest": image.digest,
        }
        for stage, image in sorted(by_stage.items())
    ]
    if images:
        component["images"] = images
    if "train_agents" in by_stage:
        # The guards let TrainJobs run this repository alone, of it the digests of all
        # releases: their schedules go on.
        patch = _NAMED.format(by_stage["train_agents"].name)
        component["patches"] = [{"target": {"kind": "Namespace"}, "patch": patch}]
    return [*files, write(output / "kustomization.yaml", [component])]
