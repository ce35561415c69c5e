"""Kubernetes quantities: `500m` of a CPU, `2Gi` of memory."""

from __future__ import annotations

import re

from safescale_ammt.errors import ConfigError

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([mkMGTP]|[KMGTP]i)?")
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def quantity(text: str, name: str) -> float:
    """Reads a quantity.

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
    found = _QUANTITY.fullmatch(text)
    value = float(found[1]) * _factor(found[2] or "") if found else 0.0
    if value <= 0:
        raise ConfigError(
            f"{name} is {text!r}, no quantity; a number above 0 is expected, with a "
            "unit as in 500m, 2 or 4Gi."
        )
    return value


def _factor(unit: str) -> float:
    if unit == "m":
        return 1e-3
    base = 1024 if unit.endswith("i") else 1000
    return float(base ** _POWERS[unit.removesuffix("i").replace("K", "k")])
