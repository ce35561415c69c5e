"""`safescale data`: built-in data sets, fetched, checked and put into a store."""

from __future__ import annotations

from pathlib import Path

import click


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
    from safescale_ammt.data.catalogue import builtin_dataset

    for role, uri in _fetched(name, store, output).items():
        click.echo(f"data.{role}={uri}")
        click.echo(f"  {builtin_dataset(name).members[role].sha256}")


def _fetched(name: str, store: str | None, output: Path | None) -> dict[str, str]:
    """Brings the files to their place; returns a URI by role."""
    if output is not None:
        from safescale_ammt.data.fetching import fetch as fetch_files

        paths = fetch_files(name, output)
        return {role: path.resolve().as_uri() for role, path in paths.items()}
    from pipelines.local.store import opened
    from pipelines.sources import fetched

    with opened(store) as place:
        return dict(fetched(name, place))
