"""Acts: what a person decides about a version, signed, and bound to one place.

    approve   a pending version; counts towards the quorum until it expires
    reject    a pending version, for ever
    promote   a version that passed and lost its race
    rollback  a superseded version, back into service
    revoke    a version out of service, for ever

Each is a Statement that names the registry, the version, every digest that was
registered of it, what is waived, and the *head*: the digest of the event that the log
ended with. An act is therefore of no other version, verdict or registry, of no other
place in the log, and stands for all that the log held when it was signed. An approval
alone may reach its log later, from a file: it counts while all that it states is still
so, whatever was added since its version was registered. By then it may have expired,
and one key stands once, so that none counts again.

Whether an act counts is decided from its own words written again (`statement`), so that
a word that nothing reads, or one too few, is none of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from safescale_ammt.errors import InputError, IntegrityError, Refusal, one_of
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.printable import unseen_in
from safescale_ammt.releasing.envelope import Signed, public_key_of, seal
from safescale_ammt.releasing.record import STATEMENT
from safescale_ammt.releasing.terms import Terms
from safescale_ammt.releasing.versions import IDENTITIES, Act, VersionEntry
from safescale_ammt.reporting.people import SINGLE_PARTY

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ACT = "urn:safescale-ammt:act:v0.1"
APPROVE, REJECT = "approve", "reject"
PROMOTE, ROLLBACK, REVOKE = "promote", "rollback", "revoke"
INDEPENDENT_ACTS = (APPROVE, PROMOTE, ROLLBACK)
"""Acts that put a model into service: never by the run's own owner."""
LONGEST_REASON = 2000
SKEW = timedelta(minutes=5)
"""By which the clocks of two machines may differ."""


@dataclass(frozen=True)
class Place:
    """What an act is about, and where in the log it stands.

    Attributes:
        registry: the registered model's name.
        version: its number.
        entry: what was registered.
        champion: number of the version in service before the act, 0 for none.
        head: digest of the event before it.
        earlier: digests of the events since the version was registered, itself too.
    """

    registry: str
    version: int
    entry: VersionEntry
    champion: int
    head: str
    earlier: tuple[str, ...] = ()


def check_reason(reason: str) -> str:
    """Returns a reason that people can read later.

    Raises:
        InputError: it is empty, too long, or holds what nobody sees.
    """
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise InputError(
            f"The reason has {len(reason.strip())} characters, expected 1 to "
            f"{LONGEST_REASON}: who reads the record asks for it."
        )
    if unseen := unseen_in(reason):
        raise InputError(f"The reason holds {unseen}; leave it out.")
    return reason


def sign(
    act: str,
    place: Place,
    terms: Terms,
    key: Ed25519PrivateKey,
    *,
    reason: str,
    now: datetime,
) -> dict[str, Any]:
    """Signs an act and returns its envelope; whether it counts, `read_act` says."""
    signer, issued = public_key_of(key), now.isoformat(timespec="seconds")
    expires = ""
    if act == APPROVE:
        days = timedelta(days=terms.human.expires_days)
        expires = (now + days).isoformat(timespec="seconds")
    words = statement(
        act, place, terms, signer, reason=reason, issued=issued, expires=expires
    )
    return seal(words, key)


def statement(
    act: str,
    place: Place,
    terms: Terms,
    key: str,
    *,
    reason: str,
    issued: str,
    expires: str,
) -> dict[str, Any]:
    """Writes the in-toto Statement of an act.

    Args:
        act: what is decided.
        place: about which version, and where in the log.
        terms: those of its bundle.
        key: the signer's public key.
        reason: why.
        issued: when, ISO 8601.
        expires: until when, "" for ever.
    """
    entry = place.entry
    digests = {"bundle": entry.bundle_digest}
    digests |= {name: getattr(entry, name) for name in IDENTITIES}
    waived = terms.open if act == APPROVE else ()
    predicate = {
        "act": act,
        "registry": place.registry,
        "version": place.version,
        "decision": entry.decision,
        "digests": digests,
        "champion": place.champion,
        "head": place.head,
        "waived": [{"what": p.what, "kind": p.kind} for p in waived],
        "reasons": list(terms.reasons),
        "reason": reason,
        "key": key,
        "issued": issued,
        "expires": expires,
        "runOwner": terms.run_owner,
        "independence": "" if terms.run_owner else SINGLE_PARTY,
    }
    # in-toto writes digests as {algorithm: hex}, without a prefix.
    subjects = [
        {"name": name, "digest": {"sha256": digests[name].removeprefix("sha256:")}}
        for name in ("bundle", "model", "verdict")
    ]
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": ACT,
        "predicate": predicate,
    }


def read_act(signed: Signed, act: str, place: Place, terms: Terms, at: str) -> Act:
    """Returns the act of a signed Statement, if it counts for this version, here.

    Args:
        signed: an opened envelope.
        act: the act that its event stands for.
        place: of the event.
        terms: those of the version's bundle.
        at: when the event was written, ISO 8601.

    Raises:
        IntegrityError: it is about something else, or of another form.
        Refusal: its signer may not decide this, or nobody may.
    """
    stated = signed.statement.get("predicate", {})
    stated = stated if isinstance(stated, Mapping) else {}
    names = ("reason", "issued", "expires")
    words = {name: str(stated.get(name, "")) for name in names}
    if act == APPROVE and (head := stated.get("head")) in place.earlier:
        place = replace(place, head=str(head))
    expected = statement(act, place, terms, signed.key, **words)
    if canonical_json(expected) != canonical_json(signed.statement):
        for name, value in expected["predicate"].items():
            if stated.get(name) != value:
                raise IntegrityError(
                    f"the signed {act} is about something else: it states {name} "
                    f"{stated.get(name)!r}, this event of this log takes {value!r}."
                )
        raise IntegrityError(f"the signed {act} has another form than an act of ours.")
    check_reason(words["reason"])
    check_signer(act, place, terms, signed.key)
    check_validity(act, words, terms, at)
    return Act(
        act=act,
        by=terms.name_of(signed.key),
        key=signed.key,
        **words,
        waived=terms.open if act == APPROVE else (),
        independent=bool(terms.run_owner) and not terms.owns(signed.key),
    )


def check_signer(act: str, place: Place, terms: Terms, key: str) -> None:
    """Refuses an act by somebody who may not do it.

    Raises:
        Refusal: the key is no approver's, the run's owner's, or what is open can be
            overridden by nobody.
    """
    name = terms.name_of(key)
    title = f"{place.registry} version {place.version}"
    if not name:
        named = terms.human.approvers
        who = one_of(named) if named else "it names nobody"
        raise Refusal(
            f"The key {key} is no approver's in the constitution of {title} "
            f"(human.approvers): {who}."
        )
    if act in INDEPENDENT_ACTS and terms.owns(key):
        raise Refusal(
            f"{name} owns the run that made {title} (registry.run_owner), and may not "
            f"{act} it: somebody else has to."
        )
    if act == APPROVE and terms.not_overridable:
        points = ", ".join(f"{p.what} ({p.kind})" for p in terms.not_overridable)
        raise Refusal(
            f"{title} cannot be approved by anybody: its constitution leaves to people "
            f"{', '.join(terms.human.may_override) or 'nothing'} (human.may_override, "
            f"human.never), and open are {points}."
        )


def check_validity(act: str, words: Mapping[str, str], terms: Terms, at: str) -> None:
    """Refuses an act whose times do not fit its event, or that has expired.

    Raises:
        IntegrityError: times that are none, or that nobody signed so.
        Refusal: an approval has expired.
    """
    try:
        issued, written = (datetime.fromisoformat(t) for t in (words["issued"], at))
        until = datetime.fromisoformat(words["expires"]) if act == APPROVE else None
        late = until is not None and until > issued + timedelta(
            days=terms.human.expires_days
        )
        early = issued > written + SKEW
    except (ValueError, TypeError, OverflowError):
        raise IntegrityError(f"the signed {act} has no times of ours.") from None
    if early or late or (act != APPROVE and words["expires"]):
        raise IntegrityError(
            f"the signed {act} was issued {words['issued']} and expires "
            f"{words['expires'] or 'never'}: expected no later than its event ({at}), "
            f"and at most {terms.human.expires_days} days (human.expires_days)."
        )
    if until is not None and written > until:
        raise Refusal(
            f"The approval expired {words['expires']} (human.expires_days is "
            f"{terms.human.expires_days}), now it is {at}."
        )
