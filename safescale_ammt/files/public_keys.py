"""Public keys of people: Ed25519, each in the one spelling that is accepted.

    ed25519:<base64 of the 32 bytes>

A quorum counts keys, so that one key must not have two spellings, and a key must be
one that only its owner can sign with. A point of small order is none: signatures by it
can be made up by anybody. Signing libraries check neither when they take 32 bytes.

Sources: RFC 8032 (5.1.3 decoding, 5.1.4 addition, 5.1.7 verification), RFC 4648
(base64).
"""

from __future__ import annotations

import base64
from functools import cache

PREFIX = "ed25519:"
LENGTH = 32
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
# Extended coordinates: X, Y, Z and T with x = X / Z, y = Y / Z and x * y = T / Z.
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


def spelled_key(raw: bytes) -> str:
    """Returns the spelling of a public key, the line for a constitution."""
    return PREFIX + base64.b64encode(raw).decode()


@cache
def key_bytes(text: str) -> bytes:
    """Returns the 32 bytes of a public key.

    Raises:
        ValueError: it is no key, or not in its one spelling; the message is the rest
            of a sentence that begins with the key.
    """
    encoded = text.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != LENGTH or spelled_key(raw) != text:
        raise ValueError(
            f"is not '{PREFIX}' and the base64 of {LENGTH} bytes, 44 characters"
        )
    point = decoded(raw)
    if point is None:
        raise ValueError("is no point of the curve Ed25519 in its one encoding")
    # By the order of the group, not by 8 alone: a key that somebody drew lies in it.
    if _is_neutral(point) or not _is_neutral(multiplied(point, _ORDER)):
        raise ValueError("is a point of the wrong order, which no drawn key has")
    return raw


def decoded(raw: bytes) -> _Point | None:
    """Returns the point of an encoding, None if it has none, or another encoding."""
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _P:
        return None
    # x^2 = (y^2 - 1) / (d y^2 + 1); with p = 5 mod 8 the root is one power, perhaps
    # times the root of -1.
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    # Of 0 there is one sign alone, or y = 1 would have two encodings.
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


def multiplied(point: _Point, factor: int) -> _Point:
    """Adds a point to itself; the key is public, so the time it takes may tell."""
    total = _NEUTRAL
    while factor:
        if factor & 1:
            total = _sum(total, point)
        point = _sum(point, point)
        factor >>= 1
    return total


def _sum(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _is_neutral(point: _Point) -> bool:
    return point[0] == 0 and point[1] == point[2]
