"""Kubernetes quantities: `500m` of a CPU, `2Gi` of memory."""

from __future__ import annotations

import re
from decimal import Decimal

from safescale_ammt.errors import ConfigError

_AMOUNT = re.compile(
    r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?"
)
_PLAIN = re.compile(r"\d+(?:\.\d+)?(?:[mkMGTP]|[KMGTP]i)?")
_POWERS = {unit: i - 3 for i, unit in enumerate(("n", "u", "m", "", *"kMGTPE"))}
"""Unit -> power of 1000; with an `i` behind it, of 1024."""


def amount(text: str, name: str = "an amount") -> Decimal:
    """Reads any quantity that Kubernetes writes: 0, 1e3, 100n and 2Gi too.

    Args:
        text: the quantity.
        name: what it is the value of, for the error.

    Returns:
        CPUs, bytes or pieces, exactly.

    Raises:
        ConfigError: this is no quantity.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise _no_quantity(text, name)
    number, unit, exponent = match.groups(default="")
    # Kubernetes spells 1000 as `k` and 1024 as `Ki`; people write `K` for either.
    base = 1024 if unit.endswith("i") else 1000
    power = _POWERS[unit.removesuffix("i").replace("K", "k")]
    # Decimal: 100m of a CPU is no binary fraction, and quotas are compared exactly.
    return Decimal(number) * Decimal(base) ** power * Decimal(10) ** int(exponent or 0)


def quantity(text: str, name: str) -> float:
    """Reads a quantity that a person gave: more than nothing, plainly spelled.

    Args:
        text: as Kubernetes spells it: a number, with a unit if need be.
        name: what it is the value of, for the error.

    Returns:
        CPUs or bytes.

    Raises:
        ConfigError: this is no quantity, or not more than nothing.

    Example:
        quantity("500m", "cpu") == 0.5
        quantity("2Gi", "memory") == 2 * 1024**3
    """
    # What Kubernetes may write and no person means (0, 1e3, 100n) is a slip here.
    value = float(amount(text, name)) if _PLAIN.fullmatch(text) else 0.0
    if value <= 0:
        raise _no_quantity(text, name)
    return value


def _no_quantity(text: str, name: str) -> ConfigError:
    return ConfigError(
        f"{name} is {text!r}, no quantity; a number above 0 is expected, with a "
        "unit as in 500m, 2 or 4Gi."
    )
