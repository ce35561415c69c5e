"""`safescale verify`, `report` and `predict`: what a finished model is good for."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from pipelines.commands.registry import registry_options


@click.command()
@click.argument("place", metavar="DIR|URI")
@click.option("--digest", default="", help="Digest that the registry recorded.")
@click.option("--store", metavar="URI", help="Store that an s3:// URI lies in.")
def verify(place: str, digest: str, store: str | None) -> None:
    """Checks a bundle or an artifact: every byte, and a bundle's every figure.

    A folder needs no network and no store. An s3:// URI is downloaded first.
    """
    from pipelines.local.store import opened_store
    from safescale_ammt.files import artifacts
    from safescale_ammt.store.uri import open_store, split_uri

    with ExitStack() as stack:
        folder = Path(place)
        if "://" in place:
            # A folder's URI needs no store and no key, as its path needs none.
            if not place.startswith("file:"):
                stack.enter_context(opened_store(store))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            home, key = split_uri(place)
            open_store(home).download_folder(key, folder)
        # A bundle holds the evidence too, so its figures can be computed again.
        kind = artifacts.read_manifest(folder).kind
        if kind != "bundle":
            identity = artifacts.verify(folder).identity
            click.echo(f"The {kind} artifact {identity} is whole.")
            return
        from safescale_ammt.releasing.bundle import verify_bundle

        verified = verify_bundle(folder, digest)
        for check in verified.checks:
            click.echo(f"ok  {check}")
        click.echo(f"Bundle {verified.digest} is whole: {verified.verdict.decision}.")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="Page to write.",
)
def report(folder: Path, output: Path) -> None:
    """Writes the report of a bundle or a verdict again, from its evidence.

    The training curves are in it only where the model lies beside the verdict.
    """
    import json
    from dataclasses import replace

    from pipelines.output import write_text
    from safescale_ammt.constitution.constitution import Constitution
    from safescale_ammt.data.audit_warnings import WARNINGS, read_warnings
    from safescale_ammt.files.artifacts import verify
    from safescale_ammt.files.canonical import read_json
    from safescale_ammt.judging.assembly import rederive
    from safescale_ammt.releasing.bundle import ABOUT
    from safescale_ammt.reporting.provenance import Provenance
    from safescale_ammt.reporting.report import render

    inside = folder / "verdict"
    verdict = inside if inside.is_dir() else folder
    # A page of figures that were changed would look as good as the true one.
    verify(verdict, "verdict")
    constitution = Constitution.from_dict(read_json(verdict / "constitution.json"))
    log = folder / "model" / "training.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    origin = Provenance.load(verdict)
    if (folder / ABOUT).is_file():  # a bundle; its version stands in the registry alone
        name = read_json(folder / ABOUT)["registry"]["name"]
        origin = replace(origin, name=name)
    page = render(
        rederive(verdict, constitution),
        constitution,
        training=[json.loads(line) for line in lines],
        provenance=origin,
        warnings=read_warnings(verdict / WARNINGS),
    )
    click.echo(f"Wrote {write_text(output, page)}.")


@click.command()
@click.argument("model", metavar="VERSION|DIR")
@click.option(
    "--data",
    "rows",
    required=True,
    help="CSV or Parquet file with the raw columns; the label is not needed.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="CSV to write: row, prediction, score.",
)
@registry_options
def predict(
    model: str, rows: str, output: Path, store: str | None, name: str | None
) -> None:
    """Scores raw rows with a registered version, a bundle or a model folder.

    A version is its number, 'champion' or 'latest'; one that is
    pending is refused.
    """
    from pipelines.commands.registry import chosen_registry
    from pipelines.local.store import opened_store
    from pipelines.predict import write_predictions
    from safescale_ammt.errors import Refusal
    from safescale_ammt.releasing.versions import PENDING

    with ExitStack() as stack:
        # A folder of that name wins over a registered version.
        folder = Path(model)
        if not folder.is_dir():
            registry = chosen_registry(stack.enter_context(opened_store(store)), name)
            version = registry.show(model)
            if version.status == PENDING:
                raise Refusal(
                    f"{registry.name} version {version.number} is pending: its "
                    "promises are not shown to be kept, so that it may not answer."
                )
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            registry.get_bundle(version, folder)
        count = write_predictions(folder, rows, output)
    click.echo(f"Wrote {count} predictions to {output}.")
