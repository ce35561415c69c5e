"""The state of a registry: what its events add up to, every signature checked.

    registered    pass -> champion or lost_race, needs_human -> pending
    approved      a signed act; a pending version stays pending
    rejected      a signed act: pending -> rejected, for ever
    promoted      pending -> champion, once a quorum of distinct keys has approved and
                  no approval of it has expired; or, by a signed act, lost_race ->
                  champion
    rolled_back   a signed act: superseded -> champion
    revoked       a signed act: out of service for ever; perhaps no champion remains

`fold` replays the events. An act is checked where it stands, by the rules by which it
was let in: one that somebody wrote into the store by hand stops every reader, so that
nothing is served on its word. A new kind of event is one more function in `FOLDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from safescale_ammt.errors import InputError, IntegrityError, Refusal
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.typed_json import build, typed
from safescale_ammt.releasing.acts import (
    APPROVE,
    PROMOTE,
    REJECT,
    REVOKE,
    ROLLBACK,
    Place,
    read_act,
)
from safescale_ammt.releasing.envelope import opened
from safescale_ammt.releasing.terms import Terms
from safescale_ammt.releasing.versions import (
    CHAMPION,
    DECISIONS,
    LOST_RACE,
    PENDING,
    REJECTED,
    REVOKED,
    SUPERSEDED,
    Act,
    Version,
    VersionEntry,
)
from safescale_ammt.store.event_log import Draft, Event

KINDS = {
    APPROVE: "approved",
    REJECT: "rejected",
    PROMOTE: "promoted",
    ROLLBACK: "rolled_back",
    REVOKE: "revoked",
}
"""Act -> the kind of its event."""
NO_CERTIFICATE = (
    "A person answers for what was waived; no certificate of the gate does."
)


@dataclass
class RegistryState:
    """The state of a registry after the events so far.

    Attributes:
        name: the registered model's name.
        terms_of: returns the terms of what was registered, from its bundle.
        versions: all versions, by number.
        champion: number of the version in service, 0 for none.
        head: digest of the newest event.
        events: how many there are.
        signed: number of the newest signed event that names the head before it, 0 for
            none: its signature stands for all events up to its own.
        heads: digest of each event, in order.
    """

    name: str
    terms_of: Callable[[VersionEntry], Terms]
    versions: list[Version] = field(default_factory=list)
    champion: int = 0
    head: str = ""
    events: int = 0
    signed: int = 0
    heads: list[str] = field(default_factory=list)

    def version(self, number: int) -> Version:
        """Returns a version.

        Raises:
            InputError: there is none of this number.
        """
        if not 1 <= number <= len(self.versions):
            raise InputError(
                f"{self.name} has no version {number}: it has {len(self.versions)}."
            )
        return self.versions[number - 1]

    def change(self, number: int, status: str, *acts: Act) -> None:
        """Gives a version another status and further acts; numbers count from 1."""
        version = self.versions[number - 1]
        changed = replace(version, status=status, acts=(*version.acts, *acts))
        self.versions[number - 1] = changed

    def crown(self, number: int, *acts: Act) -> None:
        """Makes a version champion; the one before is superseded."""
        if self.champion:
            self.change(self.champion, SUPERSEDED)
        self.change(number, CHAMPION, *acts)
        self.champion = number

    def place(self, number: int) -> Place:
        """Returns where an act about a version would stand now."""
        version = self.version(number)
        earlier = self.heads[self.heads.index(version.event) :]
        return Place(
            self.name, number, version.entry, self.champion, self.head, tuple(earlier)
        )

    def need(self, number: int, act: str, *statuses: str) -> Version:
        """Returns a version that has one of the statuses that an act takes.

        Raises:
            InputError: it has another.
        """
        version = self.version(number)
        if version.status not in statuses:
            takes = " or ".join(s.replace("_", " ") for s in statuses)
            raise InputError(
                f"{self.name} version {number} is {version.status.replace('_', ' ')}: "
                f"only a version that is {takes} can be acted on with {act!r}."
            )
        return version


def standing(version: Version, at: str) -> dict[str, Act]:
    """Returns the approvals of a version that count at a time, one for each key."""
    now = datetime.fromisoformat(at)
    return {
        act.key: act
        for act in version.acts
        if act.act == APPROVE and datetime.fromisoformat(act.expires) >= now
    }


def promotion(state: RegistryState, number: int, at: str) -> Draft:
    """Writes the event that makes a pending version champion by its approvals.

    Raises:
        InputError: it is not pending.
    """
    version = state.need(number, PROMOTE, PENDING)
    return KINDS[PROMOTE], _promotion(state, version, standing(version, at))


def _promotion(
    state: RegistryState, version: Version, counted: Mapping[str, Act]
) -> dict[str, Any]:
    """Returns what a promotion tells: by whom, over whom, and what is waived.

    Args:
        state: of the registry.
        version: a pending one.
        counted: the approvals that count, by key.

    Raises:
        Refusal: they are fewer than the quorum.
    """
    terms, acts = state.terms_of(version.entry), counted.values()
    if len(counted) < terms.human.quorum:
        names = ", ".join(act.by for act in acts) or "nobody"
        raise Refusal(
            f"{state.name} version {version.number} is approved by {len(counted)} "
            f"({names}) in force, human.quorum asks for {terms.human.quorum}; "
            "`safescale approve` adds one."
        )
    who, why = [act.by for act in acts], [act.reason for act in acts]
    return {
        "version": version.number,
        "replaces": state.champion,
        "approvals": [{"by": act.by, "key": act.key} for act in acts],
        "waived": [
            {"what": point.what, "kind": point.kind, "by": who, "why": why}
            for point in terms.open
        ],
        "certificate": NO_CERTIFICATE,
    }


def _registered(state: RegistryState, event: Event) -> None:
    """Adds a version; as champion it supersedes the one before."""
    # The status is read, not decided again: the race was settled when the event was
    # written, and a fold must give every reader the same answer.
    status = typed(event.body["status"], str, "status")
    number = len(state.versions) + 1
    entry = build(VersionEntry, event.body["entry"])
    if status not in (won := DECISIONS.get(entry.decision, ""), LOST_RACE) or (
        status == LOST_RACE and won != CHAMPION
    ):
        raise IntegrityError(
            f"a verdict {entry.decision} makes no version {status.replace('_', ' ')}."
        )
    predecessor = typed(event.body["predecessor"], int, "predecessor")
    state.versions.append(
        Version(number, status, entry, predecessor, event.at, event.digest)
    )
    if status == CHAMPION:
        state.crown(number)


def _approved(state: RegistryState, event: Event) -> None:
    """Adds an approval; one key approves once, until it expires."""
    version = state.need(_number(event), APPROVE, PENDING)
    act = _signed(state, event, APPROVE)
    if act.key in standing(version, event.at):
        raise Refusal(
            f"{act.by} has approved {state.name} version {version.number} already; one "
            "key is one vote."
        )
    state.change(version.number, PENDING, act)


def _rejected(state: RegistryState, event: Event) -> None:
    """Closes a pending version."""
    version = state.need(_number(event), REJECT, PENDING)
    state.change(version.number, REJECTED, _signed(state, event, REJECT))


def _promoted(state: RegistryState, event: Event) -> None:
    """Makes a pending version champion by quorum, one that lost its race by an act."""
    version = state.need(_number(event), PROMOTE, PENDING, LOST_RACE)
    if version.status == LOST_RACE:
        state.crown(version.number, _signed(state, event, PROMOTE))
        return
    # By key, so that none counts twice; what else it tells follows from their acts.
    keys = [approval["key"] for approval in event.body["approvals"]]
    in_force = standing(version, event.at)
    counted = {key: in_force[key] for key in keys if key in in_force}
    body = _promotion(state, version, counted)
    if canonical_json(body) != canonical_json(event.body):
        raise IntegrityError(
            f"the promotion of {state.name} version {version.number} tells of other "
            "approvals, waivers or another champion than its log."
        )
    state.crown(version.number)


def _rolled_back(state: RegistryState, event: Event) -> None:
    """Makes a champion of before champion again."""
    version = state.need(_number(event), ROLLBACK, SUPERSEDED)
    state.crown(version.number, _signed(state, event, ROLLBACK))


def _revoked(state: RegistryState, event: Event) -> None:
    """Takes a version out of service for ever."""
    takes = (CHAMPION, PENDING, SUPERSEDED, LOST_RACE, REJECTED)
    version = state.need(_number(event), REVOKE, *takes)
    state.change(version.number, REVOKED, _signed(state, event, REVOKE))
    if state.champion == version.number:
        state.champion = 0


def _number(event: Event) -> int:
    number: int = typed(event.body["version"], int, "version")
    return number


def _signed(state: RegistryState, event: Event, act: str) -> Act:
    """Returns the act of an event, if its signature and its words hold.

    Raises:
        IntegrityError: it is forged, changed, or about something else.
        Refusal: its signer may not decide this.
    """
    body: Mapping[str, Any] = event.body
    for key in body.keys() ^ {"version", "envelope"}:
        raise TypeError(f"{key} is {'unknown' if key in body else 'missing'}")
    place = state.place(_number(event))
    terms = state.terms_of(place.entry)
    signed = opened(body["envelope"])
    read = read_act(signed, act, place, terms, event.at)
    # An approval of an earlier head says nothing of the events between.
    if signed.statement["predicate"]["head"] == place.head:
        state.signed = event.sequence
    return read


FOLDS: dict[str, Callable[[RegistryState, Event], None]] = {
    "registered": _registered,
    KINDS[APPROVE]: _approved,
    KINDS[REJECT]: _rejected,
    KINDS[PROMOTE]: _promoted,
    KINDS[ROLLBACK]: _rolled_back,
    KINDS[REVOKE]: _revoked,
}
"""Kind of event -> what it does to the state."""


def fold(state: RegistryState, events: Iterable[Event]) -> RegistryState:
    """Replays events into a state and returns it.

    Raises:
        InputError: an event of a kind that only a later version knows.
        IntegrityError: an event that is not of the form of its kind, or an act that
            counts for nothing.
    """
    for event in events:
        # Skipping it could serve a model that a newer program has revoked.
        if event.kind not in FOLDS:
            raise InputError(
                f"event {event.sequence} of the registry is {event.kind!r}, which this "
                "version does not understand; use a later one."
            )
        try:
            FOLDS[event.kind](state, event)
        except (InputError, Refusal) as error:
            raise IntegrityError(
                f"event {event.sequence} of the registry {state.name} "
                f"({event.kind}) does not count, so that nothing is read from it: "
                f"{error}"
            ) from None
        # A time that is none is a ValueError, one without its zone a TypeError.
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"event {event.sequence} of the registry is none of ours ({error})."
            ) from None
        state.head, state.events = event.digest, event.sequence
        state.heads.append(event.digest)
    return state


def trial(state: RegistryState, draft: Draft, at: str) -> None:
    """Tries an event on a state, as every reader will.

    Raises:
        InputError, Refusal: it would not count.
    """
    kind, body = draft
    event = Event(state.events + 1, kind, body, at, "", state.head, "")
    FOLDS[kind](state, event)
