"""`safescale verify`, `report` and `predict`: what a finished model is good for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.registry import registry_options
from pipelines.output import say

if TYPE_CHECKING:
    from safescale_ammt.releasing.versions import Version


def places_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say where a bundle, a version or a run is looked for."""
    runs = click.option(
        "--runs",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("runs"),
        show_default=True,
        help="Folder of runs.",
    )
    return registry_options(runs(command))


@click.command()
@click.argument("word", metavar="DIR|URI|VERSION|RUN")
@click.option("--digest", default="", help="Digest that somebody you trust recorded.")
@click.option(
    "--data",
    "rows",
    metavar="DIR|URI",
    help="Holdout artifact: model and twin answer its sealed rows again.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exits with 3 also if nobody vouches for the digest, or if --data had no "
    "evidence to compare with.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@places_options
def verify(
    *,
    word: str,
    digest: str,
    rows: str | None,
    strict: bool,
    as_json: bool,
    store: str | None,
    name: str | None,
    runs: Path,
) -> None:
    """Checks a bundle or an artifact: every byte, and a bundle's every figure and word.

    A folder needs no network and no store. Of a run (runs/latest, or the start of its
    id) it is the bundle that it registered, else its verdict. What nobody vouches for,
    by the registry's events or by --digest, is whole, but by whom is not shown. What
    was not derived again is named as no evidence. With --data the sealed rows are
    answered again. Under gate.feedback: bit the figures are derived again, and the rows
    answered, for who has the auditor's key of the store of data.
    """
    from pipelines.auditing import auditor_view
    from pipelines.local.resolution import Places, found
    from pipelines.verification import checked
    from safescale_ammt.errors import Refusal

    with ExitStack() as stack:
        meant = stack.enter_context(found(word, Places(store, name, runs)))
        sealed = None
        if rows:
            sealed = stack.enter_context(found(rows, Places(store, name, runs))).folder
        view = stack.enter_context(auditor_view(meant))
        result = checked(meant, digest, sealed, view)
    say(result.as_json() if as_json else result.as_text())
    if strict and not result.anchor:
        raise Refusal(
            f"{result.subject} is vouched for by nobody, which --strict refuses: give "
            "--digest with a digest that somebody you trust recorded, or name a "
            "version of the registry that holds it."
        )
    if strict and sealed and not result.rescored:
        raise Refusal(
            f"The model of {result.subject} was not asked again, which --strict "
            "refuses beside --data: its evidence is the auditor's, whose key of the "
            "store of data shows it (gate.feedback: bit)."
        )


@click.command()
@click.argument("word", metavar="DIR|URI|VERSION|RUN")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="Page to write.",
)
@click.option(
    "--annex-iv",
    is_flag=True,
    help="Writes what the record says in the structure of EU AI Act Annex IV: one page "
    "for a file .html, else Markdown.",
)
@places_options
def report(
    *,
    word: str,
    output: Path,
    annex_iv: bool,
    store: str | None,
    name: str | None,
    runs: Path,
) -> None:
    """Writes the report of a bundle or a verdict again, from its evidence.

    Of a version in the registry it tells what people decided about it, too. Under
    gate.feedback: bit it is the page of the answer; with the auditor's key of the store
    of data the whole report, which is then for the auditor alone: `safescale open` is
    what tells it to others.
    """
    from pipelines.auditing import auditor_view
    from pipelines.local.resolution import Places, found
    from pipelines.output import write_text

    with ExitStack() as stack:
        meant = stack.enter_context(found(word, Places(store, name, runs)))
        view = stack.enter_context(auditor_view(meant))
        if annex_iv:
            page = annex_of(meant.folder, meant.version)
            if output.suffix.lower() in (".html", ".htm"):
                from safescale_ammt.reporting.markdown_page import markdown_page

                page = markdown_page(page, "from the record of one release.")
        elif view and not view.folder:
            page = answer_again(meant.folder)
            say(f"The figures are the auditor's: {view.why}", err=True)
        else:
            folder = view.folder if view and view.folder else meant.folder
            page = page_again(folder, meant.version)
        say(f"Wrote {write_text(output, page)}.")


def answer_again(folder: Path) -> str:
    """Returns the page of a bundle's answer, or of an answer artifact."""
    from safescale_ammt.releasing.answers import verify_answer
    from safescale_ammt.reporting.answer_page import answer_page

    inside = folder / "verdict"
    _, answer, constitution = verify_answer(inside if inside.is_dir() else folder)
    return answer_page(answer, constitution)


def annex_of(folder: Path, version: Version | None = None) -> str:
    """Returns a bundle's technical documentation, once all of it is verified.

    Raises:
        InputError: it is no bundle, or its figures are the auditor's.
        IntegrityError: it is not whole.
    """
    from safescale_ammt.errors import InputError
    from safescale_ammt.judging.verdict import Verdict
    from safescale_ammt.releasing.annex_iv import annex_iv
    from safescale_ammt.releasing.bundle import verify_bundle

    checked = verify_bundle(folder, version.entry.bundle_digest if version else "")
    if not isinstance(checked.verdict, Verdict):
        raise InputError(
            f"{folder} holds an answer without figures (gate.feedback: bit), so there "
            "is next to nothing to tell under Annex IV; what the auditor reads is the "
            "report (without --annex-iv)."
        )
    return annex_iv(folder, checked.verdict, checked.digest, version)


def page_again(folder: Path, version: Version | None = None) -> str:
    """Returns the report of a bundle or a verdict, from its evidence.

    Args:
        folder: of the bundle or the verdict.
        version: that it is in a registry; what people decided stands on the page.
    """
    from safescale_ammt.constitution.constitution import Constitution
    from safescale_ammt.files.artifacts import verify
    from safescale_ammt.files.canonical import read_json
    from safescale_ammt.judging.assembly import rederive
    from safescale_ammt.releasing.bundle import ABOUT
    from safescale_ammt.releasing.page import page_of

    inside = folder / "verdict"
    verdict = inside if inside.is_dir() else folder
    # A page of figures that were changed would look as good as the true one.
    verify(verdict, "verdict")
    constitution = Constitution.from_dict(read_json(verdict / "constitution.json"))
    about = folder / ABOUT  # of a bundle; its version stands in the registry alone
    name = read_json(about)["registry"]["name"] if about.is_file() else ""
    rederive(verdict, constitution)
    return page_of(verdict, constitution, name=name, decided=version)


@click.command()
@click.argument("model", metavar="VERSION|RUN|DIR|URI")
@click.option(
    "--data",
    "rows",
    required=True,
    metavar="FILE",
    help="CSV or Parquet with the raw columns, or images; no label needed; - = "
    "standard input.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Written as its ending says: .csv .tsv .jsonl .parquet, also with .gz .zst "
    ".bz2 .xz after it; - = CSV on standard output.",
)
@click.option(
    "--id",
    "ids",
    multiple=True,
    metavar="COLUMN",
    help="Column to keep beside the answers; may be repeated  [default: data.ids and "
    "data.entity, else the row's number from 0].",
)
@places_options
def predict(
    *,
    model: str,
    rows: str,
    output: Path,
    ids: tuple[str, ...],
    store: str | None,
    name: str | None,
    runs: Path,
) -> None:
    """Scores raw rows with a registered version, a run's, a bundle or a model folder.

    Of a registry, or of a run, the champion alone answers. A folder or an address has
    no status: it answers, and what it is good for is its owner's to know. The output
    holds ids, prediction and score: the model's probability of the positive class, or
    of the predicted one where none is positive.
    """
    from pipelines.local.resolution import Places, found, status_now
    from pipelines.local.store import opened_store
    from pipelines.predict import write_predictions
    from safescale_ammt.errors import Refusal
    from safescale_ammt.releasing.versions import CHAMPION, PENDING

    with ExitStack() as stack:
        meant = stack.enter_context(found(model, Places(store, name, runs)))
        status = status_now(meant, store)
        if status not in ("", CHAMPION):
            why = "only a champion answers"
            if status == PENDING:
                why = (
                    "the gate did not pass it, so it may not answer until people "
                    "approve it (`safescale approve`)"
                )
            raise Refusal(f"{meant.title} is {status.replace('_', ' ')}: {why}.")
        if rows.startswith("s3:"):
            stack.enter_context(opened_store(store, reads_only=True))
        count = write_predictions(meant.folder, rows, output, ids)
    say(f"Wrote {count} predictions to {output}.", err=str(output) == "-")
