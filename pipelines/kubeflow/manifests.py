"""A compiled pipeline as Kubernetes objects, for those who deploy from git.

KFP's Kubernetes-native API mode keeps pipelines as `Pipeline` and
`PipelineVersion` objects (pipelines.kubeflow.org/v2beta1) that Argo CD or Flux can
apply. A version cannot be changed once it is there, so its name ends in a digest
of what it holds: another content is another version, the same is the same.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components import IMAGE_PREFIX
from pipelines.output import write_text
from safescale_ammt import __version__
from safescale_ammt.config import kubernetes_names as names
from safescale_ammt.errors import ConfigError
from safescale_ammt.files.canonical import digest_json

NAMESPACE = "safescale"
_PINNED = re.compile(r"(?P<name>[^@\s]+/(?P<stage>\w+))@(?P<digest>sha256:\w{64})")


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


def kubernetes_objects(compiled: str, release: Release) -> list[dict[str, Any]]:
    """Returns the two objects of a compiled pipeline.

    KFP's compiler makes the objects, our text goes into them: it may have pinned
    images and filled-in defaults.

    Args:
        compiled: the pipeline as `compile_train` gives it.
        release: names.

    Returns:
        Pipeline and PipelineVersion.

    Raises:
        ConfigError: version or namespace is no name that Kubernetes takes.
    """
    graph, *platform = yaml.safe_load_all(compiled)
    specs = {"pipelineSpec": graph} | (
        {"platformSpec": platform[0]} if platform else {}
    )
    names.namespace(release.namespace)
    pipeline = str(graph["pipelineInfo"]["name"])
    version = release.version or f"{__version__}-{_short(specs)}"
    objects = _envelope(pipeline, _named(pipeline, version), version, release.namespace)
    objects[-1]["spec"].update(specs)
    return objects


def _short(specs: dict[str, Any]) -> str:
    return digest_json(specs).removeprefix("sha256:")[:12]


def _named(pipeline: str, version: str) -> str:
    """Returns the version's name: unique in a namespace, so the pipeline's first."""
    name = f"{pipeline}-{version}"
    if not names.is_object_name(version) or not names.is_object_name(name):
        raise ConfigError(
            f"{version!r} is no version that Kubernetes takes as a name: lower-case "
            "letters, digits, '-' and '.', such as 1.4.0-3f2a9c1, are."
        )
    return name


def _envelope(
    pipeline: str, name: str, version: str, namespace: str
) -> list[dict[str, Any]]:
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from pipelines.train import train

    options = KubernetesManifestOptions(
        pipeline_name=pipeline,
        pipeline_version_name=name,
        pipeline_version_display_name=version,
        namespace=namespace,
        include_pipeline_manifest=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "objects.yaml")
        compiler.Compiler().compile(
            train,
            str(path),
            kubernetes_manifest_format=True,
            kubernetes_manifest_options=options,
        )
        return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def write_objects(objects: list[dict[str, Any]], output: Path) -> list[Path]:
    """Writes the objects: one file, or a folder that kustomize takes as a component.

    Args:
        objects: Pipeline and PipelineVersion.
        output: a file if it ends in .yaml or .yml, else a folder.

    Returns:
        What was written.
    """
    if output.suffix in {".yaml", ".yml"}:
        return [_write(output, objects)]
    files = [_write(output / f"{o['kind'].lower()}.yaml", [o]) for o in objects]
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": [file.name for file in files],
        "images": _images(objects),
    }
    if not component["images"]:
        del component["images"]
    return [*files, _write(output / "kustomization.yaml", [component])]


def _images(objects: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Returns the pins of the pipeline for the images that the manifests name.

    The TrainingRuntime then runs the very image that train_agents runs.
    """
    found = {
        m["stage"]: m for m in _PINNED.finditer(yaml.safe_dump(objects, width=999))
    }
    return [
        {
            "name": f"{IMAGE_PREFIX}/{stage}",
            "newName": match["name"],
            "digest": match["digest"],
        }
        for stage, match in sorted(found.items())
    ]


def _write(path: Path, documents: list[dict[str, Any]]) -> Path:
    return write_text(path, yaml.safe_dump_all(documents, sort_keys=True))
