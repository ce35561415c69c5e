"""Threats: what an attacker may change of an input.

threat: {norm: linf, eps: 0.1}                   each number by at most .1
threat: {norm: l2, eps: 0.5, range: [0, 1]}      by at most .5 in length, inside a range
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safescale_ammt.constitution.entries import number, section
from safescale_ammt.errors import ConstitutionError, one_of

NORMS = ("linf", "l2")
KEYS = ("norm", "eps", "range")


@dataclass(frozen=True)
class Threat:
    """A ball around each input, in the units that the model is given.

    Attributes:
        norm: by which a change is as long as eps, `linf` or `l2`, of all numbers of a
            row together.
        eps: radius of the ball, >= 0.
        range: least and greatest value that an input can have, if declared.
    """

    norm: str
    eps: float
    range: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The threat in words, such as `linf 0.1 in [0, 1]`."""
        inside = f" in [{self.range[0]:g}, {self.range[1]:g}]" if self.range else ""
        return f"{self.norm} {self.eps:g}{inside}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the mapping form, a range that is not declared left out."""
        found: dict[str, Any] = {"norm": self.norm, "eps": self.eps}
        return found | ({"range": list(self.range)} if self.range else {})


def read_threat(raw: Any, where: str, names: tuple[str, str, str] = KEYS) -> Threat:
    """Parses the mapping form.

    Args:
        raw: the mapping.
        where: its key, for sentences.
        names: how norm, eps and range are called in it.

    Raises:
        ConstitutionError: an unknown key or norm, or numbers that bound nothing.
    """
    if isinstance(raw, Mapping) and "columns" in raw:
        raise ConstitutionError(
            f"{where} changes columns of a table, which the pipeline alone does; a "
            "module's inputs are attacked in a ball, as {norm: linf, eps: 0.1}."
        )
    entry = section(raw, where, names)
    by, radius, inside = names
    norm = entry.get(by)
    if norm not in NORMS:
        raise ConstitutionError(f"{where}.{by} is {norm!r}, {one_of(NORMS, norm)}.")
    eps = number(entry, radius, where)
    if eps is None or eps < 0:
        raise ConstitutionError(f"{where}.{radius} must be a radius >= 0, found {eps}.")
    return Threat(norm, eps, read_range(entry.get(inside), f"{where}.{inside}"))


def read_range(raw: Any, where: str) -> tuple[float, float] | None:
    """Parses the least and the greatest value of an input; None declares none.

    Raises:
        ConstitutionError: it is no pair of numbers, the lower one first.
    """
    if raw is None:
        return None
    pair = (
        dict(zip(("0", "1"), raw, strict=False))
        if isinstance(raw, list | tuple)
        else {}
    )
    low, high = (number(pair, key, where) for key in ("0", "1"))
    if low is None or high is None or len(raw) > 2 or low >= high:
        raise ConstitutionError(
            f"{where} must be the least and the greatest value of an input, as [0, 1]."
        )
    return low, high
