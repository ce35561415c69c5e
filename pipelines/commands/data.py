"""`safescale data`: built-in data sets, fetched, checked and put into a store."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.output import say


@click.group()
def data() -> None:
    """Fetches built-in data sets."""


@data.command()
@click.argument("name")
@click.option(
    "--store", metavar="URI", help="Object store  [default: the embedded one]."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to instead of a store.",
)
def fetch(name: str, store: str | None, output: Path | None) -> None:
    """Fetches data set NAME, checks its digest and puts it into the store.

    Prints where its files lie, as --set takes it. Files that are there with the
    right bytes are left alone.
    """
    if store and output:
        raise click.UsageError("Give --store or --output, not both.")
    from pipelines.local.state import DOWNLOADS
    from pipelines.local.store import opened_store
    from safescale_ammt.reading import fetching
    from safescale_ammt.reading.catalogue import builtin_dataset

    # Before a store is opened: the embedded one would start for a name nobody knows.
    members = builtin_dataset(name).members
    if output is not None:
        paths = fetching.fetch(name, output)
        uris = {role: path.resolve().as_uri() for role, path in paths.items()}
    else:
        with opened_store(store) as opened:
            uris = fetching.fetch_to_store(name, opened, DOWNLOADS)
    for role, uri in uris.items():
        say(f"data.{role}={uri}")
        say(f"  {members[role].sha256}")
