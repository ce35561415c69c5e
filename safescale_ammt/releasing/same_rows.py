"""Whether two uses of sealed rows are about the same data, and what shows it.

One entity or one file in common is enough. Independent people may be equal, though, in
a row or in parts of it, and the data say how often: what they share by chance does not
count, a few rows where no equal ones were met either. A re-export in which one or two
columns changed has no row in common with the first one, but parts of rows, far more
than by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from safescale_ammt.data.row_keys import Part, Parts
from safescale_ammt.releasing.key_sets import KeySets
from safescale_ammt.releasing.sealed_uses import SPENT, Use

LEAST_SHARE = 0.05
"""Share of the smaller set whose parts have to be in the larger one, beyond chance; of
whole rows, no more are ever laid to chance."""
TIMES_CHANCE = 3
"""How often chance goes into the line: the law of fresh rows may have moved."""
UNSEEN = 1
"""Rows with an equal that a table may have beside those that it has: a count of none is
no chance of none."""
MOST_CHANCE = 0.3
"""A part whose rows meet more often by chance tells nothing, in the table with less."""
MOST_TWINS = 0.01
"""Share of rows with an equal in their table above which any row in common counts."""
LEAST_KEYS = 6
"""Fewer common parts show nothing."""
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
WHOLE = ("rows", "varying")
"""Sets of hashes of whole rows, in which independent people may be equal."""

SEEN = {
    "rows": "rows",
    "varying": "rows but for columns that say nothing",
    "entity": "entities",
    "file": "a file",
    "parts": "most columns of their rows",
}
"""What two uses of the same data share, in words, by the kind of the key."""


def uses_of(
    sets: KeySets, past: Sequence[Use], named: Mapping[str, str], parts: str
) -> dict[Use, str]:
    """Returns the uses of the same data as some rows; the arguments of `shared_key`."""
    found = {use: shared_key(sets, use, named, parts) for use in past}
    return {use: kind for use, kind in found.items() if kind}


def shared_key(sets: KeySets, use: Use, named: Mapping[str, str], parts: str) -> str:
    """Names the kind of key by which a use is of the same data as some rows.

    Args:
        sets: where the sets of hashes lie.
        use: an earlier one.
        named: kind of hash -> digest of its set; `rows` among them.
        parts: digest of keys of parts.

    Returns:
        A kind of `named`, `parts`, or "" if nothing shows it.

    Raises:
        IntegrityError: a stored set is missing or changed.
    """
    # Equal digests need no download, the usual case of a repeated holdout.
    if use.rows == named["rows"]:
        return "rows"
    both = (sets.parts(use.parts), sets.parts(parts))
    # In one order: the gate counts again, and finds the same kind first.
    kinds = sorted(named.keys() & use.sets.keys(), key=lambda k: (k != "rows", k))
    for kind in kinds:
        one, other = use.sets[kind], named[kind]
        smaller = min(sets.size(digest) for digest in (one, other))
        by_chance = rows_by_chance(*both) if kind in WHOLE else 0.0
        if sets.common(one, other) > by_chance * smaller:
            return kind
    return "parts" if shares_parts(*both) else ""


def rows_by_chance(one: Parts, other: Parts) -> float:
    """Returns the share of the smaller set that may be equal to rows of the larger."""
    coarse = min(one.twins, other.twins) > MOST_TWINS
    # Of rows without keys of parts nobody counted how often they meet.
    if coarse or not (one.rows and other.rows):
        return 0.0
    ours, theirs = (side.twins + UNSEEN / side.rows for side in (one, other))
    share = chance(one, ours, other, theirs)
    return min(TIMES_CHANCE * share, LEAST_SHARE)


def chance(one: Parts, at_one: float, other: Parts, at_other: float) -> float:
    """Returns how often rows of two sets meet, by how often they do in their tables.

    Among more rows more meet. The smaller figure: whoever fills one table with near
    copies does not raise the line for the other.
    """
    larger = max(one.rows, other.rows)
    sides = ((one, at_one), (other, at_other))
    return min(share * max(1.0, larger / max(1, s.others)) for s, share in sides)


def shares_parts(one: Parts, other: Parts) -> bool:
    """Says whether some part of one set's rows is a part of the other's.

    Any part of the one is held against any of the other: a column that was added there
    is one that is left out here.
    """
    if not (one.parts and other.parts):
        return False
    sizes = [len(part.keys) for part in other.parts]
    keys = np.concatenate([part.keys for part in other.parts])
    order = np.argsort(keys, kind="stable")
    keys, owner = keys[order], np.repeat(np.arange(len(sizes)), sizes)[order]
    for part in one.parts:
        low, high = (np.searchsorted(keys, part.keys, side) for side in _SIDES)
        places = [np.arange(i, j) for i, j in zip(low, high, strict=True) if i < j]
        if len(places) < LEAST_KEYS:
            continue
        common = np.bincount(owner[np.concatenate(places)], minlength=len(sizes))
        for theirs in np.flatnonzero(common >= LEAST_KEYS):
            same = other.parts[theirs]
            shares = (part.chance, same.chance)
            # Near copies of what was seen, put beside it, make its rows meet in one
            # table. The other's figure is left then, and it has to be a sure one.
            if max(shares) > MOST_CHANCE:
                shares = (part.most_chance, same.most_chance)
            by_chance = chance(one, shares[0], other, shares[1])
            line = LEAST_SHARE + TIMES_CHANCE * by_chance
            if common[theirs] >= line * kept_by_both(part, same):
                return True
    return False


def kept_by_both(one: Part, other: Part) -> int:
    """Counts the keys of the smaller set below which both parts hold all they have."""
    last = min(one.keys[-1], other.keys[-1])
    return int(min(np.searchsorted(p.keys, last, "right") for p in (one, other)))


def repeated(sharing: Mapping[Use, str]) -> dict[str, Any]:
    """Returns the event of the use whose number is counted on, and what shows it."""
    last = max(sharing, key=lambda use: use.number, default=None)
    return {"seen": sharing[last], "seen_in": last.event} if last else {}


def why_repeated(use: Use, twins: float = 0.0) -> str:
    """Says how an earlier use of the same data was found; "" = there is none.

    Args:
        use: the later one.
        twins: share of its rows with an equal in their table.
    """
    if not use.seen:
        return ""
    how, coarse = SEEN.get(use.seen, f"keys of kind {use.seen!r}"), ""
    if use.seen in WHOLE and twins > MOST_TWINS:
        coarse = (
            f" Over {MOST_TWINS:.0%} of these rows have an equal in their own table, "
            "so that other people cannot be told from the same ones. If these are "
            "others, a column that tells people apart, such as a time or an id, makes "
            "them fresh; it may stand in data.drop."
        )
    spent = use.guarantee == SPENT
    remedy = " Rows that no use has seen have one that holds." if spent else ""
    return (
        f"Use {use.number} of these sealed data: they share {how} with those of event "
        f"{use.seen_in} of the ledger; guarantee: {use.guarantee}.{remedy}{coarse}"
    )
