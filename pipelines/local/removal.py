"""Removing runs: which ones nothing refers to, and how they go.

A registered version and a use in the ledger name digests of artifacts. A run stays
whose model or verdict one of them names, and one that alone still has another artifact
which they name. What lies in the registry, in the ledger or apart from artifacts is no
part of a run and stays whatever becomes of it.

`run.json` goes last: a removal that was killed leaves a run that is listed, and is
removed by doing the same again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.local.runfile import LATEST, RUN, run_folders
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.versions import IDENTITIES
from safescale_ammt.store.base import Store

_OWN = ("model", "verdict")
"""Artifacts that are one run's own: others it may share with many."""


@dataclass(frozen=True)
class Removal:
    """Whether a run may go.

    Attributes:
        run: its id.
        why: what it is kept for, "" = nothing refers to it.
    """

    run: str
    why: str


def referred(registry: Store, data: Store, names: Iterable[str]) -> dict[str, str]:
    """Returns digest of an artifact -> what names it: a version, or a use of rows.

    Args:
        registry: the registry's store.
        data: the ledger's.
        names: the registered models.

    Raises:
        IntegrityError: a log was tampered with, so that nobody knows what it names.
    """
    named: dict[str, str] = {}
    for use in ledger.uses(data):
        verdicts = [opening.verdict for opening in use.openings]
        for digest in (use.model, use.holdout, *verdicts):
            named[digest] = f"use {use.event} of the ledger"
    for name in names:
        for version in Registry(registry, name).versions():
            entry = asdict(version.entry)
            for digest in (entry[key] for key in IDENTITIES):
                named[digest] = f"{name} version {version.number}"
    return named


def judged(
    runs: Iterable[Mapping[str, Any]],
    named: Mapping[str, str],
    store: Store,
    *,
    before: datetime | None = None,
    asked: Collection[str] = (),
) -> list[Removal]:
    """Says of every run whether it may go, the oldest first.

    Args:
        runs: records of all runs of a folder.
        named: what is referred to, from `referred`.
        store: whose copies are removed too.
        before: only runs that began earlier go; None = any.
        asked: ids of those that go; none = all that may.
    """
    found: dict[str, str] = {}
    covered: set[str] = set()
    waiting: list[Mapping[str, Any]] = []
    # Not by name: runs that began within a second have names in any order.
    for run in sorted(runs, key=began):
        why = kept_for(run, named, store, before, asked)
        found[run["run"]] = why
        if why:
            covered |= _identities(run)
        else:
            waiting.append(run)
    # The newest first: of several with the same data one is enough.
    for run in reversed(waiting):
        alone = (_identities(run) & named.keys()) - covered
        if alone:
            about = ", ".join(sorted({named[digest] for digest in alone}))
            found[run["run"]] = f"no other run has what {about} names"
            covered |= alone
    return [Removal(name, why) for name, why in found.items()]


def remove(output: Path, run: str, store: Store) -> None:
    """Removes a run: its copies in the store, then its folder.

    Raises:
        StorageError: the store failed; the run is listed still.
    """
    for info in list(store.list(f"runs/{run}/")):
        store.delete(info.key)
    folder = output / run
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != RUN:
            path.unlink()
    link = output / LATEST
    if link.is_symlink() and link.readlink().name == run:
        link.unlink()
        others = [f.name for f in run_folders(output) if f.name != run]
        if others:
            link.symlink_to(others[-1])
    (folder / RUN).unlink()
    folder.rmdir()


def began(run: Mapping[str, Any]) -> datetime:
    """Returns when a run began."""
    return datetime.fromisoformat(run["started"])


def _identities(run: Mapping[str, Any]) -> set[str]:
    return {str(entry["identity"]) for entry in run["artifacts"].values()}


def kept_for(
    run: Mapping[str, Any],
    named: Mapping[str, str],
    store: Store,
    before: datetime | None,
    asked: Collection[str],
) -> str:
    """Says what a run is kept for whatever others have; "" = nothing."""
    if asked and run["run"] not in asked:
        return "it was not asked for"
    if run["exit_code"] is None and not asked:
        return "it goes on, or was killed: name it to remove it"
    if before is not None and began(run) >= before:
        return "it is younger"
    # Its copies would stay, and nobody would know of them.
    if run.get("store", store.uri) != store.uri:
        return f"its store is {run['store']}"
    if (version := run["version"]) and version.get("version"):
        return f"it registered {version['registry']} version {version['version']}"
    own = [
        run["artifacts"][name]["identity"] for name in _OWN if name in run["artifacts"]
    ]
    return next((f"{named[digest]} names it" for digest in own if digest in named), "")
