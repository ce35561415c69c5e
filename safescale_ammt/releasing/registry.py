"""The registry: versions of a model, in an append-only log on the object store.

A version is one verdict about one model. Events are only ever added, never
changed; the state is the fold of all events:

    pass         -> champion, unless another run became champion meanwhile
    needs_human  -> pending: kept, not servable
    champion, then a newer champion -> superseded
    a pass that found another champion than it expected -> lost_race: recorded,
                    its bundle stays

People change what comes of a version by signed acts (`registry_state`, `acts`). Every
reader checks their signatures against the constitution in the version's own bundle.

Registering the same (model, verdict) again returns the version that is there.
Bundles lie under their digest, `registry/<name>/bundles/<hex>/`, and are complete
before the event that names them is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError, IntegrityError, Refusal, one_of
from safescale_ammt.files import artifacts
from safescale_ammt.files.artifacts import MANIFEST, Manifest, read_manifest
from safescale_ammt.files.canonical import digest_bytes, digest_file
from safescale_ammt.files.json_text import LARGEST, parse_json
from safescale_ammt.judging.answer import ANSWER
from safescale_ammt.releasing.acts import PROMOTE
from safescale_ammt.releasing.registry_state import KINDS, RegistryState, fold, trial
from safescale_ammt.releasing.terms import Terms, read_terms
from safescale_ammt.releasing.versions import (
    CHAMPION,
    DECISIONS,
    IDENTITIES,
    LOST_RACE,
    Version,
    VersionEntry,
)
from safescale_ammt.store.base import Store, check_key
from safescale_ammt.store.event_log import Draft, Event, EventLog, check_digests, now

VERDICT, REPORT = "verdict/verdict.json", "verdict/report.html"
ANSWERED = f"verdict/{ANSWER}"
"""Files of a bundle."""
# No approval may expire between trial and writing: it would stop every reader.
WRITTEN_WITHIN = timedelta(minutes=1)


@dataclass(frozen=True)
class Bundle:
    """A stored bundle: its key prefix in the store, and its identity digest."""

    prefix: str
    digest: str


class Registry:
    """The versions registered under one name.

    Args:
        store: where the registry lies.
        name: the registered model's name.
        clock: gives the time that events are stamped with.

    Raises:
        StoreInputError: the name cannot be a part of a key.
    """

    def __init__(
        self, store: Store, name: str, clock: Callable[[], datetime] = now
    ) -> None:
        self.name = name
        self._store = store
        self._prefix = f"registry/{check_key(name)}"
        self.clock = clock
        self._log = EventLog(store, self._prefix, clock)
        self._terms: dict[VersionEntry, Terms] = {}

    @property
    def events(self) -> str:
        """Beginning of the keys of the log's events."""
        return f"{self._prefix}/events/"

    def put_bundle(self, folder: Path | str) -> Bundle:
        """Verifies a bundle and stores it under its identity digest.

        Raises:
            InputError: the folder is no artifact, or its identity leaves files out.
            IntegrityError: a file differs from the manifest.
        """
        manifest = artifacts.verify(folder)
        # Only the identity digest enters the log, so a file outside of it could be
        # changed later without anybody noticing.
        uncovered = sorted(n for n, e in manifest.files.items() if not e.identity)
        if uncovered:
            raise InputError(
                f"{folder} cannot be registered: its identity does not cover "
                f"{uncovered[0]}."
            )
        hexdigits = manifest.identity.removeprefix("sha256:")
        bundle = Bundle(f"{self._prefix}/bundles/{hexdigits}", manifest.identity)
        self._store.upload_folder(folder, bundle.prefix)
        return bundle

    def get_bundle(self, version: Version, folder: Path | str) -> Manifest:
        """Downloads a version's bundle into a folder and verifies it.

        Raises:
            IntegrityError: a file is missing, added or changed, or this is not
                the bundle that was registered.
        """
        self._store.download_folder(version.entry.bundle, folder)
        manifest = artifacts.verify(folder)
        self._check_bundle_digest(version.entry, manifest.identity)
        return manifest

    def verdict(self, version: Version) -> dict[str, Any]:
        """Reads a version's `verdict.json`, or its answer, and no more of its bundle.

        Raises:
            IntegrityError: it is missing, or not what was registered.
        """
        files = self._registered_manifest(version.entry).files
        return self._reader(version.entry)(ANSWERED if ANSWERED in files else VERDICT)

    def terms(self, entry: VersionEntry) -> Terms:
        """Returns who may decide about what was registered, and about what.

        Raises:
            IntegrityError: its bundle is not what was registered.
        """
        # By the whole entry: a second one may say other things of the same bundle.
        if entry not in self._terms:
            self._terms[entry] = read_terms(entry, self._reader(entry))
        return self._terms[entry]

    def _reader(self, entry: VersionEntry) -> Callable[[str], dict[str, Any]]:
        """Returns what reads a JSON file of a bundle, checked by its digest."""
        manifest = self._registered_manifest(entry)

        def read(name: str) -> dict[str, Any]:
            recorded, key = manifest.files.get(name), f"{entry.bundle}/{name}"
            if recorded is None or not recorded.identity or not self._store.exists(key):
                raise IntegrityError(f"{self._store.uri}/{key} is missing.")
            data = self._store.get(key, LARGEST)
            if digest_bytes(data) != recorded.sha256:
                raise IntegrityError(
                    f"{self._store.uri}/{key} was changed: the manifest recorded "
                    f"{recorded.sha256}, found {digest_bytes(data)}."
                )
            return dict(parse_json(data))

        return read

    def report(self, version: Version) -> str:
        """Returns the address of a version's report."""
        return f"{self._store.uri}/{version.entry.bundle}/{REPORT}"

    def register(self, entry: VersionEntry, *, expected: int | None = None) -> Version:
        """Registers a model with its verdict.

        Args:
            entry: what to register; its bundle must be stored already.
            expected: number of the champion that this run means to replace, 0 for
                none; by default the champion at the moment of the call. If
                another version is champion by then, this one is recorded as
                `lost_race`.

        Raises:
            Refusal: the decision is not one that may be registered.
            InputError: a malformed digest.
            IntegrityError: the stored bundle is not the one named, or the verdict
                is registered already with other facts.
        """
        if entry.decision not in DECISIONS:
            raise Refusal(
                f"model {entry.model} cannot be registered: its verdict is "
                f"{entry.decision!r}, {one_of(DECISIONS)}."
            )
        check_digests(**{name: getattr(entry, name) for name in IDENTITIES})
        self._registered_manifest(entry)
        incumbent = expected

        def decide(events: Sequence[Event]) -> Draft | None:
            nonlocal incumbent
            state = self._fold(events)
            if self._registered(state, entry) is not None:
                return None
            # The log calls this again after a lost race. Only the first call may
            # choose the champion to replace: otherwise every loser would supersede
            # a winner that it was never compared with.
            if incumbent is None:
                incumbent = state.champion
            status = DECISIONS[entry.decision]
            if status == CHAMPION and state.champion != incumbent:
                status = LOST_RACE
            body = {"entry": asdict(entry), "status": status}
            return "registered", {**body, "predecessor": state.champion}

        self._log.append(decide)
        version = self._registered(self.state(), entry)
        assert version is not None
        return version

    def add(
        self, decide: Callable[[RegistryState, datetime], Draft | None]
    ) -> RegistryState:
        """Adds what a person decides, if it counts in the log that it lands in.

        Args:
            decide: from the state and the time, the event; None if there is nothing
                to add. It is called again whenever another writer was faster.

        Returns:
            The state afterwards.

        Raises:
            InputError, Refusal: it does not count; nothing is written.
        """

        def tried(events: Sequence[Event]) -> Draft | None:
            state, now = self._fold(events), self.clock()
            draft = decide(state, now)
            if draft is not None:
                at = (now + WRITTEN_WITHIN).isoformat(timespec="seconds")
                trial(state, draft, at)
            return draft

        self._log.append(tried)
        return self.state()

    def state(self) -> RegistryState:
        """Returns the state that the events add up to, every act checked.

        Raises:
            IntegrityError: the log was tampered with, or holds an act that does not
                count.
        """
        return self._fold(self._log.read())

    def versions(self) -> list[Version]:
        """Lists all versions by number; the errors of `state`."""
        return self.state().versions

    def promotion_of(self, version: int) -> Mapping[str, Any] | None:
        """Returns what the event tells by which approvals made a version champion.

        None if there is none: the gate passed it, or an act of one person promoted it.

        Raises:
            IntegrityError: the log was tampered with, as in `state`.
        """
        events = self._log.read()
        self._fold(events)
        promoted = (e.body for e in events if e.kind == KINDS[PROMOTE])
        by_quorum = (body for body in promoted if "approvals" in body)
        return next((body for body in by_quorum if body["version"] == version), None)

    def champion(self) -> Version | None:
        """Returns the version in service, None if there is none."""
        state = self.state()
        return state.versions[state.champion - 1] if state.champion else None

    def show(self, version: int | str) -> Version:
        """Returns one version, by number, or `champion`, `pending`, `latest`.

        `pending` and `latest` are the newest of their kind.

        Raises:
            InputError: there is no such version.
        """
        versions = self.versions()
        name = str(version).removeprefix("v")
        # From the newest: there is one champion, but there can be many pending ones.
        for candidate in reversed(versions):
            if name in (str(candidate.number), candidate.status, "latest"):
                return candidate
        held = f"versions 1 to {len(versions)}" if versions else "no version yet"
        if len(versions) == 1:
            held = "version 1 alone"
        raise InputError(
            f"{self._store.uri}/{self._prefix} has no version {version!r}: it holds "
            f"{held}; a number, 'champion', 'pending' or 'latest' is expected."
        )

    def verify(self) -> list[Version]:
        """Re-hashes the chain of events and every file of every bundle.

        Returns:
            The versions, every one of them intact.

        Raises:
            IntegrityError: an event or a file is missing, added or changed.
        """
        versions = self.versions()
        for prefix, version in {v.entry.bundle: v for v in versions}.items():
            manifest = self._registered_manifest(version.entry)
            keys = {info.key for info in self._store.list(f"{prefix}/")}
            present = {key.removeprefix(f"{prefix}/") for key in keys} - {MANIFEST}
            for name in sorted(present ^ set(manifest.files)):
                state = "was added to" if name in present else "is missing from"
                raise IntegrityError(f"{name} {state} the bundle {prefix}.")
            for name, recorded in manifest.files.items():
                # Hashed where it lies, as it streams: no bundle is held in memory.
                actual = self._store.digest(f"{prefix}/{name}")
                if actual != recorded.sha256:
                    raise IntegrityError(
                        f"{prefix}/{name} was changed: the manifest recorded "
                        f"{recorded.sha256}, found {actual}."
                    )
        return versions

    def _fold(self, events: Sequence[Event]) -> RegistryState:
        return fold(RegistryState(self.name, self.terms), events)

    def _registered_manifest(self, entry: VersionEntry) -> Manifest:
        """Reads the manifest of an entry's bundle with the checks of every artifact.

        Raises:
            IntegrityError: it is missing, changed, or of other parts than the entry
                names.
        """
        key = f"{check_key(entry.bundle)}/{MANIFEST}"
        if not self._store.exists(key):
            raise IntegrityError(f"{self._store.uri}/{key} is missing.")
        # `read_manifest` holds every check of the format, and reads folders only.
        with tempfile.TemporaryDirectory() as folder:
            self._store.download(key, Path(folder, MANIFEST))
            try:
                stored = read_manifest(folder)
            except (InputError, IntegrityError):
                # Its own sentence would name the temporary folder.
                raise IntegrityError(
                    f"{self._store.uri}/{key} was changed after it was written: found "
                    f"{digest_file(Path(folder, MANIFEST))}."
                ) from None
        self._check_bundle_digest(entry, stored.identity)
        for role, digest in (("model", entry.model), ("verdict", entry.verdict)):
            if stored.parents.get(role, digest) != digest:
                raise IntegrityError(
                    f"{entry.bundle} holds {role} {stored.parents[role]}, the entry "
                    f"names {digest}."
                )
        return stored

    def _check_bundle_digest(self, entry: VersionEntry, digest: str) -> None:
        if digest != entry.bundle_digest:
            raise IntegrityError(
                f"{entry.bundle} is not the bundle that was registered: the registry "
                f"recorded {entry.bundle_digest}, found {digest}."
            )

    def _registered(self, state: RegistryState, entry: VersionEntry) -> Version | None:
        """Returns the version of an entry's model and verdict, None if there is none.

        Raises:
            IntegrityError: it was registered with other facts.
        """
        for version in state.versions:
            other = version.entry
            if (other.model, other.verdict) == (entry.model, entry.verdict):
                # The bundle may differ (a later library writes another card); what
                # the verdict is about may not.
                if other.facts != entry.facts:
                    raise IntegrityError(
                        f"verdict {entry.verdict} is registered as version "
                        f"{version.number} with other digests: "
                        f"{sorted(set(other.facts) - set(entry.facts))} there, "
                        f"{sorted(set(entry.facts) - set(other.facts))} here."
                    )
                return version
        return None
