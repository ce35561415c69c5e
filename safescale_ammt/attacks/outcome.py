"""What a battery found: a table of rows, and the figures that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from safescale_ammt.attacks.sanity import Flag
from safescale_ammt.constitution.threats import Threat

VERSION = 2
"""Of the battery: another one may find more, and its figures are others."""
NOBODY, CLEAN = -1, -2
"""No attack broke the row; it was answered wrong before any."""


@dataclass(frozen=True)
class Outcome:
    """The table of a battery, a line for each row that was given.

    Attributes:
        threat: what the attacker may change.
        tier: of the battery.
        digest: of the module, SHA-256 in hex.
        attacks: that were run, by number.
        label: class codes (n,).
        broken_by: number of the first attack that found a wrong answer, `NOBODY` or
            `CLEAN` (n,).
        distance: how far away it found it, in the threat's norm; 0 where the row itself
            is answered wrong, NaN where nothing was found (n,).
        points: where it was found, else the row itself (n, ...).
        flags: what the checks say of the attacks.
        escalated: whether the attacks on hidden slopes were run.
    """

    threat: Threat
    tier: str
    digest: str
    attacks: tuple[str, ...]
    label: NDArray[np.int64]
    broken_by: NDArray[np.int64]
    distance: NDArray[np.float64]
    points: Tensor = field(repr=False)
    flags: tuple[Flag, ...] = ()
    escalated: bool = False

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which rows are answered right as they are (n,)."""
        return np.not_equal(self.broken_by, CLEAN)

    @property
    def survived(self) -> NDArray[np.bool_]:
        """Which rows are answered right whatever the battery did (n,)."""
        return np.equal(self.broken_by, NOBODY)

    @property
    def accuracy(self) -> float:
        """Share of rows that are answered right."""
        return float(self.right.mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of rows that survive: at least what every perturbation leaves."""
        return float(self.survived.mean())

    def by(self, codes: ArrayLike) -> dict[int, tuple[int, int]]:
        """Returns rows that survive, and all rows, of each group or class.

        Args:
            codes: of the rows (n,).
        """
        codes = np.asarray(codes)
        return {
            int(code): (int(self.survived[codes == code].sum()), int(n))
            for code, n in zip(*np.unique(codes, return_counts=True), strict=True)
        }

    @property
    def broken(self) -> dict[str, int]:
        """How many rows each attack broke that those before it had not."""
        return {
            name: int((self.broken_by == number).sum())
            for number, name in enumerate(self.attacks)
        }

    def __str__(self) -> str:
        raised = [flag.name for flag in self.flags if flag.raised]
        doubts = f"; checks raised: {', '.join(raised)}" if raised else ""
        return (
            f"Of {len(self.label)} rows {self.accuracy:.2%} are answered right, and "
            f"{self.robust_accuracy:.2%} survive battery {self.tier}, version "
            f"{VERSION}, under {self.threat.name}: an upper bound of what every such "
            f"change leaves{doubts}."
        )
