"""Deciding: how an act of a person, and a promotion, get into a registry.

Each is signed for the log as it stands, tried as every reader will check it, and added
on condition that nobody was faster; who was slower signs again for the log as it is
then. The champion that a promotion replaces is the one of the first look: a race that
was lost is said, since the newcomer was never compared with the winner.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from safescale_ammt.errors import Refusal
from safescale_ammt.releasing.acts import PROMOTE, ROLLBACK, check_reason, sign
from safescale_ammt.releasing.registry import WRITTEN_WITHIN, Registry
from safescale_ammt.releasing.registry_state import KINDS, RegistryState, promotion
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
