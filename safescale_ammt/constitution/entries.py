"""Entries of a constitution file: each is what it should be, or one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.canonical import checked_text, found_number
from safescale_ammt.printable import unseen_in


def section(raw: Any, where: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """Returns `raw` as a mapping that has no other than these keys.

    Raises:
        ConstitutionError: it is no mapping or has another key.
    """
    if not isinstance(raw, Mapping):
        raise ConstitutionError(
            f"{where} must be a mapping, found {type(raw).__name__}."
        )
    # A misspelt key would leave its default in force, and nobody would notice.
    for key in raw:
        if key not in keys:
            expected = one_of(keys, key)
            raise ConstitutionError(f"Unknown key {key!r} in {where}, {expected}.")
    return raw


def text(raw: Mapping[str, Any], key: str, where: str, default: str) -> str:
    """Returns a text that is not blank, or the default.

    Raises:
        ConstitutionError: it is no text, blank or not Unicode.
    """
    value = raw.get(key, default)
    if isinstance(value, str) and not value.strip():
        raise ConstitutionError(f"{where}.{key} must be text, found {value!r}.")
    # A promise may have paragraphs; a name stands in tables, keys and lines of a log.
    if key != "text" and isinstance(value, str) and (unseen := unseen_in(value)):
        raise ConstitutionError(f"{where}.{key} holds {unseen}; leave it out.")
    return checked_text(value, f"{where}.{key}", ConstitutionError)


def number(raw: Mapping[str, Any], key: str, where: str) -> float | None:
    """Returns a finite number, or None where there is none.

    Raises:
        ConstitutionError: it is no number, infinite or beyond 1e9.
    """
    value = raw.get(key)
    if value is None:
        return None
    # `true` is an int to Python and no number to an author.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConstitutionError(
            f"{where}.{key} must be a number, {found_number(value)}."
        )
    if abs(value) > 1e9 or not math.isfinite(value):
        raise ConstitutionError(f"{where}.{key} must be finite and below 1e9.")
    return float(value)


def whole(
    raw: Mapping[str, Any], key: str, where: str, default: int, least: int
) -> int:
    """Returns a whole number, or the default.

    Raises:
        ConstitutionError: it is no whole number or below `least`.
    """
    # KFP gives whole numbers back as floats: 200.0 is 200, 200.5 is a mistake.
    value = number({key: default, **raw}, key, where)
    if value is None or value != int(value) or value < least:
        raise ConstitutionError(
            f"{where}.{key} must be a whole number >= {least}, found {raw.get(key)!r}."
        )
    return int(value)
