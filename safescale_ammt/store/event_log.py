"""An append-only log on an object store, each event chained to the one before.

One event is one object, `<prefix>/events/00000001.json` and so on, written on
condition that nobody has written that number: of two writers one wins, and the
other reads the winner's event, decides anew and takes the next number. Nothing
is ever overwritten, so nothing is lost.

Each event states the digest of its predecessor and its own. A changed, removed
or reordered event breaks the chain. What a chain cannot show is that its newest
events were cut off: whoever must be sure of that keeps the last digest elsewhere
(`releasing.anchor`), or locks the objects (S3 object lock).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from safescale_ammt.errors import (
    InputError,
    IntegrityError,
    PreconditionFailed,
    StorageError,
)
from safescale_ammt.files.canonical import digest_json, is_digest, json_file
from safescale_ammt.files.json_text import LARGEST, parse_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.store.base import Store

SCHEMA_VERSION = 1
_RACES = 100
"""Lost races in a row before giving up; each means that somebody else won."""


@dataclass(frozen=True)
class Event:
    """One entry of a log.

    Attributes:
        sequence: its number, from 1.
        kind: what happened.
        body: the facts.
        at: when, ISO 8601 in UTC, by the writer's clock.
        writer: random, so that no two writers ever write equal bytes.
        previous: digest of the predecessor, "" for the first.
        digest: digest of all of the above.
    """

    sequence: int
    kind: str
    body: Mapping[str, Any]
    at: str
    writer: str
    previous: str
    digest: str


Draft = tuple[str, Mapping[str, Any]]
"""Kind and body of an event to write."""
Decide = Callable[[Sequence[Event]], Draft | None]
"""From all events so far, the next one; None if there is nothing to add."""


def now() -> datetime:
    """The time in UTC; tests pass another clock."""
    return datetime.now(UTC)


class EventLog:
    """The log under a prefix of a store.

    Args:
        store: where the events lie.
        prefix: folder of the log, such as `ledger`.
        clock: gives the time that events are stamped with.
    """

    def __init__(
        self, store: Store, prefix: str, clock: Callable[[], datetime] = now
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock

    def read(self, earlier: Sequence[Event] = ()) -> list[Event]:
        """Reads the events, checking every link of the chain.

        Args:
            earlier: events read before; only later ones are fetched.

        Raises:
            IntegrityError: an event is missing, changed or out of place.
            InputError: an event was written by a later version.
        """
        store = self._store
        infos = {info.key: info for info in store.list(f"{self._prefix}/events/")}
        events = list(earlier)
        for sequence in range(len(events) + 1, len(infos) + 1):
            key = self._key(sequence)
            # A listing made during a write may hold the newer of two events only.
            if key not in infos and not store.exists(key):
                raise IntegrityError(
                    f"{store.uri}/{key} is missing from an append-only log of "
                    f"{len(infos)} events; restore it from a backup."
                )
            if key in infos:
                data = store.get_listed(infos[key], LARGEST)
            else:
                data = store.get(key, LARGEST)
            previous = events[-1].digest if events else ""
            events.append(self._parse(key, data, sequence, previous))
        return events

    def append(self, decide: Decide) -> Event | None:
        """Adds the event that `decide` makes of all events before it.

        `decide` is called again whenever another writer was faster, so that what
        it decides is always true of the log that its event lands in.

        Returns:
            The new event, or None if `decide` had nothing to add.

        Raises:
            StorageError: the store fails, or does not keep its conditional
                writes; the errors of `read`.
        """
        events = self.read()
        if not events:
            # Once in the life of a log: a store that overlooks the condition would let
            # writers overwrite each other's events, and no chain would show it.
            probe = f"{self._prefix}/conditional-write.txt"
            with suppress(PreconditionFailed):
                self._store.put(probe, b"probe\n", if_absent=True)
                self._store.put(probe, b"probe\n", if_absent=True)
                raise self._broken_promise()
        for _ in range(_RACES):
            draft = decide(events)
            if draft is None:
                return None
            event, data = self._seal(events, draft)
            key = self._key(event.sequence)
            try:
                self._store.put(key, data, if_absent=True)
            except PreconditionFailed:
                # What was decided may be wrong beside the winner's event: decide anew.
                events = self.read(events)
                continue
            # No two writers write equal bytes (`Event.writer`), so that reading back
            # shows whether it is this event that stands there.
            if self._store.get(key) != data:
                raise self._broken_promise()
            return event
        raise StorageError(
            f"{self._store.uri}/{self._prefix} is so busy that {_RACES} attempts to "
            "add an event all lost against other writers; try again later."
        )

    def _key(self, sequence: int) -> str:
        return f"{self._prefix}/events/{sequence:08d}.json"

    def _seal(self, events: Sequence[Event], draft: Draft) -> tuple[Event, bytes]:
        """Returns the next event and its bytes, the form that `_parse` reads."""
        fields: dict[str, Any] = {
            "sequence": len(events) + 1,
            "kind": draft[0],
            "body": draft[1],
            "at": self._clock().isoformat(timespec="seconds"),
            "writer": uuid.uuid4().hex,
            "previous": events[-1].digest if events else "",
        }
        # The schema is inside the digest: it says how the rest is to be read.
        digest = digest_json({"schema": SCHEMA_VERSION, **fields})
        raw = {"schema": SCHEMA_VERSION, **fields, "digest": digest}
        return Event(**fields, digest=digest), json_file(raw)

    def _parse(self, key: str, data: bytes, sequence: int, previous: str) -> Event:
        """Reads one event; checks its schema, digest, spelling and link."""
        where = f"{self._store.uri}/{key}"
        try:
            raw = parse_json(data)
            schema, stated = raw.pop("schema"), raw["digest"]
            event = build(Event, raw)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(f"{where} is damaged: it is no event.") from None
        if schema != SCHEMA_VERSION:
            raise InputError(
                f"{where} has schema {schema}, this version reads {SCHEMA_VERSION}; "
                "use the version that wrote it, or a later one."
            )
        del raw["digest"]
        digest = digest_json({"schema": schema, **raw})
        # The bytes too: other white space or order of keys is no event of ours.
        canonical = json_file({"schema": schema, **raw, "digest": stated})
        if digest != stated or data != canonical:
            raise IntegrityError(
                f"{where} was changed after it was written: it states digest {stated}, "
                f"its contents have {digest}."
            )
        if (event.sequence, event.previous) != (sequence, previous):
            raise IntegrityError(
                f"{where} does not follow the event before it: it names predecessor "
                f"{event.previous or 'none'}, found {previous or 'none'}."
            )
        return event

    def _broken_promise(self) -> StorageError:
        return StorageError(
            f"{self._store.uri} ignores 'If-None-Match: *', so that runs would "
            "overwrite each other's events; use a store with conditional writes, such "
            "as AWS S3 or SeaweedFS 4.48."
        )


def check_digests(**digests: str) -> None:
    """Checks that values are spelled as digests.

    Raises:
        InputError: one is not; the sentence names it.
    """
    for name, value in digests.items():
        if not is_digest(value):
            raise InputError(
                f"the {name} is {value!r}, expected a digest like 'sha256:<64 hex>'."
            )
