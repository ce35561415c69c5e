"""Seeds: one number from the user, an independent one for each use of randomness."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, use: str) -> int:
    """Derives an independent seed below 2^62 for one use of randomness.

    A hash and not seed + 1, seed + 2, ...: runs with neighbouring seeds would
    otherwise share their streams.
    """
    digest = hashlib.sha256(f"{seed}/{use}".encode()).digest()
    # Two bits short of 64: a seed plus a net's number still fits a signed integer.
    return int.from_bytes(digest[:8], "big") >> 2
