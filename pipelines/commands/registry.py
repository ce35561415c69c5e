"""`safescale registry`: the versions that were registered, and whether all is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from safescale_ammt.errors import InputError, one_of

if TYPE_CHECKING:
    from safescale_ammt.releasing.registry import Registry
    from safescale_ammt.releasing.versions import Version
    from safescale_ammt.store.base import Store

PREFIX = "registry/"  # the keys below which `releasing.registry` keeps each name


def registry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the two options that say which registry is meant."""
    name = click.option(
        "--name", help="Registered model  [default: the only one there is]."
    )
    store = click.option(
        "--store", metavar="URI", help="Object store  [default: the embedded one]."
    )
    return name(store(command))


@click.group()
def registry() -> None:
    """Lists, shows and verifies registered versions."""


@registry.command("list")
@registry_options
def list_(store: str | None, name: str | None) -> None:
    """Lists the versions of every registered model, or of one."""
    from pipelines.local.store import opened_store
    from safescale_ammt.releasing.registry import Registry

    with opened_store(store) as opened:
        names = [name] if name else registered_names(opened)
        if not names:
            click.echo(f"Nothing is registered in {opened.uri}.")
        for each in names:
            for version in Registry(opened, each).versions():
                click.echo(line(each, version))


@registry.command()
@click.argument("version", default="champion")
@registry_options
def show(version: str, store: str | None, name: str | None) -> None:
    """Shows one version: its number, 'champion', 'pending' or 'latest'."""
    from pipelines.local.store import opened_store

    with opened_store(store) as opened:
        chosen = chosen_registry(opened, name)
        facts = asdict(chosen.show(version))
    click.echo(json.dumps({"name": chosen.name, **facts}, indent=2))


@registry.command()
@registry_options
def verify(store: str | None, name: str | None) -> None:
    """Hashes every event and every file of every bundle again."""
    from pipelines.local.store import opened_store

    with opened_store(store) as opened:
        chosen = chosen_registry(opened, name)
        versions = chosen.verify()
    click.echo(f"{chosen.name}: {len(versions)} versions, every byte is as registered.")


def registered_names(store: Store) -> list[str]:
    """Returns the names under which something is registered, sorted."""
    keys = (info.key.removeprefix(PREFIX) for info in store.list(PREFIX))
    return sorted({key.split("/")[0] for key in keys})


def chosen_registry(store: Store, name: str | None) -> Registry:
    """Opens the registry of a name, or of the only name there is.

    Raises:
        InputError: nothing has that name, or there are several and none is given.
    """
    from safescale_ammt.releasing.registry import Registry

    names = registered_names(store)
    if not names:
        raise InputError(f"Nothing is registered in {store.uri}.")
    # Nobody with one model has to name it; with two, a guess could be the wrong one.
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise InputError(
            f"--name is {name!r}, but {store.uri} has no such registered model, "
            f"{one_of(names, name)}."
        )
    return Registry(store, name)


def line(name: str, version: Version) -> str:
    """Says what a version is, in one line."""
    return (
        f"{name}  {version.number:>3}  {version.status:<10}  {version.at}  "
        f"{version.entry.model}"
    )
