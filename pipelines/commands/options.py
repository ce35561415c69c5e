"""Options of every command that is given a workload."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
ADULT = Path(__file__).parents[1] / "adult.yaml"


LONGEST = 36_500
"""Days of the greatest age that may be asked for: a hundred years."""


class FiniteRange(click.FloatRange):
    """A number in a range; NaN, which no comparison refuses, and infinity are none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number; see `click.ParamType.convert`."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number


def with_options(options: Sequence[Command], command: Command) -> Command:
    """Adds options to a command; help lists them in this order."""
    # A decorator's option stands before those that were added earlier: so from behind.
    return functools.reduce(lambda done, add: add(done), reversed(options), command)


def pipeline_option(command: Command) -> Command:
    """Adds the option that says which pipeline is meant."""
    # Spelled here: the compiler's module takes long to import.
    return click.option(
        "--pipeline",
        type=click.Choice(("train", "promote")),
        default="train",
        show_default=True,
        help="train: from rows to a version; promote: an approved version to champion.",
    )(command)


def refuse_unread(context: click.Context, names: Iterable[str], where: str) -> None:
    """Refuses options of the command line that a way of calling it would not read.

    Args:
        context: of the command.
        names: the options' parameters.
        where: the way, as in "with --upload-only".

    Raises:
        UsageError: there is one.
    """
    command_line = click.core.ParameterSource.COMMANDLINE
    options = {option.name: option for option in context.command.params}
    for name in names:
        if context.get_parameter_source(name) is command_line:
            spelled = "/".join(options[name].opts + options[name].secondary_opts)
            raise click.UsageError(f"{spelled} means nothing {where}.")


def workload_options(command: Command) -> Command:
    """Adds the options that say what is to be trained, on what, against what."""
    options = (
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            default=ADULT,
            show_default="the packaged adult.yaml",
            help="Workload file.",
        ),
        click.option(
            "--constitution",
            type=click.Path(path_type=Path),
            help="Constitution that replaces the workload's own.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Replaces one value of the config; may be repeated.",
        ),
    )
    return with_options(options, command)
