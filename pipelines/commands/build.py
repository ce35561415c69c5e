"""`safescale compile` and `safescale stage`: the pipeline in one file, in one step."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components import IMAGE_PREFIX, STAGES

if TYPE_CHECKING:
    from pipelines.workload import Workload


@click.command("compile")
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
def compile_(  # noqa: PLR0917  click passes by name
    output: Path,
    image_prefix: str | None,
    images: Path | None,
    config: Path | None,
    store: str | None,
    kubernetes_manifests: bool,
    version_name: str,
    namespace: str,
) -> None:
    """Compiles the training pipeline into a file that Kubeflow reads."""
    from pipelines.compile import compile_train
    from pipelines.image_lock import Lock
    from pipelines.output import write_text
    from pipelines.workload import Workload

    lock = Lock.load(images) if images else None
    arguments = _defaults(Workload.load(config), store) if config else None
    text = compile_train(image_prefix=image_prefix, images=lock, arguments=arguments)
    if kubernetes_manifests:
        _write_objects(text, output, version_name, namespace)
        return
    if output.is_dir():
        raise click.UsageError(f"{output} is a folder; give a file to write.")
    click.echo(f"Wrote {write_text(output, text)}.")


def _write_objects(text: str, output: Path, version: str, namespace: str) -> None:
    from pipelines.kubeflow.manifests import Release, kubernetes_objects, write_objects

    objects = kubernetes_objects(text, Release(version, namespace))
    for path in write_objects(objects, output):
        click.echo(f"Wrote {path}.")


def _defaults(workload: Workload, store: str | None) -> dict[str, Any]:
    """Returns the parameters' defaults, and says which one is left to fill in."""
    from pipelines.compile import SOURCES, default_store, defaults
    from safescale_ammt.store.uri import STORE

    place = store or default_store(os.environ.get(STORE, ""))
    values = defaults(workload, place)
    for role in SOURCES:
        if role not in values:
            name = getattr(workload.data, role)
            click.echo(f"{role} {name!r} is no URI: fill it in yourself.")
    return values


@click.command()
@click.argument("name", type=click.Choice(STAGES))
@click.argument("values", nargs=-1, metavar="KEY=PATH...")
def stage(name: str, values: tuple[str, ...]) -> None:
    """Runs one stage on folders, as its container does.

    A section is given by a YAML or JSON file that holds it, alone or under its
    name; an artifact by its folder. The store comes from SAFESCALE_STORE.

    Example: safescale stage prepare_data data=w.yaml dataset=d holdout=h
    """
    from importlib import import_module

    from safescale_ammt import execution

    run = import_module(f"safescale_ammt.stages.{name}").run
    given = _arguments(run, dict(_pair(value) for value in values), name)
    output = next(reversed(given.values()))
    with execution.stage(name, output) as frame:
        summary = run(**given)
        frame.done(output, summary)
    for key, value in frame.summary.items():
        click.echo(f"{key}: {value}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise click.UsageError(f"{text!r} is not of the form key=path.")
    return key, value


def _arguments(run: Any, given: dict[str, str], name: str) -> dict[str, Any]:
    """Brings the given texts to the parameters of a stage's `run`."""
    parameters = {
        key: parameter.annotation
        for key, parameter in inspect.signature(run).parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    if given.keys() != parameters.keys():
        raise click.UsageError(
            f"{name} takes {', '.join(parameters)}; got {', '.join(given) or 'none'}."
        )
    return {
        key: _section(Path(given[key]), key)
        if "Mapping" in str(kind)
        else Path(given[key])
        for key, kind in parameters.items()
    }


def _section(path: Path, name: str) -> Mapping[str, Any]:
    """Reads a section from a file of its own or from a workload."""
    from pipelines.workload import Workload, read_workload

    raw = read_workload(path)
    if name == "constitution" and "principles" not in raw:
        return Workload.load(path).constitution.to_dict()
    if name != "constitution" and isinstance(raw.get(name), dict):
        return dict(raw[name])
    return raw
