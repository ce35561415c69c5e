"""Drawn rows: which of the judged rows an attack tries where it cannot try them all.

They are drawn by a digest that names the sealed rows and by the rows' own hashes, so
that neither the model nor its answers have a say, and whoever verifies draws the same.
"""

from __future__ import annotations

import hmac

import numpy as np
from numpy.typing import NDArray


def drawn(seed: str, rows: NDArray[np.void], size: int) -> NDArray[np.bool_]:
    """Draws rows without replacement, whatever their order.

    Args:
        seed: identity digest of the holdout.
        rows: raw-row hashes, (n,) of 16 bytes each or (n, 16) uint8.
        size: rows to draw.

    Returns:
        Which rows are drawn (n,).
    """
    lots = lots_of(seed, rows)
    found = np.zeros(len(lots), dtype=bool)
    found[np.argsort(lots.view("S32"), kind="stable")[:size]] = True
    return found


def lots_of(seed: str, rows: NDArray[np.void]) -> NDArray[np.void]:
    """Returns each row's lot, whatever their order, V32 (n,).

    Args:
        seed: what names the draw.
        rows: raw-row hashes, (n,) of 16 bytes each or (n, 16) uint8.
    """
    hashes = np.ascontiguousarray(rows).reshape(-1).view("V16")
    # Equal rows may be people: each is drawn by itself, by its place among them.
    order = np.argsort(hashes.view("S16"), kind="stable")
    in_order = hashes[order]
    same = np.append(False, in_order[1:] == in_order[:-1])
    begins = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    place = np.empty(len(order), "<i8")
    place[order] = np.arange(len(order)) - begins
    named = (
        row.tobytes() + at.tobytes() for row, at in zip(hashes, place, strict=True)
    )
    key = seed.encode()
    return np.array([hmac.digest(key, name, "sha256") for name in named], "V32")
