"""`safescale runs`: what ran here, and how two runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

_OUTPUT = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of runs.",
)
# Not the paths, the seconds and the times: those differ between equal runs.
_COMPARED = (
    "config",
    "constitution",
    "source_digest",
    "code_digest",
    "verdict",
    "version",
    "exit_code",
)
_ABSENT = "–"


@click.group()
def runs() -> None:
    """Lists, shows and compares the runs of a folder."""


@runs.command("list")
@_OUTPUT
def list_(output: Path) -> None:
    """Lists runs, oldest first."""
    from pipelines.local.runfile import read_run, run_folders

    folders = run_folders(output)
    if not folders:
        click.echo(f"No run in {output}.")
    for folder in folders:
        click.echo(line(read_run(output, folder.name)))


@runs.command()
@click.argument("name", default="latest")
@click.option("--json", "as_json", is_flag=True, help="Prints run.json as it is.")
@_OUTPUT
def show(name: str, as_json: bool, output: Path) -> None:
    """Shows one run: its id, the start of its id, or 'latest'."""
    from pipelines.local.runfile import read_run

    run = read_run(output, name)
    if as_json:
        click.echo(json.dumps(run, indent=2, ensure_ascii=False))
        return
    click.echo(line(run))
    click.echo(f"  {run['sentence']}")
    for stage in run["stages"]:
        state = str(stage["status"])
        if state == "finished":
            cached = stage["cached"]
            state = "from the cache" if cached else f"{stage['seconds']:.1f} s"
        click.echo(f"  {stage['stage']:<20} {state}")
    for artifact in run["artifacts"].values():
        click.echo(f"  {artifact['name']:<20} {artifact['identity']}")


@runs.command()
@click.argument("first")
@click.argument("second")
@_OUTPUT
def diff(first: str, second: str, output: Path) -> None:
    """Shows where two runs differ: config, data, code, artifacts, outcome."""
    from pipelines.local.runfile import read_run

    runs = (read_run(output, name) for name in (first, second))
    one, two = (
        dict(
            _flat(
                {key: run.get(key) for key in _COMPARED}
                | {"artifacts": {n: a["identity"] for n, a in run["artifacts"].items()}}
            )
        )
        for run in runs
    )
    same = True
    for key in sorted(one.keys() | two.keys()):
        left, right = one.get(key, _ABSENT), two.get(key, _ABSENT)
        if left != right:
            same = False
            click.echo(f"{key}: {left} -> {right}")
    if same:
        click.echo("The runs agree in all that is recorded.")


def line(run: Mapping[str, Any]) -> str:
    """Says how a run ended, in one line."""
    code = run["exit_code"]
    state = "unfinished" if code is None else f"exit {code}"
    verdict = (run["verdict"] or {}).get("decision", _ABSENT)
    seconds = f"{run['seconds']:.0f} s" if "seconds" in run else _ABSENT
    return f"{run['run']}  {state:<10}  {verdict:<11}  {seconds}"


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    # An empty mapping is a value: a section that came or went has to show.
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{where}.{key}" if where else str(key))
    else:
        yield where, json.dumps(value, ensure_ascii=False)
