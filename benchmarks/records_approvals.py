"""Approvals that must count for nothing: each is tried on a copy of a real registry.

Two ways: *asked*, as the commands let people act; and *written*, into the log by hand
with a chain that fits, as one who holds the registry's key can. What is asked has to be
refused with nothing written; what is written has to stop `safescale registry verify`.
Version 1 is champion, version 2 pending with a quorum of two.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.records_world import (
    ALICE,
    APPROVERS,
    BOB,
    CAROL,
    EVE,
    NAME,
    World,
    promises,
)
from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import SafescaleError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.json_text import parse_json
from safescale_ammt.releasing.acts import sign
from safescale_ammt.releasing.bundle import write_bundle
from safescale_ammt.releasing.deciding import decide, promote
from safescale_ammt.releasing.envelope import public_key_of, seal
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.registry_state import KINDS, NO_CERTIFICATE, promotion
from safescale_ammt.store.event_log import Draft, EventLog

PENDING = 2
OWN = "loans-of-alice"
"""A registry whose run's owner is Alice, and so nobody who may approve there."""
_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's group (RFC 8032): S and S + this sign the same, without its check."""


@dataclass
class Desk:
    """A copy of the registry, and a clock.

    Attributes:
        world: the copy.
        now: the time by its clock.
    """

    world: World
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def registry(self, name: str = NAME) -> Registry:
        """Opens the registry anew."""
        return Registry(self.world.registry, name, lambda: self.now)

    def ask(self, act: str, key: Ed25519PrivateKey, name: str = NAME) -> None:
        """Acts on the pending version as the commands do."""
        number = PENDING if name == NAME else 1
        decide(self.registry(name), number, act, key, "I read the report.")

    def write(self, draft: Draft, name: str = NAME) -> None:
        """Adds an event without asking whether it counts."""
        log = EventLog(self.world.registry, f"registry/{name}", lambda: self.now)
        log.append(lambda _: draft)

    def signed(self, key: Ed25519PrivateKey, act: str = "approve", **words: Any) -> Any:
        """Returns the envelope of an act for the log as it stands, words changed."""
        state = self.registry().state()
        place = state.place(PENDING)
        terms = state.terms_of(place.entry)
        about: dict[str, Any] = {"reason": "I read the report.", "now": self.now}
        envelope = sign(act, place, terms, key, **about)
        if not words:
            return envelope
        statement = parse_json(base64.b64decode(envelope["payload"]))
        statement["predicate"] |= words
        return seal(statement, key)


Attempt = Callable[[Desk, random.Random], None]


def _approval(envelope: Any, version: int = PENDING, kind: str = "approve") -> Draft:
    return KINDS[kind], {"version": version, "envelope": envelope}


def _promoted(desk: Desk, **changes: Any) -> None:
    """Writes a promotion by two approvals, some of it changed."""
    for key in (ALICE, BOB):
        desk.ask("approve", key)
    kind, body = promotion(desk.registry().state(), PENDING, desk.now.isoformat())
    desk.write((kind, {**body, **changes}))


def _by_nobody(desk: Desk, _: random.Random) -> None:
    body = {"version": PENDING, "replaces": 1, "approvals": [], "waived": []}
    desk.write(("promoted", {**body, "certificate": NO_CERTIFICATE}))


def _one_twice(desk: Desk, _: random.Random) -> None:
    both = [{"by": "alice", "key": public_key_of(ALICE)}] * 2
    _promoted(desk, approvals=both)


def _bit(desk: Desk, rng: random.Random, part: str) -> None:
    """Flips a bit of a signature or of a payload."""
    envelope = desk.signed(ALICE)
    (signature,) = envelope["signatures"]
    text = signature["sig"] if part == "sig" else envelope["payload"]
    data = bytearray(base64.b64decode(text))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    changed = base64.b64encode(data).decode()
    if part == "sig":
        envelope["signatures"] = [{**signature, "sig": changed}]
    else:
        envelope["payload"] = changed
    desk.write(_approval(envelope))


def _beyond_the_order(desk: Desk, _: random.Random) -> None:
    envelope = desk.signed(ALICE)
    (signature,) = envelope["signatures"]
    raw = base64.b64decode(signature["sig"])
    second = int.from_bytes(raw[32:], "little") + _ORDER
    data = raw[:32] + second.to_bytes(32, "little")
    sig = base64.b64encode(data).decode()
    desk.write(_approval({**envelope, "signatures": [{**signature, "sig": sig}]}))


def _in_anothers_name(desk: Desk, _: random.Random) -> None:
    envelope = desk.signed(EVE)
    (signature,) = envelope["signatures"]
    named = {**signature, "keyid": public_key_of(ALICE)}
    desk.write(_approval({**envelope, "signatures": [named]}))


def _two_signatures(desk: Desk, _: random.Random) -> None:
    one, two = desk.signed(ALICE), desk.signed(BOB)
    both = [*one["signatures"], *two["signatures"]]
    desk.write(_approval({**one, "signatures": both}))


def _replayed(
    desk: Desk, days: float, version: int = PENDING, name: str = NAME
) -> None:
    """Writes an approval again that stands in the log already."""
    desk.ask("approve", ALICE)
    event = EventLog(desk.world.registry, f"registry/{NAME}").read()[-1]
    desk.now += timedelta(days=days)
    desk.write((event.kind, {**event.body, "version": version}), name)


def _before_another(desk: Desk, _: random.Random) -> None:
    """Writes a rejection that was signed before another event came.

    An approval may name an earlier event, back to its version's registration.
    """
    envelope = desk.signed(ALICE, "reject")
    desk.ask("approve", BOB)
    desk.write(_approval(envelope, kind="reject"))


def _before_its_version(desk: Desk, _: random.Random) -> None:
    """Writes an approval that names an event of before its version was registered."""
    first = desk.registry().state().heads[0]
    desk.write(_approval(desk.signed(ALICE, head=first)))


def _expired(desk: Desk, *, written: bool) -> None:
    for key in (ALICE, BOB):
        desk.ask("approve", key)
    draft = promotion(desk.registry().state(), PENDING, desk.now.isoformat())
    desk.now += timedelta(days=31)
    if written:
        desk.write(draft)
    else:
        promote(desk.registry(), PENDING)


def _promise(**human: Any) -> None:
    Constitution.from_dict(promises(**human))


def _constitution_exchanged(desk: Desk, _: random.Random) -> None:
    """Makes the stranger an approver in the stored bundle."""
    bundle = desk.registry().show(PENDING).entry.bundle
    file = desk.world.folder / "registry" / bundle / "constitution.json"
    rule = read_json(file)
    rule["human"]["approvers"]["eve"] = public_key_of(EVE)
    write_json(file, rule)
    desk.ask("approve", EVE)


ASKED: dict[str, tuple[str, Attempt]] = {
    "a stranger approves": ("forged", lambda d, _: d.ask("approve", EVE)),
    "a stranger rejects": ("forged", lambda d, _: d.ask("reject", EVE)),
    "a stranger revokes": ("forged", lambda d, _: d.ask("revoke", EVE)),
    "nobody approved": ("forged", lambda d, _: _promote(d)),
    "one of two approved": ("forged", lambda d, _: _promote(d, ALICE)),
    "both approvals are over": ("expired", lambda d, _: _expired(d, written=False)),
    "one person approves twice": (
        "one key twice",
        lambda d, _: _promote(d, ALICE, ALICE),
    ),
    "the run's owner approves": (
        "self-made",
        lambda d, _: d.ask("approve", ALICE, OWN),
    ),
    "the stranger enters the bundle's constitution": (
        "self-made",
        _constitution_exchanged,
    ),
    "one key under two names": (
        "one key twice",
        lambda *_: _promise(approvers={**APPROVERS, "mallory": APPROVERS["alice"]}),
    ),
    "one key in two spellings": (
        "one key twice",
        lambda *_: _promise(
            approvers={**APPROVERS, "mallory": APPROVERS["alice"].rstrip("=")}
        ),
    ),
    "one name in two spellings": (
        "one key twice",
        lambda *_: _promise(approvers={**APPROVERS, "ALICE": public_key_of(EVE)}),
    ),
    "text that is no key": (
        "forged",
        lambda *_: _promise(approvers={"alice": "ed25519:not-a-key-at-all"}),
    ),
    "a key that anybody can sign for": (
        "forged",
        lambda *_: _promise(
            approvers={"a": "ed25519:" + base64.b64encode(b"\1" + bytes(31)).decode()}
        ),
    ),
}
"""Name -> its class, and what is asked for: it has to raise."""
WRITTEN: dict[str, tuple[str, Attempt]] = {
    "a promotion that nobody approved": ("forged", _by_nobody),
    "a promotion that counts one twice": ("one key twice", _one_twice),
    "a promotion without its waivers": (
        "forged",
        lambda d, _: _promoted(d, waived=[]),
    ),
    "a promotion over another champion": (
        "forged",
        lambda d, _: _promoted(d, replaces=0),
    ),
    "a promotion with a certificate": (
        "forged",
        lambda d, _: _promoted(d, certificate="It is safe."),
    ),
    "an approval without a signature": (
        "forged",
        lambda d, _: d.write(_approval({**d.signed(ALICE), "signatures": []})),
    ),
    "an approval with two signatures": ("forged", _two_signatures),
    "a stranger's in Alice's name": ("forged", _in_anothers_name),
    "a stranger's own": ("self-made", lambda d, _: d.write(_approval(d.signed(EVE)))),
    "a bit of the signature": ("forged", lambda d, r: _bit(d, r, "sig")),
    "a bit of what was signed": ("forged", lambda d, r: _bit(d, r, "payload")),
    "a second signature of the same": ("forged", _beyond_the_order),
    "a rejection as approval": (
        "forged",
        lambda d, _: d.write(_approval(d.signed(ALICE, "reject"))),
    ),
    "an approval of other digests": (
        "forged",
        lambda d, _: d.write(_approval(d.signed(ALICE, digests={}))),
    ),
    "an approval that waives nothing": (
        "forged",
        lambda d, _: d.write(_approval(d.signed(ALICE, waived=[]))),
    ),
    "an approval with one word more": (
        "forged",
        lambda d, _: d.write(_approval(d.signed(ALICE, legal="cleared"))),
    ),
    "an approval of tomorrow": (
        "forged",
        lambda d, _: d.write(
            _approval(d.signed(ALICE, issued=_in_days(d, 1), expires=_in_days(d, 2)))
        ),
    ),
    "an approval for longer than 30 days": (
        "expired",
        lambda d, _: d.write(_approval(d.signed(ALICE, expires=_in_days(d, 31)))),
    ),
    "an approval that never ends": (
        "expired",
        lambda d, _: d.write(_approval(d.signed(ALICE, expires=""))),
    ),
    "an approval that was over when it came": (
        "expired",
        lambda d, _: _written_late(d),
    ),
    "a promotion by approvals that are over": (
        "expired",
        lambda d, _: _expired(d, written=True),
    ),
    "the same approval again": ("replayed", lambda d, _: _replayed(d, 0)),
    "the same approval after it is over": ("replayed", lambda d, _: _replayed(d, 31)),
    "an approval for another version": (
        "replayed",
        lambda d, _: _replayed(d, 0, version=1),
    ),
    "an approval in another registry": (
        "replayed",
        lambda d, _: _replayed(d, 0, version=1, name=OWN),
    ),
    "a rejection of an earlier state of the log": ("replayed", _before_another),
    "an approval of before its version": ("replayed", _before_its_version),
    "the run's owner's own": (
        "self-made",
        lambda d, _: d.write(_approval(_of_owner(d), 1), OWN),
    ),
}
"""Name -> its class, and what is written: `registry verify` has to refuse the store."""
REPEATED = {"a bit of the signature": 20, "a bit of what was signed": 20}
"""How often attempts are made that draw where they strike; others once."""


def _promote(desk: Desk, *keys: Ed25519PrivateKey) -> None:
    for key in keys:
        desk.ask("approve", key)
    promote(desk.registry(), PENDING)


def _in_days(desk: Desk, days: int) -> str:
    return (desk.now + timedelta(days=days)).isoformat(timespec="seconds")


def _written_late(desk: Desk) -> None:
    envelope = desk.signed(ALICE)
    desk.now += timedelta(days=31)
    desk.write(_approval(envelope))


def _of_owner(desk: Desk) -> Any:
    state = desk.registry(OWN).state()
    place = state.place(1)
    terms = state.terms_of(place.entry)
    return sign("approve", place, terms, ALICE, reason="It is mine.", now=desk.now)


def tried(
    world: World, folder: Path, verify: Callable[[World], str], seed: int
) -> Iterator[dict[str, str | bool]]:
    """Makes every attempt on a copy of its own, and yields whether it was refused.

    Args:
        world: with a pending version, and one in the registry `OWN`.
        folder: for the copies.
        verify: returns why `registry verify` refuses a world, "" if it does not.
        seed: of what is drawn.
    """
    rng = random.Random(seed)
    for way, attempts in (("asked", ASKED), ("written", WRITTEN)):
        for name, (kind, attempt) in attempts.items():
            for number in range(REPEATED.get(name, 1)):
                copy = world.copy(folder / f"{way}-{name}-{number}".replace(" ", "-"))
                said = _refusal(Desk(copy), rng, attempt, way == "written", verify)
                row = {"attempt": name, "class": kind, "way": way}
                yield {**row, "refused": bool(said), "said": said}


def _refusal(
    desk: Desk,
    rng: random.Random,
    attempt: Attempt,
    written: bool,
    verify: Callable[[World], str],
) -> str:
    champion = desk.registry().champion()
    try:
        attempt(desk, rng)
    except SafescaleError as error:
        if written:
            raise
        said = str(error)
        after = verify(desk.world)
        # Refused and yet written would be no refusal; the constitution that was
        # exchanged is found by every reader.
        if not after and desk.registry().champion() != champion:
            return ""
        return said
    return verify(desk.world) if written else ""


def honest(world: World, folder: Path, verify: Callable[[World], str]) -> str:
    """Approves as two people may; returns what is wrong with it, "" for nothing."""
    desk = Desk(world.copy(folder / "honest"))
    _promote(desk, BOB, CAROL)
    champion = desk.registry().champion()
    if champion is None or champion.number != PENDING:
        return "two approvals made no champion"
    return verify(desk.world)


def owned(world: World, folder: Path) -> None:
    """Registers the pending model once more, in a registry of a run of Alice's."""
    registry = Registry(world.registry, NAME)
    version = registry.show(PENDING)
    registry.get_bundle(version, folder / "theirs")
    write_bundle(
        folder / "own",
        model=folder / "theirs" / "model",
        verdict=folder / "theirs" / "verdict",
        constitution=Constitution.from_dict(world.rule),
        registry=RegistryConfig(name=OWN, run_owner="Alice"),
    )
    own = Registry(world.registry, OWN)
    stored = own.put_bundle(folder / "own")
    own.register(
        replace(version.entry, bundle=stored.prefix, bundle_digest=stored.digest)
    )
