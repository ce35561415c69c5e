"""What the key at hand shows of the verdict behind an answer (`gate.feedback: bit`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.local.resolution import EMBEDDED, Found
from pipelines.local.store import opened_store
from safescale_ammt.errors import InputError, StorageError
from safescale_ammt.files.artifacts import MANIFEST, read_manifest
from safescale_ammt.judging.answer import KIND
from safescale_ammt.store.base import Store


@dataclass(frozen=True)
class AuditorView:
    """The verdict behind an answer, or why the key at hand does not show it.

    Attributes:
        folder: the whole verdict, derived again; None = it is not shown.
        checks: what holds of it, one sentence each.
        why: why it is not shown, one sentence.
    """

    folder: Path | None
    checks: tuple[str, ...] = ()
    why: str = ""


@contextmanager
def auditor_view(meant: Found) -> Iterator[AuditorView | None]:
    """Gives what the key at hand shows; None of what is no answer.

    Raises:
        IntegrityError: answer, verdict or ledger was changed, or they are not of each
            other.
    """
    answer = answer_folder(meant.folder)
    if answer is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            store = stack.enter_context(data_store_of(meant, reads_only=True))
            view = stack.enter_context(_shown(store, answer))
        # No key, a key of others, no store or another: each is said, none is a fault.
        except (InputError, StorageError) as error:
            view = AuditorView(None, why=str(error))
        yield view


def answer_folder(folder: Path) -> Path | None:
    """Returns the answer artifact that a folder is, or that a bundle holds."""
    for place in (folder, folder / "verdict"):
        if (place / MANIFEST).is_file() and read_manifest(place).kind == KIND:
            return place
    return None


@contextmanager
def data_store_of(meant: Found, *, reads_only: bool) -> Iterator[Store]:
    """Opens the store of data behind what was found."""
    chosen = None if meant.store == EMBEDDED else meant.store
    with opened_store(chosen, reads_only=reads_only) as store:
        yield store


@contextmanager
def _shown(store: Store, answer: Path) -> Iterator[AuditorView]:
    """Gives the verdict behind an answer, and what it and the ledger show."""
    from safescale_ammt.constitution.constitution import Constitution
    from safescale_ammt.files.canonical import read_json
    from safescale_ammt.releasing.answers import CONSTITUTION, behind
    from safescale_ammt.releasing.use_check import check_use

    with behind(store, answer) as (folder, verdict):
        constitution = Constitution.from_dict(read_json(answer / CONSTITUTION))
        planned = constitution.gate.planned_submissions
        use, _ = check_use(store, folder, verdict, planned, answered=True)
        checks = (
            (
                f"All figures and {len(verdict.findings)} findings follow from the "
                f"evidence of {verdict.rows:,} rows, which the auditor's part of "
                f"{store.uri} holds."
            ),
            f"The gate decides {verdict.decision} on them, as was answered.",
            (
                f"The ledger holds use {use.number} of {use.planned} with guarantee "
                f"{use.guarantee}, answered by this verdict"
                f"{', and opened since' if use.opened else ''}."
            ),
        )
        yield AuditorView(folder, checks)
