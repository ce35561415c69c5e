"""`safescale compile` and `safescale stage`: the pipeline in one file, in one step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components import IMAGE_PREFIX

if TYPE_CHECKING:
    from pipelines.workload import Workload

STAGES = (
    "prepare_data",
    "search_architecture",
    "train_agents",
    "evaluate_safety",
    "register_model",
)


@click.command("compile")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write.",
)
@click.option(
    "--image-prefix",
    default=IMAGE_PREFIX,
    show_default=True,
    help="Registry path of the stages' images.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Workload whose values become the parameters' defaults.",
)
def compile_(output: Path, image_prefix: str, config: Path | None) -> None:
    """Compiles the training pipeline into a file that Kubeflow reads."""
    from pipelines.compile import compile_train
    from pipelines.workload import Workload

    arguments = _defaults(Workload.load(config)) if config else None
    text = compile_train(image_prefix=image_prefix, arguments=arguments)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    click.echo(f"Wrote {output}.")


def _defaults(workload: Workload) -> dict[str, Any]:
    """Returns parameter values; a built-in name means nothing on a cluster."""
    values = workload.arguments()
    for role in ("source", "sealed_source"):
        if values[role] and "://" not in values[role]:
            click.echo(f"{role} {values.pop(role)!r} is no URI: fill it in yourself.")
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
