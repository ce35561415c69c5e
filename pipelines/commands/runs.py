"""`safescale runs`: what ran here, and how two runs differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from pipelines.commands.options import LONGEST, FiniteRange
from pipelines.commands.registry import store_option
from pipelines.headline import ABSENT, COLUMNS, told
from pipelines.output import aligned, say, say_json

_OUTPUT = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of runs.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
# Not the paths, the seconds and the times: those differ between equal runs.
_LONGEST = 200
"""Characters of a value that are shown."""
_COMPARED = (
    "config",
    "constitution",
    "source_digest",
    "code_digest",
    "verdict",
    "version",
    "exit_code",
)
_HEAD = ("run", "state", *COLUMNS, "seconds", "report")


@click.group()
def runs() -> None:
    """Lists, shows and compares the runs of a folder."""


@runs.command("list")
@_JSON
@_OUTPUT
def list_(output: Path, as_json: bool) -> None:
    """Lists runs, oldest first: decision, accuracy, gap and report of each.

    The gap is that of the promise by group which has least room left.
    """
    from pipelines.local.runfile import read_run, run_folders

    found = [read_run(output, folder.name) for folder in run_folders(output)]
    if as_json:
        names = ("run", "exit_code", "sentence", "started", "verdict", "version")
        short = [
            {**{name: run[name] for name in names}, "report": report_of(run, output)}
            for run in found
        ]
        say_json(short)
    elif not found:
        say(f"No run in {output}.")
    else:
        say("\n".join(aligned([_HEAD, *(row(run, output) for run in found)])))


@runs.command()
@click.argument("name", default="latest")
@click.option("--json", "as_json", is_flag=True, help="Prints run.json as it is.")
@_OUTPUT
def show(name: str, as_json: bool, output: Path) -> None:
    """Shows one run: its id, the start of its id, or 'latest'."""
    from pipelines.local.runfile import read_run

    run = read_run(output, name)
    if as_json:
        say_json(run)
        return
    lines = list(zip(_HEAD, row(run, output), strict=True))
    for stage in run["stages"]:
        state = str(stage["status"])
        if state == "finished":
            cached = stage["cached"]
            state = "from the cache" if cached else f"{stage['seconds']:.1f} s"
        lines.append((stage["stage"], state))
    judged = run["verdict"] or {}
    if "submissions_left" in judged:
        left = f"{judged['submissions_left']} of {judged['use']['planned']} planned"
        lines.append(("submissions left", left))
    artifacts = run["artifacts"].items()
    lines += [(name, artifact["identity"]) for name, artifact in artifacts]
    say("\n".join(aligned(lines)))
    reasons = (run["verdict"] or {}).get("reasons", ())
    say("\n".join(filter(None, [*reasons, run["sentence"]])))


@runs.command()
@click.argument("first")
@click.argument("second")
@_JSON
@_OUTPUT
def diff(first: str, second: str, output: Path, as_json: bool) -> None:
    """Shows where two runs differ: config, data, code, artifacts, outcome.

    Decision, accuracy, gap and report of both stand above, equal or not.
    """
    from pipelines.local.runfile import read_run

    both = [read_run(output, name) for name in (first, second)]
    found = differences(*both)
    if as_json:
        values = {
            key: [None if text == ABSENT else json.loads(text) for text in pair]
            for key, pair in found.items()
        }
        say_json(values)
        return
    say("\n".join(aligned([_HEAD, *(row(run, output) for run in both)])))
    for key, (left, right) in found.items():
        # Packed code is a long line, and its digest stands beside it.
        say(f"{key}: {left[:_LONGEST]} -> {right[:_LONGEST]}")
    if not found:
        say("The runs agree in all that is recorded.")


@runs.command()
@click.argument("name", default="latest")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of event files.  [default: tensorboard/RUN in the folder of runs]",
)
@_OUTPUT
def tensorboard(name: str, to: Path | None, output: Path) -> None:
    """Writes the scalars of a run's training as TensorBoard event files.

    `tensorboard --logdir` on the folder above shows several runs beside each other.
    """
    from pipelines.local.runfile import read_run
    from pipelines.tensorboard import write_scalars

    run = read_run(output, name)
    folder = to or output / "tensorboard" / run["run"]
    say(f"{write_scalars(run, folder)} scalars are in {folder}.")


@runs.command()
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option(
    "--older-than",
    type=FiniteRange(0, LONGEST),
    metavar="DAYS",
    help="Only runs that began longer ago.",
)
@click.option("--remove", is_flag=True, help="Removes what may go; else it is listed.")
@_JSON
@store_option
@_OUTPUT
def gc(
    *,
    names: tuple[str, ...],
    older_than: float | None,
    remove: bool,
    as_json: bool,
    store: str | None,
    output: Path,
) -> None:
    """Lists which runs may go, and what the others are kept for; removes with --remove.

    All runs, or each RUN by its id or the start of it. A run that a registered version
    or a use in the ledger refers to is never removed. What is removed is its folder and
    its copies in the store; registry, ledger, sealed rows (`safescale data sealed`) and
    the cache of stages stay.
    """
    from pipelines.local.removal import judged, referred
    from pipelines.local.removal import remove as remove_run
    from pipelines.local.resolution import registered_names
    from pipelines.local.runfile import read_run, run_folders
    from pipelines.local.store import opened_store
    from safescale_ammt.execution import utc_now
    from safescale_ammt.store.environment import registry_store, registry_variable
    from safescale_ammt.store.uri import STORE

    asked = {read_run(output, name)["run"] for name in names}
    every = [read_run(output, folder.name) for folder in run_folders(output)]
    days = None if older_than is None else timedelta(days=older_than)
    before = None if days is None else utc_now() - days
    with opened_store(store, reads_only=not remove) as opened:
        apart = os.environ.get(registry_variable(STORE))
        place = registry_store(os.environ) if apart else opened
        named = referred(place, opened, registered_names(place))
        found = judged(every, named, opened, before=before, asked=asked)
        going = [one for one in found if not one.why]
        for one in going if remove else ():
            remove_run(output, one.run, opened)
    if as_json:
        say_json([{"run": one.run, "kept_for": one.why} for one in found])
        return
    state = "removed" if remove else "may go"
    say("\n".join(aligned([(one.run, one.why or state) for one in found] or [("",)])))
    say(f"{len(going)} of {len(found)} runs {'are removed' if remove else 'may go'}.")


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    """Returns where two runs differ: key -> both values as JSON, or `ABSENT`."""
    one, two = (
        dict(
            _flat(
                {key: run.get(key) for key in _COMPARED}
                | {"artifacts": {n: a["identity"] for n, a in run["artifacts"].items()}}
            )
        )
        for run in (first, second)
    )
    return {
        key: (one.get(key, ABSENT), two.get(key, ABSENT))
        for key in sorted(one.keys() | two.keys())
        if one.get(key, ABSENT) != two.get(key, ABSENT)
    }


def row(run: Mapping[str, Any], output: Path) -> tuple[str, ...]:
    """Says what a run was and how it ended, in the columns of a list."""
    code = run["exit_code"]
    return (
        run["run"],
        "unfinished" if code is None else f"exit {code}",
        *told(run["verdict"]),
        f"{run['seconds']:.0f}" if "seconds" in run else ABSENT,
        report_of(run, output) or ABSENT,
    )


def report_of(run: Mapping[str, Any], output: Path) -> str:
    """Returns the path of a run's report, "" if it has none."""
    return str(output / run["run"] / run["report"]) if run["report"] else ""


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    # An empty mapping is a value: a section that came or went has to show.
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{where}.{key}" if where else str(key))
    else:
        yield where, json.dumps(value, ensure_ascii=False)
