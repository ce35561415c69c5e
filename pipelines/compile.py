"""From the graph to the file that Kubeflow reads: the compiled pipeline.

Compiling is deterministic to the byte, so that a test can hold the result
against the one in the repository.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components import IMAGE_PREFIX
from pipelines.image_lock import Lock
from safescale_ammt.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.workload import Workload

SOURCES = ("source", "sealed_source")
DEFAULT_STORE = "s3://safescale"
"""Where a built-in data set is looked for unless a store is known."""
_PREFIX = re.compile(r"[a-z0-9][a-z0-9._:/-]*[a-z0-9]")


def compile_train(
    *,
    image_prefix: str | None = None,
    images: Lock | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> str:
    """Compiles the training pipeline.

    Args:
        image_prefix: registry path that replaces `safescale-ammt` before the
            stages' image names; None leaves it, or takes where the lock's images
            were pushed to.
        images: lock whose digests replace the images' tags.
        arguments: values that become the parameters' defaults, so that the
            form in Kubeflow is filled in.

    Returns:
        The pipeline as YAML: the graph, then what only Kubernetes reads.

    Raises:
        ConfigError: the prefix is no registry path, or the lock's images were
            never pushed to one.
    """
    from kfp import compiler

    from pipelines.train import train

    prefix = image_prefix
    if prefix is None:
        prefix = (images.pushed if images else "") or IMAGE_PREFIX
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"Image prefix {prefix!r} is no registry path; give one such as "
            "registry.example.org/team without a slash at its end."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.yaml")
        compiler.Compiler().compile(train, str(path))
        text = path.read_text(encoding="utf-8")
    if images:
        text = images.pin(text, prefix)
    text = re.sub(
        rf"^( +image: ){IMAGE_PREFIX}/", rf"\1{prefix}/", text, flags=re.MULTILINE
    )
    return _with_defaults(text, arguments) if arguments else text


def default_store(known: str) -> str:
    """Returns the store that a cluster reads a built-in data set from.

    Args:
        known: the store of this session; a folder means nothing to a cluster.
    """
    return known if known.startswith("s3://") else DEFAULT_STORE


def defaults(workload: Workload, store: str) -> dict[str, Any]:
    """Returns a workload's values for the parameters.

    A built-in data set is read from where `data fetch NAME --store` puts it. A
    source that lies on this machine means nothing elsewhere and is left out.

    Args:
        workload: whose values.
        store: URI of the store that built-in data sets lie in.

    Raises:
        StoreInputError: `store` is no place of a store.
    """
    from safescale_ammt.data.catalogue import CATALOGUE
    from safescale_ammt.data.fetching import stored_uris
    from safescale_ammt.store.uri import split_uri

    split_uri(store)
    values = workload.arguments()
    for role in SOURCES:
        name = values[role]
        if name in CATALOGUE:
            values[role] = stored_uris(name, store)[role]
        elif name and not name.startswith("s3://"):
            del values[role]
    return values


def _with_defaults(text: str, arguments: Mapping[str, Any]) -> str:
    graph, *platform = yaml.safe_load_all(text)
    parameters = graph["root"]["inputDefinitions"]["parameters"]
    for name, value in arguments.items():
        parameters[name].update(defaultValue=value, isOptional=True)
    return yaml.safe_dump_all([graph, *platform], sort_keys=True)
