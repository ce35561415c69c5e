"""Bounded losses: how far a predicted number may be off, as a number in [0, 1].

loss: {kind: absolute, bound: 5.0}     min(|y - f(x)|, 5) / 5
loss: {kind: squared, bound: 5.0}      min((y - f(x))^2, 25) / 25
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safescale_ammt.constitution.entries import number, section
from safescale_ammt.errors import ConstitutionError, one_of

KINDS = ("absolute", "squared")


@dataclass(frozen=True)
class BoundedLoss:
    """An error that counts up to a bound, as a share of what it can be at most.

    Attributes:
        kind: `absolute` or `squared`.
        bound: the largest error that counts, > 0, in units of the target.
    """

    kind: str
    bound: float

    @property
    def name(self) -> str:
        """The loss in words, such as `absolute error up to 5`."""
        return f"{self.kind} error up to {self.bound:g}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the mapping form."""
        return {"kind": self.kind, "bound": self.bound}


def read_loss(raw: Any, where: str) -> BoundedLoss:
    """Parses the mapping form.

    Raises:
        ConstitutionError: an unknown key or kind, or a bound that is none.
    """
    entry = section(raw, where, ("kind", "bound"))
    kind = entry.get("kind", "absolute")
    if kind not in KINDS:
        raise ConstitutionError(f"{where}.kind is {kind!r}, {one_of(KINDS, kind)}.")
    bound = number(entry, "bound", where)
    if bound is None or bound <= 0:
        raise ConstitutionError(
            f"{where}.bound must be the largest error that counts, > 0 in units of the "
            f"target, found {bound}."
        )
    return BoundedLoss(kind, bound)
