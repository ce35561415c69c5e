"""`safescale keygen`, `approve` and the other commands by which people decide.

No pod waits for them: a version is pending for as long as it takes, and each command
signs one decision and adds it to the registry's log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.registry import act_told, name_and_version, registry_options
from pipelines.headline import headline, told
from pipelines.output import say

if TYPE_CHECKING:
    from safescale_ammt.releasing.registry import Registry
    from safescale_ammt.releasing.versions import Version

_KEY = click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Your private key, from `safescale keygen`.",
)
_REASON = click.option("--reason", required=True, help="Why, for who reads the record.")


def deciding_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds version, store, name and ledger."""
    words = click.argument("words", nargs=-1, required=True, metavar="[NAME] VERSION")
    ledger = click.option(
        "--ledger",
        metavar="URI",
        help="The ledger's store  [default: the same store].",
    )
    return words(ledger(registry_options(command)))


@click.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the private key  [default: NAME.key].",
)
def keygen(name: str, out: Path | None) -> None:
    """Draws a key for the approver NAME and prints the constitution's line for it.

    The file is its owner's alone (mode 0600) and never written over. Keep it where no
    pipeline runs: who holds it decides in that name.
    """
    from safescale_ammt.errors import InputError
    from safescale_ammt.printable import unseen_in
    from safescale_ammt.releasing.key_files import new_key

    if not name.strip() or unseen_in(name) or (out is None and "/" in name):
        raise InputError(f"NAME is {name!r}, expected an approver's name; --out FILE.")
    path = out or Path(f"{name}.key")
    public = new_key(path)
    # JSON's quotes are YAML's, whatever the name holds.
    say(f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(public)}")
    say(f"Wrote the private key to {path}.", err=True)


@click.command()
@_KEY
@_REASON
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the signed approval; then nothing is written into the registry.",
)
@deciding_options
def approve(*, out: Path | None, **options: Any) -> None:
    """Signs that a pending version may serve, and what that waives.

    Its bundle is checked first, down to the last figure. The approval counts until
    human.expires_days are over; `promote` makes the version champion once a quorum of
    the constitution's approvers has signed. With --out who may only read the registry
    approves: the file is kept in git, and `safescale submit --pipeline promote` brings
    it there.
    """
    from safescale_ammt.releasing.registry_state import standing
    from safescale_ammt.store.event_log import now

    with ExitStack() as stack:
        chosen, version, tell = _meant(stack, options, "approve")
        if out:
            say(approve_in_file(chosen, version, out, options))
            return
        decided = _decided(chosen, version, "approve", options, whole=True)
        quorum = chosen.terms(decided.entry).human.quorum
        count = len(standing(decided, now().isoformat(timespec="seconds")))
        rest = " `safescale promote` makes it champion." if count >= quorum else ""
        tell(decided, f"{count} of {quorum} approvals.{rest}")


def approve_in_file(
    registry: Registry, version: Version, out: Path, options: dict[str, Any]
) -> str:
    """Signs an approval into a new file; returns a sentence."""
    from pipelines.output import write_text
    from safescale_ammt.errors import InputError
    from safescale_ammt.files.canonical import json_file
    from safescale_ammt.releasing.deciding import check_whole, signed_approval
    from safescale_ammt.releasing.key_files import read_key

    key = read_key(options["key"])
    if out.exists():
        raise InputError(f"{out} exists and is left as it is; name a new file.")
    check_whole(registry, version)
    envelope = signed_approval(registry, version.number, key, options["reason"])
    path = write_text(out, json_file(envelope).decode())
    return (
        f"Wrote the approval of {registry.name} version {version.number} to {path}; "
        "the registry knows of it once it is brought there (`safescale submit "
        "--pipeline promote`)."
    )


@click.command()
@_KEY
@_REASON
@deciding_options
def reject(**options: Any) -> None:
    """Signs that a pending version will never serve; one approver is enough."""
    _one_act("reject", options)


@click.command()
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Your private key; for a version that passed and lost its race.",
)
@click.option("--reason", default="", help="Why; with --key.")
@deciding_options
def promote(**options: Any) -> None:
    """Makes a version champion that enough approvers have approved.

    A version that the gate passed is champion already. If it lost its race against
    another run, an approver may promote it by --key and --reason, over the champion
    that is named.
    """
    from safescale_ammt.errors import InputError
    from safescale_ammt.releasing.deciding import check_whole
    from safescale_ammt.releasing.deciding import promote as promote_by_quorum
    from safescale_ammt.releasing.versions import LOST_RACE

    if bool(options["key"]) != bool(options["reason"]):
        raise click.UsageError("Give --key and --reason together, or neither.")
    with ExitStack() as stack:
        chosen, version, tell = _meant(stack, options, "promote")
        before, title = chosen.champion(), f"{chosen.name} version {version.number}"
        raced = version.status == LOST_RACE
        if raced and not options["key"]:
            raise InputError(
                f"{title} passed and lost its race: an approver promotes it by --key "
                "and --reason."
            )
        if options["key"] and not raced:
            raise InputError(
                f"{title} is {version.status.replace('_', ' ')}: approvals promote a "
                "version (`safescale approve`), --key one that lost its race."
            )
        if raced:
            decided = _decided(chosen, version, "promote", options, whole=True)
        else:
            check_whole(chosen, version)
            decided = promote_by_quorum(chosen, version.number)
        tell(decided, _beside(chosen, decided, before))


@click.command()
@_KEY
@_REASON
@deciding_options
def rollback(**options: Any) -> None:
    """Puts a superseded version back into service; one approver of it is enough."""
    with ExitStack() as stack:
        chosen, version, tell = _meant(stack, options, "rollback")
        before = chosen.champion()
        decided = _decided(chosen, version, "rollback", options, whole=True)
        tell(decided, _beside(chosen, decided, before))


@click.command()
@_KEY
@_REASON
@deciding_options
def revoke(**options: Any) -> None:
    """Takes a version out of service for ever; one approver of it is enough.

    No champion may remain: the next that passes, is approved or is rolled back to
    becomes it.
    """
    _one_act("revoke", options)


def _one_act(act: str, options: dict[str, Any]) -> None:
    with ExitStack() as stack:
        chosen, version, tell = _meant(stack, options, act)
        decided = _decided(chosen, version, act, options)
        nobody = act == "revoke" and not chosen.champion()
        tell(decided, "No champion remains." if nobody else "")


def _meant(
    stack: ExitStack, options: dict[str, Any], act: str
) -> tuple[Registry, Version, Callable[[Version, str], None]]:
    """Opens registry and ledger; returns the version, and what tells of the result.

    Raises:
        InputError: there is no such version, or more than one `pending`.
        IntegrityError: the log is not what the ledger keeps of it.
    """
    from pipelines.local.resolution import chosen_registry
    from pipelines.local.store import opened_store
    from safescale_ammt.errors import InputError
    from safescale_ammt.execution import utc_now
    from safescale_ammt.releasing.anchor import check_registry_head, keep_registry_head
    from safescale_ammt.releasing.ledger import BOOK
    from safescale_ammt.releasing.retention import lock_logs
    from safescale_ammt.releasing.versions import PENDING
    from safescale_ammt.store.uri import open_store

    name, word = name_and_version(options["words"], options["name"])
    opened = stack.enter_context(opened_store(options["store"]))
    place = options["ledger"]
    data = open_store(place, environ=os.environ) if place else opened
    chosen = chosen_registry(opened, name)
    anchored = any(data.list(f"{BOOK}/"))
    if anchored:
        check_registry_head(opened, data, chosen.name)
    version = chosen.show(word)
    pending = [str(v.number) for v in chosen.versions() if v.status == PENDING]
    # The newest may have come since the signer read the report of another one.
    if word == PENDING and len(pending) > 1:
        raise InputError(
            f"{chosen.name} has {len(pending)} pending versions "
            f"({', '.join(pending)}): name the one that you have read by its number."
        )

    def tell(decided: Version, more: str) -> None:
        title = f"{chosen.name} version {decided.number}"
        say(f"{title} is {decided.status.replace('_', ' ')}. {more}".rstrip())
        for decision in [one for one in decided.acts if one.act == act][-1:]:
            say(act_told(asdict(decision)))
        if anchored:
            keep_registry_head(opened, data, chosen.name)
        else:
            say(
                f"No ledger lies in {data.uri}, so that until the next gate nothing "
                "outside of the registry's own store shows this event; --ledger names "
                "the ledger's store.",
                err=True,
            )
        days = chosen.terms(decided.entry).retention_days
        logs = lock_logs(opened, data, chosen.events, days, utc_now())
        if logs.why:
            say(f"The ledger is not locked: {logs.why}", err=True)

    return chosen, version, tell


def _decided(
    registry: Registry,
    version: Version,
    act: str,
    options: dict[str, Any],
    *,
    whole: bool = False,
) -> Version:
    """Signs an act; with `whole`, once the bundle is verified."""
    from safescale_ammt.releasing.deciding import check_whole, decide
    from safescale_ammt.releasing.key_files import read_key

    # The key first: to verify a bundle takes seconds.
    key = read_key(options["key"])
    if whole:
        check_whole(registry, version)
    return decide(registry, version.number, act, key, options["reason"])


def _beside(registry: Registry, version: Version, before: Version | None) -> str:
    """Says over which champion a version was put, with the figures of both."""
    if before is None or before.number == version.number:
        return ""
    ours, theirs = (
        ", ".join(told(headline(registry.verdict(one)))) for one in (version, before)
    )
    return f"It replaces version {before.number} ({theirs}); its own: {ours}."
