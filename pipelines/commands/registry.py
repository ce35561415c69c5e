"""`safescale registry`: the versions that were registered, and whether all is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.headline import ABSENT, COLUMNS, headline, told
from pipelines.output import aligned, say, say_json
from safescale_ammt.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from safescale_ammt.releasing.registry import Registry
    from safescale_ammt.releasing.versions import Version

_HEAD = ("name", "version", "status", *COLUMNS, "registered", "report")
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


def registry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the two options that say which registry is meant."""
    name = click.option(
        "--name", help="Registered model  [default: the only one there is]."
    )
    return name(store_option(command))


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the option that says which store is meant."""
    return click.option(
        "--store", metavar="URI", help="Object store  [default: the embedded one]."
    )(command)


@click.group()
def registry() -> None:
    """Lists, shows, verifies and downloads registered versions."""


@registry.command("list")
@_JSON
@registry_options
def list_(store: str | None, name: str | None, as_json: bool) -> None:
    """Lists the versions of every registered model, or of one.

    Decision, accuracy and gap are those of the sealed evaluation; the gap is that of
    the promise by group which has least room left.
    """
    from pipelines.local.resolution import registered_names
    from pipelines.local.store import opened_store
    from safescale_ammt.releasing.registry import Registry

    with opened_store(store, reads_only=True) as opened:
        names = [name] if name else registered_names(opened)
        all_of = {each: Registry(opened, each) for each in names}
        rows = [
            facts(one, version) for one in all_of.values() for version in one.versions()
        ]
    if as_json:
        say_json(rows)
    elif not rows:
        say(f"Nothing is registered in {opened.uri}.")
    else:
        say("\n".join(aligned([_HEAD, *map(row, rows)])))


@registry.command()
@click.argument("words", nargs=-1, metavar="[NAME] [VERSION]")
@_JSON
@registry_options
def show(
    words: tuple[str, ...], store: str | None, name: str | None, as_json: bool
) -> None:
    """Shows one version: its number, 'champion' (the default), 'pending' or 'latest'.

    NAME is the registered model's, as for `--name`; it may be left out if there is one.
    """
    from pipelines.local.resolution import VERSION, chosen_registry
    from pipelines.local.store import opened_store

    *names, version = words or ("champion",)
    # One word that is no version is a name, as `download` takes it.
    if not names and not VERSION.fullmatch(version):
        names, version = [version], "champion"
    if len(names) + bool(name) > 1:
        raise click.UsageError("Give NAME and VERSION, or one of them, and NAME once.")
    name = name or next(iter(names), None)
    with opened_store(store, reads_only=True) as opened:
        chosen = chosen_registry(opened, name)
        shown = facts(chosen, chosen.show(version))
    if as_json:
        say_json(shown)
        return
    lines = list(zip(_HEAD, row(shown), strict=True))
    lines.append(("predecessor", str(shown["predecessor"] or ABSENT)))
    lines += [(key, value) for key, value in shown["entry"].items() if value]
    say("\n".join(aligned(lines)))


@registry.command()
@registry_options
def verify(store: str | None, name: str | None) -> None:
    """Hashes every event and every file of every bundle again, of all models or one."""
    from pipelines.local.resolution import chosen_registry, registered_names
    from pipelines.local.store import opened_store

    damaged: list[str] = []
    with opened_store(store, reads_only=True) as opened:
        names: list[str | None] = [name] if name else [*registered_names(opened)]
        # Without a name there is one sentence: that nothing is registered.
        for chosen in [chosen_registry(opened, each) for each in names or [None]]:
            try:
                count = len(chosen.verify())
            except IntegrityError as error:
                # The others are looked at all the same: one fault may hide no other.
                damaged.append(chosen.name)
                say(f"{chosen.name}: {error}", err=True)
                continue
            plural = "s" * (count != 1)
            say(f"{chosen.name}: {count} version{plural}, every byte is as registered.")
    if damaged:
        raise IntegrityError(
            f"{len(damaged)} of {len(names)} registered models are damaged: "
            f"{', '.join(damaged)}."
        )


@registry.command()
@click.argument("words", nargs=-1, metavar="NAME [VERSION] DIR")
@click.option("--replace", is_flag=True, help="Replaces what lies at DIR.")
@store_option
def download(words: tuple[str, ...], replace: bool, store: str | None) -> None:
    """Brings the bundle of a version, by default the champion, into a new folder DIR.

    The folder appears once every byte is checked by the digest that was registered.
    One that is there is left alone, unless it is empty.
    """
    from pipelines.download import place_bundle
    from pipelines.local.resolution import chosen_registry
    from pipelines.local.store import opened_store

    if len(words) not in (2, 3):
        raise click.UsageError("Give NAME and DIR, or NAME, VERSION and DIR.")
    name, *version, place = words
    with opened_store(store, reads_only=True) as opened:
        chosen = chosen_registry(opened, name)
        registered = chosen.show(version[0] if version else "champion")
        old = place_bundle(chosen, registered, Path(place), replace=replace)
    title = f"{chosen.name} version {registered.number} ({registered.status})"
    say(f"{title} is in {place}{', in place of what was there' if old else ''}.")


def facts(registry: Registry, version: Version) -> dict[str, Any]:
    """Returns what is told of a version; a damaged bundle is said on stderr."""
    try:
        figures = headline(registry.verdict(version))
    except (InputError, IntegrityError) as error:
        figures = None
        say(f"{registry.name} version {version.number}: {error}", err=True)
    return {
        "name": registry.name,
        **asdict(version),
        "verdict": figures,
        "report": registry.report(version),
    }


def row(shown: dict[str, Any]) -> tuple[str, ...]:
    """Spells what `facts` returns in the columns of a list."""
    _, *figures = told(shown["verdict"])
    return (
        shown["name"],
        str(shown["number"]),
        shown["status"],
        shown["entry"]["decision"],
        *figures,
        shown["at"],
        shown["report"],
    )
