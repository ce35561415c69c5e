"""`safescale compile` and `safescale stage`: the pipeline in one file, in one step."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from components import IMAGE_PREFIX, STAGES
from pipelines.commands.options import pipeline_option, refuse_unread
from pipelines.output import say


@click.command("compile")
@pipeline_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write; with --kubernetes-manifests a folder, too.",
)
@click.option(
    "--image-prefix",
    metavar="PATH",
    help="Registry path of the stages' images  [default: where the lock says that "
    f"they were pushed to, else {IMAGE_PREFIX}].",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="LOCK",
    help="Pins each stage's image by the digest in this lock (see `make images`).",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Workload whose values become the parameters' defaults.",
)
@click.option(
    "--store",
    metavar="URI",
    help="Where `data fetch NAME --store URI` puts a workload's built-in data set  "
    "[default: SAFESCALE_STORE if that is an s3:// URI, else s3://safescale].",
)
@click.option(
    "--kubernetes-manifests",
    is_flag=True,
    help="Writes Pipeline and PipelineVersion objects, for deploying from git.",
)
@click.option(
    "--version-name",
    default="",
    help="Name of that version; default: this version and a digest of the content.",
)
@click.option(
    "--namespace",
    default="safescale",
    show_default=True,
    help="Where those objects live.",
)
@click.pass_context
def compile_(  # noqa: PLR0917  click passes by name
    context: click.Context,
    /,
    pipeline: str,
    output: Path,
    image_prefix: str | None,
    images: Path | None,
    config: Path | None,
    store: str | None,
    kubernetes_manifests: bool,
    version_name: str,
    namespace: str,
) -> None:
    """Compiles a pipeline into a file that Kubeflow reads."""
    from pipelines.compile import PROMOTE, compile_promote, compile_train
    from pipelines.image_lock import Lock
    from pipelines.ir import by_slopes, on_spark
    from pipelines.output import write_text
    from pipelines.own_code import with_code
    from pipelines.sources import ROLES, default_parameters, default_store
    from pipelines.workload import Workload
    from safescale_ammt.store.uri import STORE

    if pipeline == PROMOTE:
        refuse_unread(context, ("config", "store"), "with --pipeline promote")
    if not config:
        refuse_unread(context, ("store",), "without --config")
    if not kubernetes_manifests:
        names = ("version_name", "namespace")
        refuse_unread(context, names, "without --kubernetes-manifests")
    # The lock and the workload first: compiling takes seconds, their errors none.
    lock = Lock.load(images) if images else None
    arguments: dict[str, Any] | None = None
    if config:
        workload = with_code(Workload.load(config), config.parent)
        session_store = os.environ.get(STORE, "")
        arguments = default_parameters(workload, store or default_store(session_store))
        # Left out and said, not compiled in: a path of this machine would look right in
        # Kubeflow's form and fail in the first pod.
        for role in ROLES:
            if role not in arguments:
                name = getattr(workload.data, role)
                say(f"{role} {name!r} is no URI: fill it in yourself.")
    if pipeline == PROMOTE:
        text = compile_promote(image_prefix=image_prefix, images=lock)
    else:
        text = compile_train(
            image_prefix=image_prefix,
            images=lock,
            arguments=arguments,
            spark=on_spark((arguments or {}).get("data", {})),
            slopes=by_slopes((arguments or {}).get("constitution", {})),
        )
    if kubernetes_manifests:
        write_release(text, version_name, namespace, output)
        return
    if output.is_dir():
        raise click.UsageError(f"{output} is a folder; give a file to write.")
    say(f"Wrote {write_text(output, text)}.")


def write_release(text: str, version: str, namespace: str, output: Path) -> None:
    """Writes a compiled pipeline as objects for git, and says where.

    Args:
        text: the pipeline.
        version: name of its version; "" makes one.
        namespace: where the objects live.
        output: file or folder.
    """
    from pipelines.kubeflow.manifests import (
        Release,
        kubernetes_objects,
        write_objects,
    )

    for path in write_objects(
        kubernetes_objects(text, Release(version, namespace)), output
    ):
        say(f"Wrote {path}.")


@click.command()
@click.argument("name", metavar=f"[{'|'.join(STAGES)}]")
@click.argument("values", nargs=-1, metavar="KEY=PATH...")
def stage(name: str, values: tuple[str, ...]) -> None:
    """Runs one stage on folders, as its container does.

    A section is given by a YAML or JSON file that holds it, alone or under its
    name; an artifact by its folder. The store comes from SAFESCALE_STORE.

    Example: safescale stage prepare_data data=w.yaml dataset=d holdout=h
    """
    from importlib import import_module

    from safescale_ammt import execution
    from safescale_ammt.errors import one_of
    from safescale_ammt.store.uri import OWN_DISK

    if name not in STAGES:
        raise click.UsageError(f"No stage {name!r}, {one_of(STAGES, name)}.")
    run = import_module(f"safescale_ammt.stages.{name}").run
    # Who calls a stage by hand gives addresses of the disk at hand.
    own = {"environ": {**os.environ, OWN_DISK: "1"}}
    asked = inspect.signature(run).parameters
    # Those with a default are for tests and embedding: a container passes none of them.
    parameters = {
        key: parameter.annotation
        for key, parameter in asked.items()
        if parameter.default is inspect.Parameter.empty
    }
    paths = {}
    for text in values:
        key, equals, path = text.partition("=")
        if not equals or not path:
            raise click.UsageError(f"{text!r} is not of the form key=path.")
        paths[key] = Path(path)
    if paths.keys() != parameters.keys():
        raise click.UsageError(
            f"{name} takes {', '.join(parameters)}; got {', '.join(paths) or 'none'}."
        )
    # A stage takes its sections as mappings and its artifacts as folders.
    arguments = {
        key: _section(paths[key], key) if "Mapping" in str(kind) else paths[key]
        for key, kind in parameters.items()
    }
    # `execution.json` lies beside the last output, as it does in a pod.
    output = paths[list(parameters)[-1]]
    with execution.stage(name, output) as frame:
        summary = run(**arguments, **(own if "environ" in asked else {}))
        frame.done(output, summary)
    for key, value in frame.summary.items():
        say(f"{key}: {value}")


def _section(path: Path, name: str) -> Mapping[str, Any]:
    """Reads a section from a file of its own or from a workload."""
    from pipelines.workload import Workload, read_workload

    raw = read_workload(path)
    # A constitution has no section of its own name: a file without principles is a
    # workload that names or holds one.
    if name == "constitution" and "principles" not in raw:
        return Workload.load(path).constitution.to_dict()
    if name != "constitution" and isinstance(raw.get(name), dict):
        return dict(raw[name])
    return raw
