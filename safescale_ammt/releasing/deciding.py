"""Deciding: how an act of a person, and a promotion, get into a registry.

Each is signed for the log as it stands, tried as every reader will check it, and added
on condition that nobody was faster; who was slower signs again for the log as it is
then. An approval may also be signed into a file, by one who may only read the registry,
and brought to it later. The champion that a promotion replaces is the one of the first
look: a race that was lost is said, since the newcomer was never compared with the
winner.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from safescale_ammt.errors import InputError, Refusal
from safescale_ammt.releasing.acts import (
    APPROVE,
    PROMOTE,
    ROLLBACK,
    check_reason,
    sign,
)
from safescale_ammt.releasing.bundle import verify_bundle
from safescale_ammt.releasing.envelope import opened
from safescale_ammt.releasing.registry import WRITTEN_WITHIN, Registry
from safescale_ammt.releasing.registry_state import (
    KINDS,
    RegistryState,
    promotion,
    standing,
    trial,
)
from safescale_ammt.releasing.versions import CHAMPION, Version
from safescale_ammt.store.event_log import Draft

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def decide(
    registry: Registry, number: int, act: str, key: Ed25519PrivateKey, reason: str
) -> Version:
    """Signs an act about a version and adds it; returns the version afterwards.

    Raises:
        InputError: there is no such version, or its status does not take the act.
        Refusal: the signer may not decide this, nobody may, or a race was lost.
    """
    check_reason(reason)
    seen: list[int] = []

    def drafted(state: RegistryState, now: datetime) -> Draft:
        place = state.place(number)
        if act in (PROMOTE, ROLLBACK):
            _same_champion(state, seen)
        terms = state.terms_of(place.entry)
        envelope = sign(act, place, terms, key, reason=reason, now=now)
        return KINDS[act], {"version": number, "envelope": envelope}

    return registry.add(drafted).version(number)


def signed_approval(
    registry: Registry, number: int, key: Ed25519PrivateKey, reason: str
) -> dict[str, Any]:
    """Signs an approval for the log as it stands, and writes nothing.

    Returns:
        The envelope, which `add_approvals` takes for as long as it counts.

    Raises:
        InputError, Refusal: as `decide`.
    """
    check_reason(reason)
    state, moment = registry.state(), registry.clock()
    place = state.place(number)
    terms = state.terms_of(place.entry)
    envelope = sign(APPROVE, place, terms, key, reason=reason, now=moment)
    draft = KINDS[APPROVE], {"version": number, "envelope": envelope}
    trial(state, draft, moment.isoformat(timespec="seconds"))
    return envelope


def add_approvals(
    registry: Registry, number: int, envelopes: Sequence[Mapping[str, Any]]
) -> Version:
    """Adds approvals that were signed elsewhere: all that are new, or none.

    One whose key stands for the version already adds nothing, nor does one that the
    log of a version holds that it made champion: a step may run twice.

    Raises:
        InputError, Refusal: one of them does not count; the sentence says which.
    """
    state, moment = registry.state(), registry.clock()
    at = (moment + WRITTEN_WITHIN).isoformat(timespec="seconds")
    # All are tried on the log as it stands before the first is written: a run that is
    # refused leaves no half of a quorum behind.
    for n, envelope in enumerate(envelopes, start=1):
        try:
            if draft := _new_approval(state, number, envelope, at):
                trial(state, draft, at)
        except (InputError, Refusal) as error:
            whose = f"Approval {n} of {len(envelopes)} does not count"
            raise type(error)(f"{whose}, and none was added: {error}") from None
    for envelope in envelopes:

        def drafted(
            state: RegistryState, now: datetime, one: Mapping[str, Any] = envelope
        ) -> Draft | None:
            return _new_approval(state, number, one, now.isoformat(timespec="seconds"))

        registry.add(drafted)
    return registry.state().version(number)


def promote(registry: Registry, number: int) -> Version:
    """Makes a pending version champion by the approvals that it has.

    One that is champion already stays so: a step that runs twice adds one event.

    Raises:
        InputError: it is neither pending nor champion.
        Refusal: too few approvals count, or a race was lost.
    """
    seen: list[int] = []

    def drafted(state: RegistryState, now: datetime) -> Draft | None:
        if state.version(number).status == CHAMPION:
            return None
        _same_champion(state, seen)
        at = (now + WRITTEN_WITHIN).isoformat(timespec="seconds")
        return promotion(state, number, at)

    return registry.add(drafted).version(number)


def check_whole(registry: Registry, version: Version) -> None:
    """Verifies a version's bundle, down to its last figure: nobody decides for less.

    Raises:
        IntegrityError: it is not what was registered, or does not follow.
    """
    # Of a copy: what is verified must not change before it is decided about.
    with tempfile.TemporaryDirectory() as folder:
        registry.get_bundle(version, folder)
        verify_bundle(folder, version.entry.bundle_digest)


def _new_approval(
    state: RegistryState, number: int, envelope: Mapping[str, Any], at: str
) -> Draft | None:
    """Returns the event of an approval, None if its key stands already."""
    version, key = state.version(number), opened(envelope).key
    approved = [act.key for act in version.acts if act.act == APPROVE]
    known = approved if version.status == CHAMPION else standing(version, at)
    if key in known:
        return None
    return KINDS[APPROVE], {"version": number, "envelope": envelope}


def _same_champion(state: RegistryState, seen: list[int]) -> None:
    """Keeps the champion of the first look, and refuses another one later."""
    seen.append(state.champion)
    if state.champion != seen[0]:
        looks = (seen[0], state.champion)
        before, now = (f"version {n}" if n else "none" for n in looks)
        raise Refusal(
            f"{state.name} has another champion by now: {before} at first, {now} "
            "meanwhile. Compare with that one and repeat the command."
        )
