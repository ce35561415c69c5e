"""`safescale data`: built-in data sets, and the sealed rows that a store keeps."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.options import LONGEST, FiniteRange
from pipelines.headline import ABSENT
from pipelines.output import aligned, say, say_json
from safescale_ammt.errors import InputError

if TYPE_CHECKING:
    from safescale_ammt.store.base import Store

_HEAD = ("kind", "digest", "bytes", "written", "versions", "told")


@click.group()
def data() -> None:
    """Fetches built-in data sets; lists and removes sealed rows in a store."""


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


@data.command()
@click.argument("digests", nargs=-1, metavar="[DIGEST]...")
@click.option(
    "--store", metavar="URI", help="Object store  [default: the embedded one]."
)
@click.option(
    "--older-than",
    type=FiniteRange(0, LONGEST),
    metavar="DAYS",
    help="Only what was written longer ago, and what no registered version names.",
)
@click.option("--remove", is_flag=True, help="Removes what is listed.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def sealed(
    *,
    digests: tuple[str, ...],
    store: str | None,
    older_than: float | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Lists the sealed rows and the evidence that a store keeps, or removes them.

    All of them, or those with a DIGEST, of a holdout or a verdict. Rows that are gone
    are written again by a run without cache; evidence of a registered version is in its
    bundle too. Of rows of which one bit was told (gate.feedback: bit) it says how
    often, and how many planned uses are left. The verdict behind an answer is listed
    too, and never removed: nothing else bears the answer out.
    """
    from pipelines.local.store import opened_store
    from safescale_ammt.errors import StoreInputError
    from safescale_ammt.execution import utc_now
    from safescale_ammt.store.auditor import kept_answers
    from safescale_ammt.store.protected import all_kept

    if remove and not digests and older_than is None:
        raise click.UsageError("--remove needs DIGEST or --older-than DAYS.")
    with opened_store(store, reads_only=not remove) as opened:
        every, named = all_kept(opened), named_by_versions(opened)
        told = told_of_rows(opened)
        try:
            answers = kept_answers(opened)
        except StoreInputError as error:
            # A key of before there were answers opens all else.
            answers = []
            say(f"Verdicts behind answers are not listed: {error}", err=True)
        if remove:
            for digest in {kept.digest for kept in answers} & set(digests):
                raise InputError(
                    f"{digest} is an answer, and what lies behind it is the only "
                    "evidence for it; nothing of ours removes it."
                )
        else:
            every += answers
        for digest in set(digests) - {kept.digest for kept in every}:
            raise InputError(f"{opened.uri} keeps nothing of {digest}.")
        chosen = [kept for kept in every if not digests or kept.digest in digests]
        if older_than is not None:
            before = utc_now() - timedelta(days=older_than)
            chosen = [
                kept
                for kept in chosen
                if kept.written < before and kept.digest not in named
            ]
        for key in (key for kept in chosen if remove for key in kept.keys):
            opened.delete(key)
    rows = [
        {
            "kind": kept.kind,
            "digest": kept.digest,
            "bytes": kept.size,
            "written": kept.written.isoformat(timespec="seconds"),
            "versions": named[kept.digest],
            "told": told.get(kept.digest, {}),
            "removed": remove,
        }
        for kept in chosen
    ]
    if as_json:
        say_json(rows)
        return
    if rows:
        say("\n".join(aligned([_HEAD, *map(row_of, rows)])))
    count = f"{len(rows)} of {len(every)}"
    say(f"{'Removed' if remove else 'Listed'} {count} in {opened.uri}.")


def row_of(kept: dict[str, Any]) -> tuple[str, ...]:
    """Spells one line of the list of what is kept."""
    spelled = {
        **kept,
        "bytes": f"{kept['bytes']:,}",
        "versions": ", ".join(kept["versions"]) or ABSENT,
        "told": "{bits} of {planned} bits, {left} left".format_map(kept["told"])
        if kept["told"]
        else ABSENT,
    }
    return tuple(spelled[name] for name in _HEAD)


def told_of_rows(store: Store) -> dict[str, dict[str, int]]:
    """Returns what was told of holdouts by one bit each, by their digest.

    Each has `bits`, uses that were answered, `planned` ones, and those `left`: models
    that can still be judged with a guarantee.
    """
    from safescale_ammt.releasing import ledger

    found: dict[str, dict[str, int]] = {}
    every = ledger.uses(store)
    for use in (use for use in every if use.answers):
        same = [u for u in every if u.holdout == use.holdout]
        found[use.holdout] = {
            "bits": sum(bool(u.answers) for u in same),
            "planned": min(u.planned for u in same),
            "left": ledger.left(store, use),
        }
    return found


def named_by_versions(store: Store) -> dict[str, list[str]]:
    """Returns digest of a holdout or verdict -> the registered versions that name it.

    Looked up in the registry's store, if the environment names one, else in `store`.
    """
    from pipelines.local.resolution import registered_names
    from safescale_ammt.releasing.registry import Registry
    from safescale_ammt.store.environment import registry_store, registry_variable
    from safescale_ammt.store.uri import STORE

    apart = os.environ.get(registry_variable(STORE))
    place = registry_store(os.environ) if apart else store
    named: dict[str, list[str]] = defaultdict(list)
    for name in registered_names(place):
        for version in Registry(place, name).versions():
            for digest in {version.entry.holdout, version.entry.verdict}:
                named[digest].append(f"{name} {version.number}")
    return named
