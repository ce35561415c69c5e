"""Bets on a training's constraints: the wealth of all pairs and beliefs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.two_rate_bets import BELIEFS, Floats, beliefs, log_bets
from safescale_ammt.training.constraints import Constraints


class Bets:
    """Wealth of all pairs and beliefs, from blocks of fresh rows.

    Args:
        sides: cells a and b of each pair (pairs, 2).
        cells: how many there are.
        tau: of each pair (pairs,).
    """

    def __init__(self, sides: NDArray[np.intp], cells: int, tau: Floats) -> None:
        self.sides, self.tau = sides, tau
        self.log_wealth = np.zeros((len(sides), BELIEFS))
        self.hits, self.sizes = np.zeros(cells), np.zeros(cells)

    @classmethod
    def on(cls, constraints: Constraints) -> Bets:
        """Returns bets on all pairs of constraints, wealth 1."""
        sides = np.array([(p.a, p.b) for p in constraints.pairs], np.intp)
        tau = [constraints.thresholds[p.principle] for p in constraints.pairs]
        return cls(sides.reshape(-1, 2), len(constraints.cells), np.array(tau))

    def add(self, hits: Floats, sizes: Floats) -> None:
        """Bets on a block by the blocks before it, which it then joins.

        Args:
            hits: of one model in each cell (cells,).
            sizes: rows of each cell in the block (cells,).
        """
        sides, tau = self.sides, self.tau
        # Before the first rows all beliefs are guesses, which cost and seldom pay.
        if self.sizes.any():
            believed = beliefs(self.hits[sides], self.sizes[sides], tau)
            self.log_wealth += log_bets(hits[sides], sizes[sides], tau, believed)
        self.hits, self.sizes = self.hits + hits, self.sizes + sizes

    @property
    def of_pairs(self) -> Floats:
        """Each pair's mean wealth over its beliefs (pairs,), at most e^700."""
        wealth: Floats = np.exp(self.log_wealth.clip(max=700)).mean(1)
        return wealth

    @property
    def wealth(self) -> float:
        """Mean wealth over pairs and beliefs."""
        return float(self.of_pairs.mean()) if len(self.sides) else 1.0

    @property
    def differences(self) -> Floats:
        """rate_a - rate_b of fresh rows (pairs,), 0 where a side has none."""
        rates = (self.hits / np.maximum(self.sizes, 1))[self.sides]
        known = (self.sizes[self.sides] > 0).all(1)
        return np.where(known, rates[:, 0] - rates[:, 1], 0.0)

    @property
    def fresh_pairs(self) -> int:
        """Rows of the smaller side of the pair that has fewest."""
        return int(self.sizes[self.sides].min()) if len(self.sides) else 0
