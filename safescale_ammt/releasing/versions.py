"""Versions of a model: the state that a registry's events add up to.

`fold` replays the events into a `RegistryState`. A new kind of event (roll back,
revoke) is one more function in `FOLDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.typed_json import build, typed
from safescale_ammt.store.event_log import Event

CHAMPION = "champion"
PENDING = "pending"
SUPERSEDED = "superseded"
LOST_RACE = "lost_race"
# `fail` is absent on purpose: what has no status here cannot be registered.
DECISIONS = {"pass": CHAMPION, "needs_human": PENDING}
"""Decision of a verdict -> status of a version that wins its race."""
# The order is that of `VersionEntry.facts`, and so of the sentence about a difference.
IDENTITIES = (
    "model",
    "verdict",
    "constitution",
    "dataset",
    "holdout",
    "architecture",
)


@dataclass(frozen=True)
class VersionEntry:
    """What a version registers: a model, its verdict and what both were made from.

    Attributes:
        model, verdict, constitution, dataset, holdout, architecture: identity
            digests of the artifacts; of the constitution its own digest.
        decision: `pass` or `needs_human`.
        bundle: key prefix of the bundle, from `Registry.put_bundle`.
        bundle_digest: its identity digest.
        code_version: version of this library.
    """

    model: str
    verdict: str
    constitution: str
    dataset: str
    holdout: str
    architecture: str
    decision: str
    bundle: str
    bundle_digest: str
    code_version: str

    @property
    def facts(self) -> tuple[str, ...]:
        """Everything that two registrations of one verdict must agree on."""
        # Not the bundle and the code version: the same verdict registered again by a
        # later library has another card, and is still the same version.
        return (*(getattr(self, name) for name in IDENTITIES), self.decision)


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        number: from 1, in the order of registration.
        status: `champion`, `pending`, `superseded` or `lost_race`.
        entry: what was registered.
        predecessor: the champion's number when it was registered, 0 for none.
        at: when, ISO 8601 in UTC; no part of any identity.
        event: digest of the registering event.
    """

    number: int
    status: str
    entry: VersionEntry
    predecessor: int
    at: str
    event: str


@dataclass
class RegistryState:
    """The state of a registry after the events so far.

    Attributes:
        versions: all versions, by number.
        champion: number of the version in service, 0 for none.
    """

    versions: list[Version] = field(default_factory=list)
    champion: int = 0

    def set_status(self, number: int, status: str) -> None:
        """Gives a version another status; numbers count from 1."""
        version = self.versions[number - 1]
        self.versions[number - 1] = replace(version, status=status)


def _registered(state: RegistryState, event: Event) -> None:
    """Adds a version; as champion it supersedes the one before."""
    # The status is read, not decided again: the race was settled when the event was
    # written, and a fold must give every reader the same answer.
    status = typed(event.body["status"], str, "status")
    number = len(state.versions) + 1
    entry = build(VersionEntry, event.body["entry"])
    predecessor = typed(event.body["predecessor"], int, "predecessor")
    state.versions.append(
        Version(number, status, entry, predecessor, event.at, event.digest)
    )
    if status == CHAMPION:
        if state.champion:
            state.set_status(state.champion, SUPERSEDED)
        state.champion = number


FOLDS: dict[str, Callable[[RegistryState, Event], None]] = {"registered": _registered}
"""Kind of event -> what it does to the state."""


def fold(events: Sequence[Event]) -> RegistryState:
    """Replays events into the state.

    Raises:
        InputError: an event of a kind that only a later version knows.
        IntegrityError: an event that is not of the form of its kind.
    """
    state = RegistryState()
    for event in events:
        # Skipping it could serve a model that a newer program has revoked.
        if event.kind not in FOLDS:
            raise InputError(
                f"event {event.sequence} of the registry is {event.kind!r}, which this "
                "version does not understand; use a later one."
            )
        try:
            FOLDS[event.kind](state, event)
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"event {event.sequence} of the registry is none of ours ({error})."
            ) from None
    return state
