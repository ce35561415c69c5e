"""From the graph to the file that Kubeflow reads: the compiled pipeline.

Compiling is deterministic to the byte, so that a test can hold the result
against the one in the repository.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from components import IMAGE_PREFIX, SPARK, WITH_TORCH
from pipelines.image_lock import Lock
from pipelines.ir import BATTERY_HOURS, CompiledPipeline, name_images
from pipelines.parameter_sizes import check_sizes
from safescale_ammt.config.kubernetes_names import registry_path

SPARK_HOURS = 24
"""How long prepare_data may run where Spark prepares the rows; an hour elsewhere."""
TRAIN, PROMOTE = PIPELINES = ("train", "promote")
"""The pipelines, each a module and a function in it of this name."""
TRAINING = "train-agents"
"""The task that trains, or waits for a TrainJob that does."""


def compile_train(
    *,
    image_prefix: str | None = None,
    images: Lock | None = None,
    arguments: Mapping[str, Any] | None = None,
    spark: bool = False,
    slopes: bool = False,
) -> str:
    """Compiles the training pipeline.

    Args:
        image_prefix: registry path that replaces `safescale-ammt` before the
            stages' image names; None leaves it, or takes where the lock's images
            were pushed to.
        images: lock whose digests replace the images' tags.
        arguments: values that become the parameters' defaults, so that the
            form in Kubeflow is filled in.
        spark: whether rows are prepared on Spark: prepare_data then runs in its image,
            which alone has the client, and for as long as a training.
        slopes: whether the judge follows slopes: evaluate_safety then runs in an image
            that has torch, which a node that trains shares.

    Returns:
        The pipeline as YAML: the graph, then what only Kubernetes reads.

    Raises:
        ConfigError: the prefix is no registry path, the lock's images were never
            pushed to one or hold other code than this, or the values are too large.
    """
    instead = {"prepare_data": SPARK} if spark else {}
    instead |= {"evaluate_safety": WITH_TORCH} if slopes else {}
    text = _with_images(TRAIN, image_prefix, images, instead)
    if not arguments and not spark and not slopes:
        return text
    pipeline = CompiledPipeline.parse(text)
    if spark:
        # It waits for executors, of which a plan may say hours.
        pipeline.set_hours("exec-prepare-data", SPARK_HOURS)
    if slopes:
        pipeline.set_hours("exec-evaluate-safety", BATTERY_HOURS)
    if arguments:
        pipeline.set_defaults(arguments)
        fit_backend(pipeline, arguments)
        check_sizes(pipeline, {})
    return pipeline.to_yaml()


def compile_promote(
    *, image_prefix: str | None = None, images: Lock | None = None
) -> str:
    """Compiles the promote pipeline; arguments, result and errors as `compile_train`.

    It has no workload: what a form or a run says of it is which version is meant.
    """
    return _with_images(PROMOTE, image_prefix, images, {})


def _with_images(
    pipeline: str, prefix: str | None, images: Lock | None, instead: Mapping[str, str]
) -> str:
    """Compiles a pipeline and names its images.

    Args:
        pipeline: of `PIPELINES`.
        prefix: registry path, None for the lock's or ours.
        images: lock whose digests replace the images' tags.
        instead: stage -> the image that it runs in.
    """
    if prefix is None:
        prefix = (images.pushed if images else "") or IMAGE_PREFIX
    path = registry_path(prefix, "Image prefix")
    # Before the compiler starts: the lock alone can tell.
    if images:
        images.check_code(path)

    def reference(stage: str, tag: str) -> str:
        stage = instead.get(stage, stage)
        return images.pinned(stage, path) if images else f"{path}/{stage}:{tag}"

    return name_images(compiled_graph(pipeline), reference)


def graph_of(pipeline: str) -> Any:
    """Returns the function that KFP compiles a pipeline from."""
    # KFP takes a second to import, which a wrong command line need not wait.
    module = import_module(f"pipelines.{pipeline}")
    return getattr(module, pipeline)


@cache
def compiled_graph(pipeline: str = TRAIN) -> str:
    """Compiles the graph as it is written, with the images' own names.

    Once in a process: `submit` asks for a run and for a version of its pipeline.
    """
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(graph_of(pipeline), str(path))
        return path.read_text(encoding="utf-8")


def fit_backend(pipeline: CompiledPipeline, arguments: Mapping[str, Any]) -> None:
    """Gives the training task what it needs where a TrainJob does the work.

    A pod asks for its resources before a line of it runs, and the resources are
    parameters that search needs as well: so it is decided here, for the backend that
    the workload names.
    """
    training = arguments.get("training") or {}
    if training.get("backend") == "trainjob":
        pipeline.wait_small(TRAINING)
