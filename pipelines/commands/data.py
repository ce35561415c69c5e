"""`safescale data`: built-in data sets, fetched, checked and put into a store."""

from __future__ import annotations

import click


@click.group()
def data() -> None:
    """Fetches built-in data sets."""


@data.command()
@click.argument("name")
@click.option(
    "--store", metavar="URI", help="Object store  [default: the embedded one]."
)
def fetch(name: str, store: str | None) -> None:
    """Fetches data set NAME, checks its digest and puts it into the store."""
    from pipelines.source import fetched
    from pipelines.store import opened

    with opened(store) as place:
        for role, uri in fetched(name, place).items():
            click.echo(f"{role}: {uri}")
