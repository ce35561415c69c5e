"""`safescale open`: figures that the auditor has, told to everybody."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from pipelines.commands.bundle import places_options
from pipelines.output import say


@click.command("open")
@click.argument("word", metavar="DIR|URI|VERSION|RUN")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the verdict to write, with its report.",
)
@places_options
def open_(
    *, word: str, output: Path, store: str | None, name: str | None, runs: Path
) -> None:
    """Opens a use of sealed rows of which one bit was told (gate.feedback: bit).

    Writes the whole verdict as a run leaves it under gate.feedback: figures, once the
    ledger says that it is readable: from then on the next, different model on these
    rows needs a person. Needs the key of the store of data. A verdict that needs a
    person may then be registered as pending, by `safescale stage register_model`.
    """
    from pipelines.auditing import answer_folder, data_store_of
    from pipelines.local.resolution import Places, found
    from safescale_ammt.errors import InputError
    from safescale_ammt.judging.gate import NEEDS_HUMAN
    from safescale_ammt.releasing.answers import opened_verdict

    with ExitStack() as stack:
        meant = stack.enter_context(found(word, Places(store, name, runs)))
        answer = answer_folder(meant.folder)
        if answer is None:
            raise InputError(
                f"{meant.title} holds no answer of one bit (gate.feedback: bit): its "
                "figures are readable where it lies."
            )
        data = stack.enter_context(data_store_of(meant, reads_only=False))
        verdict, use = opened_verdict(data, answer, output)
    say(
        f"Use {use.number} of {use.planned} is opened: the gate decides "
        f"{verdict.decision}. {output} holds the verdict and its report."
    )
    if verdict.decision == NEEDS_HUMAN:
        say(
            "To register it as pending: safescale stage register_model model=MODEL "
            f"verdict={output} constitution=FILE registry=FILE version=DIR"
        )
