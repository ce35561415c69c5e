"""`safescale run`: the whole pipeline on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.commands.options import FiniteRange, workload_options
from pipelines.local.runners import RUNNERS, runner_named
from pipelines.output import say

# Docker takes no less CPU and no container starts with less memory; above, a value is
# a slip of the unit.
_BOUNDS = {"cpu": (0.01, 1e4), "memory": (8 * 2**20, 2**50)}
"""Least and greatest limit that a container can have: CPUs, bytes."""
LIMITS = ("cpu", "memory", "train_cpu", "train_memory")


@click.command()
@workload_options
@click.option(
    "--runner",
    metavar=f"[{'|'.join(RUNNERS)}]",
    default=RUNNERS[0],
    show_default=True,
    help="Stages run as processes, or in containers of the stage images.",
)
@click.option(
    "--store", metavar="URI", help="Object store  [default: the embedded one]."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of runs.",
)
@click.option("--no-cache", is_flag=True, help="Runs every stage anew.")
@click.option(
    "--rehearse",
    is_flag=True,
    help="Judges on *select*: no use of the sealed rows, nothing registered.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exits with 3 unless the decision is a pass.",
)
@click.option(
    "--timeout",
    type=FiniteRange(min=1),
    default=14400.0,  # `launch.TIMEOUT`, whose import would slow `--help` down
    show_default=True,
    help="Seconds that the run may take.",
)
@click.option(
    "--stage-timeout",
    type=FiniteRange(min=1),
    help="Seconds that a stage may take  [default: as compiled].",
)
@click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A container's limits: cpu, memory, train_cpu or train_memory.",
)
def run(  # noqa: PLR0917  click passes by name
    config: Path,
    constitution: Path | None,
    overrides: tuple[str, ...],
    runner: str,
    store: str | None,
    output: Path,
    no_cache: bool,
    rehearse: bool,
    strict: bool,
    timeout: float,
    stage_timeout: float | None,
    parameters: tuple[str, ...],
) -> None:
    """Trains, judges and registers a model on this machine.

    Exits with 0 if the model became champion or is pending, with 3 if
    it was refused, with 2 if data, workload or options cannot be used. With
    --strict a pending model and a rehearsal that is no pass exit with 3 too.
    """
    from pipelines.ir import RESOURCES
    from pipelines.local.launch import RunRequest, launch
    from pipelines.quantities import quantity
    from safescale_ammt.errors import ConfigError, Refusal, one_of

    if runner not in RUNNERS:
        raise click.UsageError(f"--runner is {runner!r}, {one_of(RUNNERS, runner)}.")
    # A slip is found here, before anything starts: a pod's or a container's own error
    # comes minutes later, and does not name the option.
    limits = {}
    for pair in parameters:
        given, _, value = pair.partition("=")
        name = given.removeprefix(RESOURCES)
        limits[f"{RESOURCES}{name}"] = value
        if name not in LIMITS:
            expected = one_of(LIMITS, name)
            raise ConfigError(f"--param names {name!r}, unknown; {expected}.")
        least, most = _BOUNDS[name.removeprefix("train_")]
        if not least <= quantity(value, f"--param {name}") <= most:
            raise ConfigError(
                f"--param {name} is {value!r}, which no container can have; 0.01 to "
                "10000 CPUs or 8Mi to 1Pi of memory are expected."
            )
    request = RunRequest(
        config=config,
        constitution=constitution,
        # Last, and so the one that counts, whatever `--set` says.
        overrides=(*overrides, *(["safety.rehearse=true"] if rehearse else [])),
        store=store,
        output=output,
        cache=not no_cache,
        timeout=timeout,
        command=["safescale", *sys.argv[1:]],
        runner=runner_named(runner),
        stage_timeout=stage_timeout,
        parameters=limits,
        strict=strict,
    )
    run_file = launch(request)
    say(run_file.outcome["sentence"])
    for line in (*run_file.lines, f"Record: {run_file.folder / 'run.json'}"):
        say(line)
    if run_file.outcome["exit_code"]:
        raise Refusal("The decision is no pass (--strict).")
