"""Image rescoring: whether a battery that is run again ends as the evidence says.

Draws follow from the seed that the evidence names, so that on one kind of processor
each row ends alike. Another one rounds slopes otherwise, and a few rows may break that
stood, or stand that broke: of those the evidence may not have too many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.image_threats import ImageThreat
from safescale_ammt.constitution.principles import JudgedThreat
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.table_attack import NOT_DRAWN, SURVIVED, WRONG

TOLERATED = 0.01
"""Share of the rows tried that may break here and stand in the evidence."""


def repeatable(constitution: Constitution) -> list[JudgedThreat]:
    """Returns the threats under which this Python can attack again."""
    torch = find_spec("torch") is not None
    return [
        threat
        for threat in constitution.judged_threats
        if torch or not (isinstance(threat, ImageThreat) and threat.tier)
    ]


def seed_of(stated: Evidence) -> bytes:
    """Returns the seed that evidence names, b"" of one without batteries."""
    return bytes.fromhex(next((b.seed for b in stated.batteries.values()), ""))


def battery_departures(
    stated: Evidence,
    own: Evidence,
    orders: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> Iterator[str]:
    """Yields each way in which batteries depart, with a count of rows.

    Args:
        stated: the evidence.
        own: the same rows, attacked here.
        orders: of both sides, in which they have the same hashes; None = as they lie.
    """
    for key, battery in own.batteries.items():
        if key not in stated.batteries:
            yield f"battery {key} is missing"
            continue
        told = stated.batteries[key]
        if told.version != battery.version:
            yield (
                f"battery {key} is version {told.version}, this one is "
                f"{battery.version}: another attack"
            )
        if more := [name for name in battery.raised if name not in told.raised]:
            yield f"battery {key} raises {', '.join(more)}, which is not told"
        sides = [words_of(side, key) for side in (stated, own)]
        if orders is not None:
            sides = [side[order] for side, order in zip(sides, orders, strict=True)]
        one, other = sides
        # What was attacked at all follows from rows and answers: no rounding moves it.
        fixed = np.isin(one, (WRONG, NOT_DRAWN)) | np.isin(other, (WRONG, NOT_DRAWN))
        if wrong := int((one[fixed] != other[fixed]).sum()):
            yield f"rows tried by battery {key} differ in {wrong:,} rows"
        # Rows that the evidence calls broken, and that stand here, flatter nobody.
        tried = int((one != NOT_DRAWN).sum())
        broken = int(((one == SURVIVED) & (other != SURVIVED) & ~fixed).sum())
        if broken > max(1, TOLERATED * tried):
            yield f"{broken:,} rows that stand under battery {key} are broken here"


def words_of(evidence: Evidence, key: str) -> NDArray[np.str_]:
    """Returns what became of each row under an attack, in words (n,)."""
    words, codes = evidence.attacks.get(key, (("",), np.zeros(0, np.int64)))
    return np.array(words)[codes]


def attacked_again(
    constitution: Constitution, threats: Sequence[JudgedThreat]
) -> Iterator[str]:
    """Says of each threat how rows were attacked again, or that they were not."""
    for threat in constitution.judged_threats:
        if threat not in threats:
            yield f"Under {threat.name} nothing was tried again, for want of torch."
        elif isinstance(threat, ImageThreat) and threat.tier:
            yield (
                f"Under {threat.name} they end as the evidence says, by the seed that "
                f"it names; of {TOLERATED:.0%} of the rows another processor may say "
                "otherwise."
            )
        else:
            yield f"Under {threat.name} they end as the evidence says."
