"""Uses of sealed rows: the state that a ledger's events add up to.

`fold` replays the events; `counted` is the rule by which a new use gets its number
and guarantee. Nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from safescale_ammt.errors import InputError
from safescale_ammt.files.typed_json import build
from safescale_ammt.judging.verdict import BENCHMARK, OFFICIAL
from safescale_ammt.store.event_log import Event

HOLDS = "holds"
SPENT = "spent"
RESERVED, OPENED, ANSWERED = "reserved", "opened", "answered"
"""Kinds of events about uses."""
ANCHORED = "anchored"
"""An event of this kind is about no use: it holds the head of another log."""


@dataclass(frozen=True)
class Opening:
    """What became readable of a use.

    Attributes:
        evidence: digest of the evidence's rows, whatever file they lie in.
        verdict: identity digest of the verdict artifact.
    """

    evidence: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Answered(Opening):
    """The one bit that was told of a use whose figures the auditor has.

    Its digests are commitments (`store.auditor.committed`): they bind evidence and
    verdict, and tell nothing of them.

    Attributes:
        passed: the bit.
    """

    passed: bool = False


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
        event: number of the reserving event in its book.
        at: when it was reserved.
        ledger: `official`, `research` or `benchmark`.
        keys: (name, digest) of further sets of hashes by which people are known.
        parts: digest of keys of parts of the rows.
        seen: kind of the key by which an earlier use is of the same data; "" = none.
        seen_in: number of that use's event.
        openings: what became readable, in order; none: it is closed.
        answers: what was told of it by one bit, in order.
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
    ledger: str = OFFICIAL
    keys: tuple[tuple[str, str], ...] = ()
    parts: str = ""
    seen: str = ""
    seen_in: int = 0
    openings: tuple[Opening, ...] = ()
    answers: tuple[Answered, ...] = ()

    @property
    def opened(self) -> bool:
        """Whether figures of it are readable."""
        return bool(self.openings)

    @property
    def passed(self) -> bool:
        """Whether it was answered by a pass."""
        return any(answer.passed for answer in self.answers)

    @property
    def sets(self) -> dict[str, str]:
        """Its sets of hashes: name -> digest."""
        return {"rows": self.rows, **dict(self.keys)}

    def after(self, event: Event) -> Use:
        """Returns the use as it is after a later event about it.

        Raises:
            KeyError: an event of a kind that only a later version knows.
            TypeError: an answer of another form.
        """
        if event.kind == ANSWERED:
            told = {k: v for k, v in event.body.items() if k != "use"}
            return replace(self, answers=(*self.answers, build(Answered, told)))
        if event.kind != OPENED:
            raise KeyError(event.kind)
        # An event of before there were digests binds nothing, and opens.
        opening = Opening(event.body.get("evidence", ""), event.body.get("verdict", ""))
        return replace(self, openings=(*self.openings, opening))

    def departure(self, judged: Opening) -> str:
        """Says how evidence and verdict depart from what was opened; "" if they agree.

        The first evidence counts for good. A verdict in other words about the same
        evidence (a later version of the library) counts once it is recorded. What was
        answered is compared with answers, by commitments.
        """
        told: Sequence[Opening] = self.openings
        if isinstance(judged, Answered):
            told = [a for a in self.answers if a.passed == judged.passed]
        # A model answers the same rows the same way each time: whoever comes later
        # with other answers may have chosen them by the figures.
        first = next((o.evidence for o in told if o.evidence), "none")
        if judged.evidence != first:
            return f"of evidence {first}, the verdict has {judged.evidence}"
        stated = [o.verdict for o in told if o.evidence == first]
        if judged.verdict not in stated:
            return f"verdict {' or '.join(stated)}, found {judged.verdict}"
        return ""


def counted(sharing: Sequence[Use], planned: int) -> dict[str, Any]:
    """Returns number, plan and guarantee of a use after those that share a row."""
    number = 1 + max((use.number for use in sharing), default=0)
    # Whoever plans anew with a larger number would loosen alpha / planned for rows
    # that were already used under the stricter level.
    limit = min([planned, *(use.planned for use in sharing)])
    # Until the first pass everybody knows what will be heard, so that the models are as
    # fixed as if nothing was told. After it there are two ways, and the level of each
    # would have to be paid for.
    spent = number > limit or any(use.opened or use.passed for use in sharing)
    guarantee = SPENT if spent else HOLDS
    return {"number": number, "planned": planned, "guarantee": guarantee}


def check_purpose(past: Sequence[Use], ledger: str, where: str) -> None:
    """Refuses a benchmark in an ordinary book, and any other use in a benchmark's.

    Raises:
        InputError: the book is not for this purpose.
    """
    if past and (past[0].ledger == BENCHMARK) != (ledger == BENCHMARK):
        raise InputError(
            f"{where} is a book of {past[0].ledger} uses, so no {ledger} use is "
            "counted there: benchmarks and data that decide never share a ledger; "
            "name another store."
        )


def fold(events: Sequence[Event], ledger: str = OFFICIAL) -> list[Use]:
    """Replays events into uses; `ledger` is that of events which state none.

    Raises:
        InputError: an event of a kind or form that only a later version knows.
    """
    past: dict[int, Use] = {}
    for event in events:
        if event.kind == ANCHORED:
            continue
        body = {"ledger": ledger, **event.body}
        try:
            if event.kind == RESERVED:
                keys = sorted(body.pop("keys", {}).items())
                facts = {"keys": keys, "event": event.sequence, "at": event.at}
                use = build(Use, body | facts)
            else:
                use = past[body["use"]].after(event)
        except (AttributeError, KeyError, TypeError):
            # An event that is skipped could be one that spends rows: the count stops.
            raise InputError(
                f"event {event.sequence} of the ledger is {event.kind!r}, which this "
                "version does not understand; use a later one."
            ) from None
        past[use.event] = use
    return list(past.values())


def find(past: Sequence[Use], facts: Mapping[str, Any]) -> Use | None:
    """Returns the use of a model, for a purpose and by a constitution, of some rows."""
    # The constitution is part of the key: one that is written after the figures were
    # readable would otherwise inherit the guarantee of the one before. So is the
    # purpose: what was looked at in research is not official afterwards.
    names = ("ledger", "model", "constitution", "rows")
    key = [facts[name] for name in names]
    return next((u for u in past if [getattr(u, n) for n in names] == key), None)
