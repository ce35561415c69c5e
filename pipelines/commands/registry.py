"""`safescale registry`: the versions that were registered, and whether all is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.headline import ABSENT, COLUMNS, headline, told
from pipelines.output import aligned, say, say_json
from safescale_ammt.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from safescale_ammt.releasing.registry import Registry
    from safescale_ammt.releasing.registry_state import RegistryState
    from safescale_ammt.releasing.versions import Version
    from safescale_ammt.store.base import Store

_HEAD = ("name", "version", "status", *COLUMNS, "registered", "report")
LEDGER = "the ledger of sealed rows"
HEAD = "the signed head"
"""What is told of these; no registered model has such a name."""
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


def registry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the two options that say which registry is meant."""
    name = click.option(
        "--name", help="Registered model  [default: the only one there is]."
    )
    return name(store_option(command))


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the option that says which store is meant."""
    return click.option(
        "--store", metavar="URI", help="Object store  [default: the embedded one]."
    )(command)


@click.group()
def registry() -> None:
    """Lists, shows, verifies and downloads registered versions."""


@registry.command("list")
@_JSON
@registry_options
def list_(store: str | None, name: str | None, as_json: bool) -> None:
    """Lists the versions of every registered model, or of one.

    Decision, accuracy and gap are those of the sealed evaluation; the gap is that of
    the promise by group which has least room left.
    """
    from pipelines.local.resolution import registered_names
    from pipelines.local.store import opened_store
    from safescale_ammt.releasing.registry import Registry

    with opened_store(store, reads_only=True) as opened:
        names = [name] if name else registered_names(opened)
        all_of = {each: Registry(opened, each) for each in names}
        rows = [
            facts(one, version) for one in all_of.values() for version in one.versions()
        ]
    if as_json:
        say_json(rows)
    elif not rows:
        say(f"Nothing is registered in {opened.uri}.")
    else:
        say("\n".join(aligned([_HEAD, *map(row, rows)])))


@registry.command()
@click.argument("words", nargs=-1, metavar="[NAME] [VERSION]")
@_JSON
@registry_options
def show(
    words: tuple[str, ...], store: str | None, name: str | None, as_json: bool
) -> None:
    """Shows one version: its number, 'champion' (the default), 'pending' or 'latest'.

    NAME is the registered model's, as for `--name`; it may be left out if there is one.
    """
    from pipelines.local.resolution import chosen_registry
    from pipelines.local.store import opened_store

    name, version = name_and_version(words or ("champion",), name)
    with opened_store(store, reads_only=True) as opened:
        chosen = chosen_registry(opened, name)
        found = chosen.show(version)
        shown = facts(chosen, found)
        awaits = awaited(chosen, found)
    if as_json:
        say_json({**shown, "awaits": awaits} if awaits else shown)
        return
    lines = list(zip(_HEAD, row(shown), strict=True))
    figures = shown["verdict"] or {}
    if "submissions_left" in figures:
        lines.append(("figures", "the auditor's (gate.feedback: bit)"))
    lines.append(("predecessor", str(shown["predecessor"] or ABSENT)))
    # The decision stands above already.
    entry = shown["entry"].items()
    lines += [(key, value) for key, value in entry if value and key not in _HEAD]
    lines += awaits.items()
    say("\n".join([*aligned(lines), *map(act_told, shown["acts"])]))


def awaited(registry: Registry, version: Version) -> dict[str, str]:
    """Says what a pending version waits for: what is open, and who may decide.

    Returns:
        Words by name, none of a version that is not pending; a damaged bundle is said
        on stderr by `facts`.
    """
    from safescale_ammt.releasing.registry_state import standing
    from safescale_ammt.releasing.versions import PENDING
    from safescale_ammt.reporting.people import SINGLE_PARTY
    from safescale_ammt.store.event_log import now

    if version.status != PENDING:
        return {}
    try:
        terms = registry.terms(version.entry)
    except (InputError, IntegrityError):
        return {}
    counted = standing(version, now().isoformat(timespec="seconds"))
    approvers = [n for n, key in terms.human.approvers.items() if not terms.owns(key)]
    closed = ", ".join(f"{p.what} ({p.kind})" for p in terms.not_overridable)
    quorum = str(terms.human.quorum)
    if terms.human.quorum > len(approvers):
        quorum += f", which cannot be met: {len(approvers)} may approve"
    return {
        "open": ", ".join(f"{p.what} ({p.kind})" for p in terms.open),
        "approvals": f"{len(counted)} of {quorum}",
        "approvers": ", ".join(approvers) or "nobody is named (human.approvers)",
        "run_owner": terms.run_owner or f"not named: {SINGLE_PARTY}",
        **({"kept_from_people": closed} if closed else {}),
    }


def act_told(act: Mapping[str, Any]) -> str:
    """Tells of a person's act in a line: who, what, when, why, and what is waived."""
    from safescale_ammt.reporting.people import SINGLE_PARTY

    waived = ", ".join(f"{p['what']} ({p['kind']})" for p in act["waived"])
    parts = [
        f"{act['act']} by {act['by']}, {act['issued']}",
        f"until {act['expires']}" if act["expires"] else "",
        f"waived without a certificate: {waived}" if waived else "",
        "" if act["independent"] else SINGLE_PARTY,
        f"key {act['key']}",
    ]
    return f"{'; '.join(p for p in parts if p)}: {act['reason']}"


def name_and_version(words: Sequence[str], name: str | None) -> tuple[str | None, str]:
    """Returns which model and which version one or two words mean, and `--name`.

    Raises:
        UsageError: more words than that, or two names.
    """
    from pipelines.local.resolution import VERSION

    *names, version = words
    # One word that is no version is a name, as `download` takes it.
    if not names and not VERSION.fullmatch(version):
        names, version = [version], "champion"
    if len(names) + bool(name) > 1:
        raise click.UsageError("Give NAME and VERSION, or one of them, and NAME once.")
    return name or next(iter(names), None), version


@registry.command()
@click.option(
    "--ledger", metavar="URI", help="Store of the ledger  [default: the same store]."
)
@click.option(
    "--head",
    "kept",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Signed head that somebody kept elsewhere, from `registry head`.",
)
@click.option("--signer", default="", help="Public key that has to have signed it.")
@registry_options
def verify(
    *,
    store: str | None,
    name: str | None,
    ledger: str | None,
    kept: Path | None,
    signer: str,
) -> None:
    """Hashes every event and every file of every bundle again, of all models or one.

    The ledger of sealed rows too, and whether it and the registry still hold what the
    gate last saw of them, and what a signed head says that they held.
    """
    from pipelines.local.resolution import chosen_registry, registered_names
    from pipelines.local.store import opened_store
    from safescale_ammt.store.uri import open_store

    if signer and not kept:
        raise click.UsageError("--signer goes with --head.")
    damaged: list[str] = []

    def look(what: str, check: Callable[[], str]) -> None:
        # The others are looked at all the same: one fault may hide no other. What this
        # version cannot read (InputError), it has not verified.
        try:
            told = check()
        except (InputError, IntegrityError) as error:
            damaged.append(what)
            say(f"{what}: {error}", err=True)
        else:
            say(f"{what}: {told}")

    with opened_store(store, reads_only=True) as opened:
        data = open_store(ledger, environ=os.environ) if ledger else opened
        if holds_ledger(opened, data):
            look(LEDGER, partial(intact_ledger, opened, data))
        if kept:
            look(HEAD, partial(heads_held, opened, data, kept, signer))
        names: list[str | None] = [name] if name else [*registered_names(opened)]
        # Without a name there is one sentence: that nothing is registered.
        for each in names or [None] * (not damaged):
            chosen = chosen_registry(opened, each)
            look(chosen.name, partial(intact_versions, opened, data, chosen))
    faults = ["The ledger is damaged"] * (LEDGER in damaged)
    faults += ["The signed head does not hold"] * (HEAD in damaged)
    if models := [what for what in damaged if what not in (LEDGER, HEAD)]:
        several = f"{len(models)} of {len(names)} registered models are damaged"
        faults.append(f"{several}: {', '.join(models)}")
    if faults:
        raise IntegrityError(f"{'; '.join(faults)}.")


@registry.command()
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Your private key, from `safescale keygen`; an auditor's is no approver's.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("head.json"),
    show_default=True,
    help="File to write; keep it where no key of the stores reaches.",
)
@click.option(
    "--ledger", metavar="URI", help="Store of the ledger  [default: the same store]."
)
@store_option
def head(key: Path, output: Path, ledger: str | None, store: str | None) -> None:
    """Signs where every log ends, once all of them verify, for who keeps it elsewhere.

    `registry verify --head FILE` then finds events that were cut off or written anew,
    also by somebody who holds the keys of both stores.
    """
    from pipelines.local.resolution import chosen_registry, registered_names
    from pipelines.local.store import opened_store
    from pipelines.output import write_text
    from safescale_ammt.files.canonical import json_file
    from safescale_ammt.releasing.key_files import read_key
    from safescale_ammt.releasing.signed_heads import heads_of, sign_heads
    from safescale_ammt.store.event_log import now
    from safescale_ammt.store.uri import open_store

    private = read_key(key)
    with opened_store(store, reads_only=True) as opened:
        data = open_store(ledger, environ=os.environ) if ledger else opened
        # The heads first: what comes while the rest is verified is nobody's fault.
        names = registered_names(opened)
        heads = heads_of(opened, data, names)
        if holds_ledger(opened, data):
            intact_ledger(opened, data)
        for each in names:
            intact_versions(opened, data, chosen_registry(opened, each))
    envelope = json_file(sign_heads(heads, private, now())).decode()
    say(f"Wrote the heads of {len(heads)} logs to {write_text(output, envelope)}.")


def heads_held(store: Store, data: Store, file: Path, signer: str) -> str:
    """Checks a signed head against the logs.

    Args:
        store: the registry's.
        data: the ledger's.
        file: the envelope.
        signer: the public key that has to have signed it, "" = any.

    Raises:
        InputError: there is no such file.
        IntegrityError: it is forged, by somebody else, or a log does not hold it.
    """
    from safescale_ammt.files.canonical import read_json
    from safescale_ammt.releasing.signed_heads import check_heads, read_heads

    signed = read_heads(read_json(file))
    if signer and signed.key != signer:
        raise IntegrityError(f"{file} is signed by {signed.key}, --signer is {signer}.")
    check_heads(signed, store, data)
    told = f"{len(signed.heads)} logs hold it, signed by {signed.key} {signed.issued}"
    return f"{told}." if signer else f"{told}; whose key that is, --signer can say."


def holds_ledger(store: Store, data: Store) -> bool:
    """Says whether there is a ledger, or an anchor of one in the registry's store."""
    from safescale_ammt.releasing.anchor import ANCHORS
    from safescale_ammt.releasing.ledger import BOOK, OLD_RESEARCH

    places = ((store, ANCHORS), (data, BOOK), (data, OLD_RESEARCH))
    return any(any(place.list(f"{prefix}/")) for place, prefix in places)


def intact_ledger(store: Store, data: Store) -> str:
    """Verifies the ledger in `data` and its anchor in the registry's store.

    Raises:
        IntegrityError: something was changed, removed or cut off.
    """
    from safescale_ammt.releasing import ledger
    from safescale_ammt.releasing.anchor import check_ledger_heads

    anchored = check_ledger_heads(store, data)
    count = len(ledger.verify(data))
    told = f"{count} use{'s' * (count != 1)}, every byte is as recorded"
    return f"{told}; the gate last saw event {anchored}." if anchored else f"{told}."


def intact_versions(store: Store, data: Store, registry: Registry) -> str:
    """Verifies a registry's versions and its anchor in the ledger.

    Raises:
        IntegrityError: something was changed, removed or cut off, a signature does not
            hold, or an event tells another decision than its bundle's verdict.
    """
    from safescale_ammt.releasing.anchor import check_registry_head

    versions = registry.verify()
    # An event alone could call a verdict that failed a pass.
    for version in versions:
        registry.terms(version.entry)
    check_registry_head(store, data, registry.name)
    count = len(versions)
    told = f"{count} version{'s' * (count != 1)}, every byte is as registered"
    return f"{told}; {signatures(registry.state(), versions)}."


def signatures(state: RegistryState, versions: Sequence[Version]) -> str:
    """Says which events of a log a person's signature stands for, and which none."""
    acts = [act for version in versions for act in version.acts]
    alone = sum(not act.independent for act in acts)
    told = "no signature covers its events, which the gate wrote"
    if acts:
        told = (
            f"{len(acts)} signed act{'s' * (len(acts) != 1)} of people, by "
            f"{', '.join(sorted({act.by for act in acts}))}, the newest for events 1 "
            f"to {state.signed}"
        )
        if state.signed < state.events:
            told += f"; no signature covers events {state.signed + 1} to {state.events}"
    if alone:
        from safescale_ammt.reporting.people import SINGLE_PARTY

        told += f"; {alone} of these acts: {SINGLE_PARTY}"
    return told


@registry.command()
@click.argument("words", nargs=-1, metavar="NAME [VERSION] DIR")
@click.option("--replace", is_flag=True, help="Replaces what lies at DIR.")
@store_option
def download(words: tuple[str, ...], replace: bool, store: str | None) -> None:
    """Brings the bundle of a version, by default the champion, into a new folder DIR.

    The folder appears once every byte is checked by the digest that was registered.
    One that is there is left alone, unless it is empty.
    """
    from pipelines.download import place_bundle
    from pipelines.local.resolution import chosen_registry
    from pipelines.local.store import opened_store

    if len(words) not in (2, 3):
        raise click.UsageError("Give NAME and DIR, or NAME, VERSION and DIR.")
    name, *version, place = words
    with opened_store(store, reads_only=True) as opened:
        chosen = chosen_registry(opened, name)
        registered = chosen.show(version[0] if version else "champion")
        old = place_bundle(chosen, registered, Path(place), replace=replace)
    title = f"{chosen.name} version {registered.number} ({registered.status})"
    say(f"{title} is in {place}{', in place of what was there' if old else ''}.")


def facts(registry: Registry, version: Version) -> dict[str, Any]:
    """Returns what is told of a version; a damaged bundle is said on stderr."""
    try:
        figures = headline(registry.verdict(version))
    except (InputError, IntegrityError) as error:
        figures = None
        say(f"{registry.name} version {version.number}: {error}", err=True)
    return {
        "name": registry.name,
        **asdict(version),
        "verdict": figures,
        "report": registry.report(version),
    }


def row(shown: dict[str, Any]) -> tuple[str, ...]:
    """Spells what `facts` returns in the columns of a list."""
    _, *figures = told(shown["verdict"])
    return (
        shown["name"],
        str(shown["number"]),
        shown["status"],
        shown["entry"]["decision"],
        *figures,
        shown["at"],
        shown["report"],
    )
