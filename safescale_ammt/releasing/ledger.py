"""The ledger: how often sealed rows were used, and what was made readable of them.

A sealed set answers honestly only so many questions. The ledger counts uses by
*row*, so that a new seed, split, store path or re-export does not start the count
again (`same_rows.py` says which uses are of the same data):

    number of a use = 1 + the largest number among the uses of the same data
    alpha of a use  = alpha / planned submissions

A use is reserved before the set is read, by a conditional append: two runs at
once get different numbers, and a run that is killed has spent its use. Once the
figures of a use are readable its rows are *opened*: whoever trains after that
may have looked, so that a later, different model on any of these rows has the
guarantee `spent`. The same model, judged by the same constitution on the same
rows, keeps its use and its guarantee: it was fixed before anybody could adapt it.

Under `gate.feedback: bit` a use is *answered* and not opened: passed or not is told,
and its figures are the auditor's (`store.auditor`). As long as no use of the rows has
passed, what development heard is known beforehand ("not passed", each time), so that
its k-th model is as fixed as if nothing was told, and P(any false pass among the
planned uses) is at most the sum of their levels. A pass ends that: later models have
the guarantee `spent`, as after an opening. An auditor who tells figures opens the use
(`safescale open`).

One book holds official and research uses alike, since a figure that was read in
research was read. A book of benchmarks holds no other uses and an ordinary book
holds none of theirs: the first use says which of the two a book is.

The event that opens a use binds what becomes readable by its digests. The first
evidence of a use is the one that counts (`Use.departure`).

Sources: Dwork et al. 2015, "The reusable holdout"; Renggli et al. 2019,
"ease.ml/ci". Kept in an `EventLog`, the sets of rows in `KeySets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from safescale_ammt.data.row_keys import Parts
from safescale_ammt.errors import InputError, IntegrityError, one_of
from safescale_ammt.judging.verdict import LEDGERS, OFFICIAL, RESEARCH
from safescale_ammt.releasing.key_sets import Hashes, KeySets
from safescale_ammt.releasing.same_rows import repeated, uses_of
from safescale_ammt.releasing.sealed_uses import (
    ANSWERED,
    HOLDS,
    OPENED,
    RESERVED,
    Answered,
    Opening,
    Use,
    check_purpose,
    counted,
    find,
    fold,
)
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import Draft, Event, EventLog, check_digests, now

BOOK = "ledger"
"""Prefix of the one book of a store."""
OLD_RESEARCH = "research-ledger"
"""Where research had a book of its own; it is read as history, never written."""


def reserve(
    store: Store,
    *,
    rows: Hashes,
    model: str,
    holdout: str,
    planned: int,
    constitution: str,
    ledger: str = OFFICIAL,
    keys: Mapping[str, Hashes] | None = None,
    parts: Parts | None = None,
    clock: Callable[[], datetime] = now,
) -> Use:
    """Reserves a use of sealed rows, before anybody reads them.

    Stores the sets of hashes, then decides number and guarantee from all uses so far
    and appends the use, in one conditional write.

    Args:
        store: where the book lies.
        rows: raw-row hashes, 16 bytes each; order and repetition do not matter.
        model: identity digest of the model to be judged.
        holdout: identity digest of the artifact that holds the rows.
        planned: submissions planned in the constitution; the smallest number
            ever promised for any of these rows binds.
        constitution: digest of the constitution to judge by.
        ledger: what the use is for: `official`, `research` or `benchmark`.
        keys: kind -> further hashes of the same people, 16 bytes each; two uses
            that share one of a kind are of the same data.
        parts: keys of parts of the rows, and what the data say of chance.
        clock: gives the time of the reservation.

    Returns:
        The use; the earlier one if this model was reserved before for the same
        purpose on exactly these rows under this constitution.

    Raises:
        InputError: no rows, hashes of another width, a malformed digest, or a
            book that is not for this purpose.
        IntegrityError: the ledger was tampered with.
        StorageError: the store failed; nothing is reserved.
    """
    check_digests(model=model, holdout=holdout, constitution=constitution)
    if planned < 1:
        raise InputError(f"{planned} planned submissions: at least 1 is expected.")
    if ledger not in LEDGERS:
        raise InputError(f"the ledger is {ledger!r}, {one_of(LEDGERS, ledger)}.")
    sets = KeySets(store, (BOOK, OLD_RESEARCH))
    # The sets are stored first: an event whose set is missing would stop every later
    # count, while a set that no event names does no harm.
    digest = sets.put(rows, "rows")
    # The store has them now: one set of hashes is held at a time.
    del rows
    others = {kind: sets.put(value, kind) for kind, value in (keys or {}).items()}
    of_parts = sets.put_parts(parts) if parts else ""
    facts = {
        "model": model,
        "constitution": constitution,
        "holdout": holdout,
        "rows": digest,
        "count": sets.size(digest),
        "ledger": ledger,
        "keys": others,
        "parts": of_parts,
    }
    named = {"rows": digest, **others}
    old, log = _old_research(store), EventLog(store, BOOK, clock)

    # The log calls this again after every lost race, so number and guarantee always
    # follow from the events that really stand before this one.
    def decide(events: Sequence[Event]) -> Draft | None:
        book = fold(events)
        check_purpose([*old, *book], ledger, f"{store.uri}/{BOOK}")
        if find(book, facts) is not None:
            return None
        sharing = uses_of(sets, [*old, *book], named, of_parts)
        return RESERVED, {**facts, **counted([*sharing], planned), **repeated(sharing)}

    log.append(decide)
    # Read back rather than built from the draft: after `None` the use is an old one.
    use = find(fold(log.read()), facts)
    assert use is not None
    return use


def mark_opened(
    store: Store,
    use: Use,
    *,
    evidence: str,
    verdict: str,
    clock: Callable[[], datetime] = now,
) -> Use:
    """Records what becomes readable of a use from now on; equal digests once.

    Call it before a byte of it is written anywhere, never after.

    Args:
        store: where the book lies.
        use: what `reserve` returned.
        evidence: digest of the evidence's rows.
        verdict: identity digest of the verdict artifact.
        clock: gives the time of the opening.

    Raises:
        InputError: this ledger holds no such use, or a malformed digest.
        IntegrityError: the ledger was tampered with.
    """
    opening = Opening(evidence, verdict)
    return _told(store, use, opening, clock)


def mark_answered(
    store: Store,
    use: Use,
    *,
    evidence: str,
    verdict: str,
    passed: bool,
    clock: Callable[[], datetime] = now,
) -> Use:
    """Records that one bit of a use is told; equal commitments once.

    Call it before the bit is written anywhere, never after.

    Args:
        store: where the book lies.
        use: what `reserve` returned.
        evidence: commitment to the digest of the evidence's rows.
        verdict: commitment to the identity digest of the verdict artifact.
        passed: the bit.
        clock: gives the time of the answer.

    Raises:
        InputError: this ledger holds no such use, or a malformed digest.
        IntegrityError: the ledger was tampered with, or the use was answered by other
            evidence or with the other bit: a second answer would be a second bit.
    """
    return _told(store, use, Answered(evidence, verdict, passed), clock)


def _told(store: Store, use: Use, told: Opening, clock: Callable[[], datetime]) -> Use:
    """Appends what is told of a use, unless it was told before; returns the use."""
    check_digests(evidence=told.evidence, verdict=told.verdict)
    answer = isinstance(told, Answered)
    where = f"{store.uri}/{BOOK}"

    def decide(events: Sequence[Event]) -> Draft | None:
        recorded = next((u for u in fold(events) if u.event == use.event), None)
        # The caller's copy may be older than what was told, so that is not compared.
        # All else is: the same event number exists in every ledger.
        if recorded is None or (
            replace(recorded, openings=use.openings, answers=use.answers) != use
        ):
            raise InputError(f"{where} holds no use {use.event} of model {use.model}.")
        if isinstance(told, Answered) and recorded.answers:
            first = recorded.answers[0]
            if (first.evidence, first.passed) != (told.evidence, told.passed):
                raise IntegrityError(
                    f"Use {use.event} of {where} was answered by other evidence or "
                    "with another bit, and a use is answered once: the same model "
                    "answers the same rows alike."
                )
        body = {"use": use.event, **vars(told)}
        if told in (recorded.answers if answer else recorded.openings):
            return None
        return ANSWERED if answer else OPENED, body

    log = EventLog(store, BOOK, clock)
    log.append(decide)
    return next(u for u in fold(log.read()) if u.event == use.event)


def uses(store: Store) -> list[Use]:
    """Lists all uses in the order of their reservation, old research first.

    Raises:
        IntegrityError: the ledger was tampered with.
    """
    return [*_old_research(store), *fold(EventLog(store, BOOK).read())]


def verify(store: Store) -> list[Use]:
    """Checks the chain of events and every stored set of hashes.

    Raises:
        IntegrityError: an event or a set is missing or changed.
    """
    sets = KeySets(store, (BOOK, OLD_RESEARCH))
    past = uses(store)
    for use in past:
        sets.parts(use.parts)
        sizes = {name: sets.size(digest) for name, digest in use.sets.items()}
        if sizes["rows"] != use.count:
            raise IntegrityError(
                f"use {use.event} of {store.uri}/{BOOK} counts {use.count} rows, its "
                f"set {use.rows} holds {sizes['rows']}."
            )
    sets.check_unnamed({d for use in past for d in (use.parts, *use.sets.values())})
    return past


def recount(store: Store, use: Use, planned: int) -> None:
    """Checks that number and guarantee of a use follow from the events before it.

    Whoever has the key of the store could append an event that states others.

    Raises:
        IntegrityError: they do not, or the ledger was tampered with.
    """
    sets = KeySets(store, (BOOK, OLD_RESEARCH))
    earlier = fold(EventLog(store, BOOK).read()[: use.event - 1])
    past = [*_old_research(store), *earlier]
    sharing = uses_of(sets, past, use.sets, use.parts)
    facts = {**counted([*sharing], planned), **repeated(sharing)}
    for name, expected in facts.items():
        if (stated := getattr(use, name)) != expected:
            raise IntegrityError(
                f"Event {use.event} of {store.uri}/{BOOK} states {name} {stated!r}, "
                f"{expected!r} follows from the constitution and the events before it."
            )


def left(store: Store, use: Use) -> int:
    """Returns how many more, different models can be judged with a guarantee.

    Args:
        store: of data and ledger.
        use: of the rows that are asked about.

    Raises:
        IntegrityError: the ledger was tampered with.
    """
    past = [*_old_research(store), *uses(store)]
    sharing = [
        *uses_of(KeySets(store, (BOOK, OLD_RESEARCH)), past, use.sets, use.parts)
    ]
    planned = min([use.planned, *(other.planned for other in sharing)])
    facts = counted(sharing, planned)
    return planned - facts["number"] + 1 if facts["guarantee"] == HOLDS else 0


def _old_research(store: Store) -> list[Use]:
    return fold(EventLog(store, OLD_RESEARCH).read(), RESEARCH)
