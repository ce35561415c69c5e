"""A registry with a pending version, and people with keys, for tests of approvals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from registered_world import registered
from safety_world import (
    constitution,
    evidence,
    submission,
    write_model,
    write_verdict,
)

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.bundle import write_bundle
from safescale_ammt.releasing.deciding import decide, promote
from safescale_ammt.releasing.envelope import public_key_of
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.versions import Version
from safescale_ammt.store.base import Store

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
REASON = "The bound misses by a tenth of a point."


def person(number: int) -> Ed25519PrivateKey:
    """Returns the key of a made-up person."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


ALICE, BOB, CAROL, EVE = map(person, range(1, 5))
PEOPLE = {"alice": ALICE, "bob": BOB, "carol": CAROL}
HUMAN = {"approvers": {name: public_key_of(key) for name, key in PEOPLE.items()}}


def rule_with(human: Mapping[str, Any], tier: str = "hard") -> Constitution:
    """Returns the constitution of `safety_world` with people in it."""
    raw = constitution().to_dict()
    raw["principles"][0]["constraint"]["tier"] = tier
    return Constitution.from_dict({**raw, "human": {**HUMAN, **human}})


def write_pending(
    folder: Path,
    weights: bytes = b"w",
    *,
    gap: float = 0.12,
    human: Mapping[str, Any] | None = None,
    tier: str = "hard",
    run_owner: str = "dave",
    name: str = "loans",
    page: bool = False,
    days: int = 0,
    **use: Any,
) -> Path:
    """Writes the bundle of a model whose equal opportunity is undecided."""
    rule = rule_with(human or {}, tier)
    model = write_model(folder / "model", rule, weights)
    about = submission(model.identity, **use)
    write_verdict(folder / "verdict", rule, evidence(gap=gap), about, page=page)
    write_bundle(
        folder / "bundle",
        model=folder / "model",
        verdict=folder / "verdict",
        constitution=rule,
        registry=RegistryConfig(
            name=name, run_owner=run_owner, record_retention_days=days
        ),
    )
    return folder / "bundle"


@dataclass
class World:
    """A registry, a clock that tests move, and places for bundles.

    Attributes:
        store: where the registry lies.
        folder: for bundles.
        now: the clock's time.
        count: models registered so far.
    """

    store: Store
    folder: Path
    now: datetime = START
    count: int = 0

    def registry(self, name: str = "loans") -> Registry:
        """Opens the registry anew, as another process would."""
        return Registry(self.store, name, lambda: self.now)

    def later(self, **time: float) -> None:
        """Moves the clock."""
        self.now += timedelta(**time)

    def register(self, name: str = "loans", **about: Any) -> Version:
        """Registers another model; pending, unless its gap is small."""
        self.count += 1
        place = self.folder / str(self.count)
        bundle = write_pending(place, b"w%d" % self.count, name=name, **about)
        decision = Verdict.load(bundle / "verdict").decision
        return registered(self.store, bundle, name, decision)

    def act(
        self, act: str, key: Ed25519PrivateKey, number: int = 1, reason: str = REASON
    ) -> Version:
        """Signs an act."""
        return decide(self.registry(), number, act, key, reason)

    def promote(self, number: int = 1) -> Version:
        """Promotes by quorum."""
        return promote(self.registry(), number)
