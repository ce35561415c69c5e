"""Versions of a model: what was registered, what became of it, and by whose act."""

from __future__ import annotations

from dataclasses import dataclass

CHAMPION = "champion"
PENDING = "pending"
SUPERSEDED = "superseded"
LOST_RACE = "lost_race"
REJECTED = "rejected"
REVOKED = "revoked"
# `fail` is absent on purpose: what has no status here cannot be registered.
DECISIONS = {"pass": CHAMPION, "needs_human": PENDING}
"""Decision of a verdict -> status of a version that wins its race."""
# The order is that of `VersionEntry.facts`, and so of the sentence about a difference.
IDENTITIES = (
    "model",
    "verdict",
    "constitution",
    "dataset",
    "holdout",
    "architecture",
)


@dataclass(frozen=True)
class VersionEntry:
    """What a version registers: a model, its verdict and what both were made from.

    Attributes:
        model, verdict, constitution, dataset, holdout, architecture: identity
            digests of the artifacts; of the constitution its own digest.
        decision: `pass` or `needs_human`.
        bundle: key prefix of the bundle, from `Registry.put_bundle`.
        bundle_digest: its identity digest.
        code_version: version of this library.
    """

    model: str
    verdict: str
    constitution: str
    dataset: str
    holdout: str
    architecture: str
    decision: str
    bundle: str
    bundle_digest: str
    code_version: str

    @property
    def facts(self) -> tuple[str, ...]:
        """Everything that two registrations of one verdict must agree on."""
        # Not the bundle and the code version: the same verdict registered again by a
        # later library has another card, and is still the same version.
        return (*(getattr(self, name) for name in IDENTITIES), self.decision)


@dataclass(frozen=True)
class OpenPoint:
    """Something that a verdict does not show.

    Attributes:
        what: id of a principle; `guarantee` where that is spent; `decision` for what
            the gate leaves open beside single principles.
        kind: `soft`, `undecided_hard` or `inviolable`, a word of `human.may_override`
            and `human.never`.
    """

    what: str
    kind: str


@dataclass(frozen=True)
class Act:
    """A decision of a person whose signature holds.

    Attributes:
        act: `approve`, `reject`, `promote`, `rollback` or `revoke`.
        by: the approver's name in the constitution.
        key: the public key.
        reason: why, in the approver's words.
        issued: when it was signed, by the signer's clock, ISO 8601.
        expires: until when it counts; "" = it is done once.
        waived: what of the verdict the approver takes upon them.
        independent: whether a run's owner is named, and is somebody else.
    """

    act: str
    by: str
    key: str
    reason: str
    issued: str
    expires: str
    waived: tuple[OpenPoint, ...]
    independent: bool


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        number: from 1, in the order of registration.
        status: `champion`, `pending`, `superseded`, `lost_race`, `rejected` or
            `revoked`.
        entry: what was registered.
        predecessor: the champion's number when it was registered, 0 for none.
        at: when, ISO 8601 in UTC; no part of any identity.
        event: digest of the registering event.
        acts: what people decided about it, in order; their signatures hold.
    """

    number: int
    status: str
    entry: VersionEntry
    predecessor: int
    at: str
    event: str
    acts: tuple[Act, ...] = ()
