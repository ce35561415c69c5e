"""The forms of slices in a verdict: what was proposed, confirmed, and out of how many.

How they are confirmed `judging.slices` says; readers of a verdict need no statistics.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from safescale_ammt.data.condition import Condition
from safescale_ammt.files.canonical import json_form

LEVEL = 0.05
"""Chance that any interval of a confirmed slice misses, over all that were tested."""


@dataclass(frozen=True)
class Proposal:
    """A slice, and what development rows say of it.

    Attributes:
        conditions: what its rows fulfil.
        rows: development rows inside.
        errors: of them, those that the model gets wrong.
    """

    conditions: tuple[Condition, ...]
    rows: int
    errors: int

    @property
    def words(self) -> str:
        """The slice as people read it."""
        return " and ".join(condition.words for condition in self.conditions)


@dataclass(frozen=True)
class SliceFinding:
    """A confirmed slice.

    Attributes:
        proposal: what was confirmed.
        rows: judged rows inside.
        errors: of them, those that the model gets wrong.
        inside: share of errors inside, with an interval that holds for all tested
            slices together: value, lower, upper.
        outside: the same of all other rows.
        e_value: evidence that the model errs more inside, at most e^700.
    """

    proposal: Proposal
    rows: int
    errors: int
    inside: tuple[float, ...]
    outside: tuple[float, ...]
    e_value: float


@dataclass(frozen=True)
class Slices:
    """What a search for slices came to.

    Attributes:
        fdr: bound of the false discovery rate.
        searched: development rows that proposed slices.
        wrong: of them, those that the model gets wrong.
        tested: slices that were proposed.
        confirmed: those that the judged rows confirm, the largest e-value first.
    """

    fdr: float
    searched: int
    wrong: int
    tested: int
    confirmed: tuple[SliceFinding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        form: dict[str, Any] = json_form(asdict(self))
        return form
