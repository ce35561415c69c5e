"""Attack seed: what batteries draw by, and how long they may be seen to take.

    seed = HMAC(the judge's key, holdout and model)

The key is the store's own, below `auditor/` (`store.auditor`), which search and
training cannot read: no model can be chosen for the draws that it will meet. The seed
of one model tells nothing of another's, so that evidence names it and whoever has the
sealed rows attacks the model again. A rehearsal draws by what everybody knows, and not
by the seed that counts: who rehearses could choose a model by it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import Manifest
from safescale_ammt.releasing.even_time import even_time
from safescale_ammt.store.auditor import committed
from safescale_ammt.store.base import Store

STEPS = {"smoke": 60.0, "full": 600.0, "release": 1800.0}
"""Tier -> whole steps of seconds that a battery takes where one bit is told."""


def attack_seed(
    store: Store,
    constitution: Constitution,
    manifests: Mapping[str, Manifest],
    *,
    sealed: bool,
) -> bytes:
    """Returns the seed of the batteries of a constitution, b"" if it has none.

    Args:
        store: of data, whose key draws it.
        constitution: the promises.
        manifests: of model and holdout.
        sealed: whether it counts, and is no rehearsal.

    Raises:
        StoreInputError: the store's key does not open the judge's.
    """
    if not constitution.batteries:
        return b""
    names = (manifests["holdout"].identity, manifests["model"].identity)
    told = f"battery of {names[0]} and {names[1]}"
    # Of the digests alone, which everybody knows.
    if not sealed:
        return hashlib.sha256(f"rehearsed {told}".encode()).digest()
    return bytes.fromhex(committed(store, told).removeprefix("sha256:"))


def battery_time(
    constitution: Constitution,
    *,
    one_bit: bool,
    pause: Callable[[float], None] = time.sleep,
) -> AbstractContextManager[None]:
    """Ends a block at a whole step of its batteries' tiers, where one bit is told.

    How long attacks take depends on who survives: by short steps, which who sees the
    run can count, it would be told how many do.

    Args:
        constitution: the promises.
        one_bit: whether one bit is told.
        pause: waits for so many seconds.
    """
    # Several batteries run one after another.
    tiers = [threat.tier for threat in constitution.batteries]
    if not one_bit or not tiers:
        return nullcontext()
    return even_time(pause=pause, step=sum(STEPS[tier] for tier in tiers))
