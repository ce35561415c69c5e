"""The ledger: how often sealed rows were used, and whether their figures are readable.

A sealed set answers honestly only so many questions. The ledger counts uses by
*row*, so that a new seed, split or store path does not start the count again:

    number of a use = 1 + the largest number among the uses that share a row
    alpha of a use  = alpha / planned submissions

A use is reserved before the set is read, by a conditional append: two runs at
once get different numbers, and a run that is killed has spent its use. Once the
figures of a use are readable its rows are *opened*: whoever trains after that
may have looked, so that a later, different model on any of these rows has the
guarantee `spent`. The same model, judged by the same constitution on the same
rows, keeps its use and its guarantee: it was fixed before anybody could adapt it.

Sources: Dwork et al. 2015, "The reusable holdout"; Renggli et al. 2019,
"ease.ml/ci". Kept in an `EventLog`; each set of rows is stored once, under the
digest of its sorted hashes. The ledger holds hashes, never rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.files.typed_json import build
from safescale_ammt.judging.evidence import ROW_BYTES, distinct_rows
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import Draft, Event, EventLog, check_digests, now

HOLDS = "holds"
SPENT = "spent"
OFFICIAL = "ledger"
"""Prefix of the ledger whose uses can lead to a registration."""
# Sorts and compares in C. numpy drops the trailing zero bytes of a fixed-width
# string, but two hashes of one width that differ still differ without them.
_ROW = np.dtype(f"S{ROW_BYTES}")

Rows = NDArray[np.bytes_]


@dataclass(frozen=True)
class Use:
    """One reservation of a sealed set.

    Attributes:
        number: which use of its rows this is, from 1.
        planned: submissions that its constitution planned.
        guarantee: `holds` or `spent`, settled when it was reserved.
        model, constitution, holdout: identity digests.
        rows: digest of the set of row hashes.
        count: rows in the set.
        event: number of the reserving event in the ledger.
        at: when it was reserved.
        opened: whether its figures are readable.
    """

    number: int
    planned: int
    guarantee: str
    model: str
    constitution: str
    holdout: str
    rows: str
    count: int
    event: int
    at: str
    opened: bool = False


def reserve(
    store: Store,
    *,
    rows: NDArray[Any] | Sequence[bytes],
    model: str,
    holdout: str,
    planned: int,
    constitution: str,
    name: str = OFFICIAL,
    clock: Callable[[], datetime] = now,
) -> Use:
    """Reserves a use of sealed rows, before anybody reads them.

    Stores the set of rows, then decides number and guarantee from all uses so far
    and appends the use, in one conditional write.

    Args:
        store: where the ledger lies.
        rows: raw-row hashes, 16 bytes each: (n,) `V16` or `S16`, (n, 16) `uint8`,
            or a list of bytes; order and repetition do not matter.
        model: identity digest of the model to be judged.
        holdout: identity digest of the artifact that holds the rows.
        planned: submissions planned in the constitution; the smallest number
            ever promised for any of these rows binds.
        constitution: digest of the constitution to judge by.
        name: the ledger's prefix; benchmarks keep one of their own.
        clock: gives the time of the reservation.

    Returns:
        The use; the earlier one if this model was reserved before on exactly
        these rows under this constitution.

    Raises:
        InputError: no rows, hashes of another width, a malformed digest.
        IntegrityError: the ledger was tampered with.
        StorageError: the store failed; nothing is reserved.
    """
    check_digests(model=model, holdout=holdout, constitution=constitution)
    if planned < 1:
        raise InputError(f"{planned} planned submissions: at least 1 is expected.")
    files = _LedgerFiles(store, name, clock)
    # The set is stored first: an event whose set is missing would stop every later
    # count, while a set that no event names does no harm.
    digest, row_set = files.put_rows(rows)

    # The log calls this again after every lost race, so number and guarantee always
    # follow from the events that really stand before this one.
    def decide(events: Sequence[Event]) -> Draft | None:
        past = _fold(events)
        if _find(past, model, constitution, digest) is not None:
            return None
        sharing = [use for use in past if files.overlap(use, digest, row_set)]
        number = 1 + max((use.number for use in sharing), default=0)
        # Whoever plans anew with a larger number would loosen alpha / planned for
        # rows that were already used under the stricter level.
        limit = min([planned, *(use.planned for use in sharing)])
        spent = number > limit or any(use.opened for use in sharing)
        return "reserved", {
            "number": number,
            "planned": planned,
            "guarantee": SPENT if spent else HOLDS,
            "model": model,
            "constitution": constitution,
            "holdout": holdout,
            "rows": digest,
            "count": len(row_set),
        }

    files.log.append(decide)
    # Read back rather than built from the draft: after `None` the use is an old one.
    use = _find(_fold(files.log.read()), model, constitution, digest)
    assert use is not None
    return use


def mark_opened(
    store: Store,
    use: Use,
    *,
    name: str = OFFICIAL,
    clock: Callable[[], datetime] = now,
) -> Use:
    """Records that the figures of a use are readable from now on; idempotent.

    Call it before the figures leave the evaluator, never after.

    Raises:
        InputError: this ledger holds no such use.
        IntegrityError: the ledger was tampered with.
    """

    def decide(events: Sequence[Event]) -> Draft | None:
        recorded = next((u for u in _fold(events) if u.event == use.event), None)
        # The caller's copy may be older than the opening, so `opened` is not compared.
        # All else is: the same event number exists in every ledger.
        if recorded is None or replace(recorded, opened=use.opened) != use:
            raise InputError(
                f"{store.uri}/{name} holds no use {use.event} of model {use.model}."
            )
        return None if recorded.opened else ("opened", {"use": use.event})

    EventLog(store, name, clock).append(decide)
    return replace(use, opened=True)


def uses(store: Store, *, name: str = OFFICIAL) -> list[Use]:
    """Lists all uses in the order of their reservation.

    Raises:
        IntegrityError: the ledger was tampered with.
    """
    return _fold(EventLog(store, name).read())


def verify(store: Store, *, name: str = OFFICIAL) -> list[Use]:
    """Checks the chain of events and every stored set of rows.

    Raises:
        IntegrityError: an event or a set is missing or changed.
    """
    files = _LedgerFiles(store, name, now)
    past = _fold(files.log.read())
    for use in past:
        size = len(files.rows(use.rows))
        if size != use.count:
            raise IntegrityError(
                f"use {use.event} of {store.uri}/{name} counts {use.count} rows, its "
                f"set {use.rows} holds {size}."
            )
    return past


class _LedgerFiles:
    """The events and the row sets of one ledger, as they lie in the store."""

    def __init__(self, store: Store, name: str, clock: Callable[[], datetime]) -> None:
        self.log = EventLog(store, name, clock)
        self._store = store
        self._name = name
        # `decide` may run many times in a race; each set is downloaded once.
        self._sets: dict[str, Rows] = {}

    def put_rows(self, rows: NDArray[Any] | Sequence[bytes]) -> tuple[str, Rows]:
        """Stores a set of rows once, the hashes sorted; returns its digest too."""
        if isinstance(rows, np.ndarray):
            width = rows.dtype.itemsize * (rows.shape[1] if rows.ndim == 2 else 1)
            widths, data = {width}, np.ascontiguousarray(rows).tobytes()
        else:
            widths, data = set(map(len, rows)), b"".join(rows)
        if len(rows) == 0:
            raise InputError("no rows were given, so there is no use to reserve.")
        if widths != {ROW_BYTES}:
            raise InputError(
                f"row hashes of {sorted(widths)} bytes were given, expected "
                f"{ROW_BYTES}."
            )
        # As the evidence of a verdict does: the gate compares the two digests.
        distinct: Rows = distinct_rows(data)
        digest = digest_bytes(distinct.tobytes())
        self._sets[digest] = distinct
        if not self._store.exists(self._key(digest)):
            self._store.put(self._key(digest), distinct.tobytes())
        return digest, distinct

    def rows(self, digest: str) -> Rows:
        """Reads a set of rows, sorted, shape (n,).

        Raises:
            IntegrityError: it is missing or changed.
        """
        if digest not in self._sets:
            key = self._key(digest)
            where = f"{self._store.uri}/{key}"
            # Counting on without the set would give its rows a first use again.
            if not self._store.exists(key):
                raise IntegrityError(f"{where} is missing; restore it from a backup.")
            data = self._store.get(key)
            actual = digest_bytes(data)
            if actual != digest:
                raise IntegrityError(
                    f"{where} was changed: the ledger recorded {digest}, found "
                    f"{actual}."
                )
            self._sets[digest] = np.frombuffer(data, _ROW)
        return self._sets[digest]

    def overlap(self, use: Use, digest: str, rows: Rows) -> bool:
        """Says whether a use has at least one row in common with `rows`."""
        # Equal digests need no download, the usual case of a repeated holdout.
        if use.rows == digest:
            return True
        small, large = sorted((self.rows(use.rows), rows), key=len)
        # Binary search of the smaller set: m log n steps, and no union is built.
        # A row beyond the last would get the index n, hence the clip.
        index = np.searchsorted(large, small).clip(max=len(large) - 1)
        return bool((large[index] == small).any())

    def _key(self, digest: str) -> str:
        return f"{self._name}/rows/{digest.removeprefix('sha256:')}"


def _fold(events: Sequence[Event]) -> list[Use]:
    """Replays events into uses.

    Raises:
        InputError: an event of a kind that only a later version knows.
    """
    past: dict[int, Use] = {}
    for event in events:
        body: Mapping[str, Any] = event.body
        if event.kind == "reserved":
            stated = {**body, "event": event.sequence, "at": event.at}
            try:
                past[event.sequence] = build(Use, stated)
            except TypeError as error:
                raise IntegrityError(
                    f"event {event.sequence} of the ledger is none of ours ({error})."
                ) from None
        elif event.kind == "opened" and body.get("use") in past:
            past[body["use"]] = replace(past[body["use"]], opened=True)
        else:
            # A kind that is skipped could be one that spends rows: the count stops.
            raise InputError(
                f"event {event.sequence} of the ledger is {event.kind!r}, which this "
                "version does not understand; use a later one."
            )
    return list(past.values())


def _find(past: Sequence[Use], model: str, constitution: str, rows: str) -> Use | None:
    # The constitution is part of the key: one that is written after the figures were
    # readable would otherwise inherit the guarantee of the one before.
    key = (model, constitution, rows)
    return next((u for u in past if (u.model, u.constitution, u.rows) == key), None)
