"""Options of every command that is given a workload."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
ADULT = Path(__file__).parents[1] / "adult.yaml"


def with_options(options: Sequence[Command], command: Command) -> Command:
    """Adds options to a command; help lists them in this order."""
    # A decorator's option stands before those that were added earlier: so from behind.
    return functools.reduce(lambda done, add: add(done), reversed(options), command)


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
