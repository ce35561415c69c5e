"""Anchors: the newest event of a log, kept where the log's own key does not reach.

A chain shows every change but one: that its newest events were cut off. The gate
alone holds two keys, so at every run that it sees it keeps the heads crosswise:

    the ledger's head    in the registry's store, under `registry/_ledger`
    a registry's head    in the ledger, whenever something was registered

The next gate, and `safescale registry verify`, look whether each log still holds
exactly that event at that place. Since every event names its predecessor, it stands
for all before it. A registry's store keeps to one ledger: one that was begun anew,
or lies in another store, does not hold the event either.

An anchor sees neither what happened since the last gate nor what somebody did who
holds both keys and rewrote both logs: for that, a person keeps a signed head
(`releasing.signed_heads`), or the objects are locked (S3 object lock).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from safescale_ammt.errors import IntegrityError
from safescale_ammt.releasing.ledger import BOOK, OLD_RESEARCH
from safescale_ammt.releasing.sealed_uses import ANCHORED
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import Draft, Event, EventLog, now

ANCHORS = "registry/_ledger"
"""Prefix of the anchors in the registry's store; no registered model has this name."""


def keep_ledger_heads(
    registry: Store, data: Store, clock: Callable[[], datetime] = now
) -> None:
    """Checks the ledger against its anchor, and anchors what came since.

    Of two gates at once the later one reads the other's anchor and the ledger behind
    it, so that an anchor never goes back. `registry` and `data` are their stores.

    Raises:
        IntegrityError: events that an earlier gate saw are gone or others.
        StorageError: a store failed, or keeps no conditional writes.
    """
    events: dict[str, list[Event]] = {BOOK: [], OLD_RESEARCH: []}

    def decide(anchors: Sequence[Event]) -> Draft | None:
        # Read after the anchors: a log only grows, so that it cannot be behind them.
        for prefix, earlier in events.items():
            events[prefix] = EventLog(data, prefix).read(earlier)
        kept = _check_ledger(registry, data, anchors, events)
        heads = {
            prefix: {"sequence": len(log), "digest": log[-1].digest}
            for prefix, log in events.items()
            if log
        }
        return (ANCHORED, {"heads": heads}) if heads != kept else None

    EventLog(registry, ANCHORS, clock).append(decide)


def check_ledger_heads(registry: Store, data: Store) -> int:
    """Checks the ledger against its anchor and writes nothing.

    Returns:
        How many of the ledger's events the anchor stands for, 0 without an anchor.

    Raises:
        IntegrityError: events that a gate saw are gone or others.
    """
    anchors = EventLog(registry, ANCHORS).read()
    events = {prefix: EventLog(data, prefix).read() for prefix in (BOOK, OLD_RESEARCH)}
    heads = _check_ledger(registry, data, anchors, events)
    return int(heads.get(BOOK, {}).get("sequence", 0))


def keep_registry_head(
    registry: Store, data: Store, name: str, clock: Callable[[], datetime] = now
) -> None:
    """Anchors the newest event of a registry's log in the ledger.

    Raises:
        IntegrityError: a log was tampered with.
        StorageError: a store failed.
    """
    head = EventLog(registry, f"registry/{name}").read()[-1]
    about = {"store": registry.uri, "name": name}
    body = {**about, "sequence": head.sequence, "digest": head.digest}

    def decide(events: Sequence[Event]) -> Draft | None:
        # A gate that was slower than another brings an older head.
        kept = [e.body["sequence"] for e in _anchors_of(events, registry, name)]
        return (ANCHORED, body) if head.sequence > max(kept, default=0) else None

    EventLog(data, BOOK, clock).append(decide)


def check_registry_head(registry: Store, data: Store, name: str) -> None:
    """Checks a registry's log against the ledger's anchor of it.

    Raises:
        IntegrityError: events that were anchored are gone or others.
    """
    # The anchor first: the registry's log only grows, so it cannot be behind it.
    anchors = _anchors_of(EventLog(data, BOOK).read(), registry, name)
    events = EventLog(registry, f"registry/{name}").read()
    for anchor in anchors[-1:]:
        check_head(f"{registry.uri}/registry/{name}", events, anchor.body, data.uri)


def _anchors_of(events: Sequence[Event], registry: Store, name: str) -> list[Event]:
    about = (registry.uri, name)
    anchors = (event for event in events if event.kind == ANCHORED)
    return [a for a in anchors if (a.body["store"], a.body["name"]) == about]


def _check_ledger(
    registry: Store,
    data: Store,
    anchors: Sequence[Event],
    events: Mapping[str, Sequence[Event]],
) -> dict[str, Any]:
    """Checks the ledger's logs against the newest anchor and returns its heads."""
    heads: dict[str, Any] = anchors[-1].body["heads"] if anchors else {}
    for prefix, head in heads.items():
        where = f"{data.uri}/{prefix}"
        check_head(where, events.get(prefix, ()), head, registry.uri)
    return heads


def check_head(
    where: str, events: Sequence[Event], head: Mapping[str, Any], keeper: str
) -> None:
    """Checks that a log holds the event that somebody kept the digest of.

    Args:
        where: the log.
        events: what it holds.
        head: `sequence` and `digest` of the event.
        keeper: who kept them.

    Raises:
        IntegrityError: the event is gone, or is another one.
    """
    number, digest = head["sequence"], head["digest"]
    if len(events) < number:
        raise IntegrityError(
            f"{where} ends with event {len(events)}, but {keeper} keeps the digest "
            f"{digest} of its event {number}: {number - len(events)} were cut off, or "
            "this is another log; restore it from a backup."
        )
    if events[number - 1].digest != digest:
        raise IntegrityError(
            f"Event {number} of {where} has digest {events[number - 1].digest}, but "
            f"{keeper} keeps {digest} of it: the log was written anew, or this is "
            "another log; restore it from a backup."
        )
