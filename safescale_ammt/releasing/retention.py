"""Retention: the record of a release, locked where its store has object lock.

Digests and signatures show that a record was destroyed; a lock keeps it. For as many
days as `registry.record_retention_days` says nobody, with whatever key, removes the
locked versions of a bundle's files and of the events of registry, anchors and ledger:
none of them is ever written again, so that a lock hinders nobody. A delete marker may
hide them: the ids of the versions, kept in `version.json`, are what to restore from.

The ledger's sets of hashes stay unlocked. They are of people, who may ask for erasure,
and no count goes on without them.

Source: S3 object lock, compliance mode (Amazon S3 user guide, "Locking objects").
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from safescale_ammt.errors import StoreInputError
from safescale_ammt.releasing.anchor import ANCHORS
from safescale_ammt.releasing.ledger import BOOK
from safescale_ammt.store.auditor import KEY, place_of
from safescale_ammt.store.base import Store


@dataclass(frozen=True)
class Locked:
    """What a release has locked: the id of the version by key.

    Attributes:
        registry: in the registry's store.
        data: in the store of data.
        why: why nothing is locked in the latter; "" where it is, or nothing was asked.
    """

    registry: dict[str, str]
    data: dict[str, str]
    why: str = ""

    def to_dict(self) -> dict[str, object]:
        """Returns the keys of `version.json` that tell of it; none where none is."""
        names = ("locked", "locked_data", "not_locked")
        told = (self.registry, self.data, self.why)
        return {name: one for name, one in zip(names, told, strict=True) if one}


def lock_objects(store: Store, prefix: str, days: int, now: datetime) -> dict[str, str]:
    """Locks every object under a prefix for some days.

    Again for the same objects it changes nothing but the time, which only grows: a
    step that runs twice, or goes on after a kill, locks what is left.

    Args:
        store: where they lie.
        prefix: beginning of their keys.
        days: from now; 0 locks nothing.
        now: the time.

    Returns:
        The id of the version that is locked, by key, sorted.

    Raises:
        StoreInputError: the store has no object lock.
        StorageError: it failed.
    """
    if not days:
        return {}
    # Stores keep whole seconds, and a later look must not find that one is short.
    until = now.replace(microsecond=0) + timedelta(days=days)
    keys = sorted(info.key for info in store.list(prefix))
    return {key: store.lock(key, until) for key in keys}


def lock_logs(
    registry: Store,
    data: Store,
    events: str,
    days: int,
    now: datetime,
    *,
    answer: str = "",
) -> Locked:
    """Locks the events of a registry, of the anchors and of the ledger.

    All of them, old ones again: a chain's beginning has to last as long as its end.

    Args:
        registry: the registry's store, which has object lock.
        data: that of the ledger, whose owner may be another and want no lock.
        events: beginning of the keys of the registry's events.
        days: from now; 0 locks nothing.
        now: the time.
        answer: identity of the answer that was registered, behind which a verdict lies
            in the store of data; "" = a verdict was.

    Raises:
        StoreInputError: the registry's store has no object lock.
        StorageError: a store failed.
    """
    own = lock_objects(registry, events, days, now)
    own |= lock_objects(registry, f"{ANCHORS}/events/", days, now)
    # Commitments mean nothing without their key, a bit nothing without its verdict.
    kept = (f"{place_of(answer)}/", KEY) if answer else ()
    try:
        found: dict[str, str] = {}
        for prefix in (f"{BOOK}/events/", *kept):
            found |= lock_objects(data, prefix, days, now)
    except StoreInputError as error:
        # Said and no refusal: by now the version is registered.
        return Locked(own, {}, str(error))
    return Locked(own, found)
