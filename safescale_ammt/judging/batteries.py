"""Batteries: what is kept of attacks on images beside what became of each row.

The attacks check themselves on a sample of the rows (`attacks.sanity`). Which checks
are raised, and the seed of it all, stand in the evidence: findings follow from them,
and whoever has the sealed rows can attack the model again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.typed_json import build

SEED_BYTES = 32
"""Of an HMAC by SHA-256, from which all draws follow."""
METADATA = b"safescale.batteries"
"""Key of the evidence file's metadata that holds all batteries."""


@dataclass(frozen=True)
class CheckRecord:
    """What one check of the attacks says.

    Attributes:
        name: of the check.
        raised: whether attacks may be too weak, or slopes hidden from them.
        value: share of the sample's rows that speak for it.
        rows: of the sample.
        p: of the paired test; None where the value alone decides.
    """

    name: str
    raised: bool
    value: float
    rows: int
    p: float | None = None


@dataclass(frozen=True)
class BatteryRecord:
    """A battery that was run on rows.

    Attributes:
        threat: in words.
        version: of the battery: another one may find more.
        seed: from which its draws follow, in hex: HMAC(evaluator's key, model and
            holdout), which another model's cannot be told from.
        attacks: that were run, in their order.
        escalated: whether those on hidden slopes were.
        checks: of the attacks, after the escalation if there was one.
    """

    threat: str
    version: int
    seed: str
    attacks: tuple[str, ...]
    escalated: bool
    checks: tuple[CheckRecord, ...]

    @property
    def raised(self) -> tuple[str, ...]:
        """Names of the checks that are raised."""
        return tuple(check.name for check in self.checks if check.raised)

    @property
    def doubts(self) -> str:
        """Says which checks are raised, "" if none is."""
        if not self.raised:
            return ""
        return (
            f" Checks of the attacks are raised ({', '.join(self.raised)}): slopes may "
            "be hidden from them, so that survivors show nothing."
        )


def written(batteries: Mapping[str, BatteryRecord]) -> bytes:
    """Returns batteries, by the keys of their threats, as canonical JSON."""
    # One spelling: the evidence's digest is taken of these bytes, too.
    return canonical_json({key: asdict(own) for key, own in batteries.items()})


def read(raw: bytes, where: str) -> dict[str, BatteryRecord]:
    """Parses what `written` returns.

    Raises:
        IntegrityError: it is none.
    """
    try:
        found = {key: build(BatteryRecord, own) for key, own in json.loads(raw).items()}
        seeds = {len(bytes.fromhex(own.seed)) for own in found.values()}
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise IntegrityError(
            f"{where} says of its attacks what cannot be read "
            f"({type(error).__name__}); judge the model anew."
        ) from None
    if seeds - {SEED_BYTES} or len({own.seed for own in found.values()}) > 1:
        raise IntegrityError(
            f"{where} says of its attacks no one seed; judge the model anew."
        )
    return found
