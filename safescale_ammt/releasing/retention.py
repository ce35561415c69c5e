"""Retention: the record of a release, locked where its store has object lock.

Digests and signatures show that a record was destroyed; a lock keeps it. For as many
days as `registry.record_retention_days` says nobody, with whatever key, removes the
locked versions of a bundle's files and of the registry's events. A delete marker may
hide them: the ids of the versions, kept in `version.json`, are what to restore from.

Source: S3 object lock, compliance mode (Amazon S3 user guide, "Locking objects").
"""

from __future__ import annotations

from datetime import datetime, timedelta

from safescale_ammt.store.base import Store


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
