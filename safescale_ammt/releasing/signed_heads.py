"""Signed heads: where every log ended, kept by a person outside of both stores.

Ledger and registry keep one another's heads (`releasing.anchor`), but no store can show
that the very last event of all was cut off, nor what somebody rewrote who holds both
keys. A Statement about the newest event of every log, signed and carried elsewhere,
does: whatever the logs held then, they must hold for ever.

Source: the signed tree heads of transparency logs (RFC 9162, section 4.10); here the
chain itself is what a consistency proof is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.releasing.anchor import ANCHORS, check_head
from safescale_ammt.releasing.envelope import opened, public_key_of, seal
from safescale_ammt.releasing.ledger import BOOK, OLD_RESEARCH
from safescale_ammt.releasing.record import STATEMENT
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PLACES = ("registry", "data")
"""Stores whose logs have heads."""
HEADS = "urn:safescale-ammt:heads:v0.1"


@dataclass(frozen=True)
class LogHead:
    """The newest event of a log.

    Attributes:
        place: `registry` or `data`, the store that it lies in.
        prefix: of the log.
        sequence: number of the event.
        digest: of the event.
    """

    place: str
    prefix: str
    sequence: int
    digest: str


@dataclass(frozen=True)
class SignedHeads:
    """What somebody signed about the logs.

    Attributes:
        key: the signer's public key.
        issued: when, by the signer's clock, ISO 8601.
        heads: the newest event of each log that had one.
    """

    key: str
    issued: str
    heads: tuple[LogHead, ...]


def heads_of(registry: Store, data: Store, names: Iterable[str]) -> list[LogHead]:
    """Reads the newest event of every log that has one, its chain checked.

    Args:
        registry: the registry's store.
        data: the ledger's store.
        names: the registered models.

    Raises:
        IntegrityError: a chain is broken.
    """
    logs = [("registry", registry, ANCHORS)]
    logs += [("registry", registry, f"registry/{name}") for name in sorted(names)]
    logs += [("data", data, prefix) for prefix in (BOOK, OLD_RESEARCH)]
    read = [(place, prefix, EventLog(s, prefix).read()) for place, s, prefix in logs]
    return [
        LogHead(place, prefix, events[-1].sequence, events[-1].digest)
        for place, prefix, events in read
        if events
    ]


def sign_heads(
    heads: Iterable[LogHead], key: Ed25519PrivateKey, now: datetime
) -> dict[str, Any]:
    """Signs where logs end and returns the envelope.

    Raises:
        InputError: there is no log.
    """
    if not (known := tuple(heads)):
        raise InputError("There is no event in registry and ledger whose head to sign.")
    issued = now.isoformat(timespec="seconds")
    return seal(_statement(SignedHeads(public_key_of(key), issued, known)), key)


def read_heads(envelope: Any) -> SignedHeads:
    """Returns the signed heads of an envelope.

    Raises:
        IntegrityError: the signature does not hold, or it is about something else.
    """
    signed = opened(envelope)
    try:
        predicate = dict(signed.statement["predicate"])
        heads = tuple(build(LogHead, head) for head in predicate["heads"])
        read = SignedHeads(signed.key, str(predicate["issued"]), heads)
        datetime.fromisoformat(read.issued)
        # Nor does anything hold a head of no log, of none of ours or of no event.
        known = all(h.place in PLACES and h.sequence > 0 for h in heads)
        if not (heads and known):
            raise ValueError
        # Written again: a word that nothing reads could be anybody's promise.
        if canonical_json(_statement(read)) != canonical_json(signed.statement):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise IntegrityError(
            "the signed Statement is no heads of ours; `safescale registry head` "
            "writes them."
        ) from None
    return read


def check_heads(signed: SignedHeads, registry: Store, data: Store) -> None:
    """Checks that every log still holds the event that was its newest.

    Args:
        signed: the heads.
        registry: the registry's store.
        data: the ledger's store.

    Raises:
        IntegrityError: a log lost events, or was written anew.
    """
    stores = {"registry": registry, "data": data}
    for head in signed.heads:
        store = stores[head.place]
        events = EventLog(store, head.prefix).read()
        keeper = f"the head that {signed.key} signed on {signed.issued}"
        about = {"sequence": head.sequence, "digest": head.digest}
        check_head(f"{store.uri}/{head.prefix}", events, about, keeper)


def _statement(signed: SignedHeads) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        # What an event's digest covers is its canonical JSON without that digest.
        "subject": [
            {
                "name": f"{head.place}/{head.prefix}#{head.sequence}",
                "digest": {"sha256": head.digest.removeprefix("sha256:")},
            }
            for head in signed.heads
        ],
        "predicateType": HEADS,
        "predicate": {
            "heads": [dict(vars(head)) for head in signed.heads],
            "issued": signed.issued,
            "key": signed.key,
        },
    }
