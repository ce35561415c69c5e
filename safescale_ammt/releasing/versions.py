"""Versions of a model: what a registry's events amount to.

`fold` replays events into a `RegistryState`. A new kind of event (roll back, revoke) is
one more function in `FOLDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from safescale_ammt.errors import InputError
from safescale_ammt.store.event_log import Event

CHAMPION = "champion"
PENDING = "pending"
SUPERSEDED = "superseded"
LOST_RACE = "lost_race"
DECISIONS = {"pass": CHAMPION, "needs_human": PENDING}
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
    """What is registered: who and what it was made from, as identity digests.

    Attributes:
        model, verdict, constitution, dataset, holdout, architecture: digests.
        decision: `pass` or `needs_human`.
        bundle: place of the bundle, from `Registry.put_bundle`.
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
    """The fold of the events so far."""

    versions: list[Version] = field(default_factory=list)
    champion: int = 0

    def set_status(self, number: int, status: str) -> None:
        """Gives a version another status."""
        version = self.versions[number - 1]
        self.versions[number - 1] = replace(version, status=status)


def _registered(state: RegistryState, event: Event) -> None:
    """A version was added; as champion it supersedes the one before."""
    status = event.body["status"]
    number = len(state.versions) + 1
    entry = VersionEntry(**event.body["entry"])
    predecessor = event.body["predecessor"]
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
        InputError: an event of a kind that only a later version knows: a revoked
            model must not be served because an old program overlooks it.
    """
    state = RegistryState()
    for event in events:
        if event.kind not in FOLDS:
            raise InputError(
                f"event {event.sequence} of the registry is {event.kind!r}, which this "
                "version does not understand; use a later one."
            )
        FOLDS[event.kind](state, event)
    return state
