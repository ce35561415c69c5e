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
        watched: which pairs are bet on (pairs,): differences of two rates; None: all.
            The others have neither wealth nor a difference.
    """

    def __init__(
        self,
        sides: NDArray[np.intp],
        cells: int,
        tau: Floats,
        watched: NDArray[np.bool_] | None = None,
    ) -> None:
        self.sides, self.tau = sides, tau
        self.watched = np.ones(len(sides), bool) if watched is None else watched
        self.log_wealth = np.zeros((len(sides), BELIEFS))
        self.hits, self.sizes = np.zeros(cells), np.zeros(cells)

    @classmethod
    def on(cls, constraints: Constraints) -> Bets:
        """Returns bets on all pairs of constraints, wealth 1."""
        watched = np.array([p.is_gap for p in constraints.pairs], bool)
        sides = np.zeros((len(watched), 2), np.intp)
        for i in np.flatnonzero(watched):
            terms = constraints.pairs[i].terms
            sides[i] = [term.cells[0] for term in terms]
        # A line at 1 can be crossed by no difference, so that nobody bets against it.
        lines = [constraints.thresholds[p.principle] for p in constraints.pairs]
        tau = np.where(watched, lines, 1.0)
        return cls(sides, len(constraints.cells), tau, watched)

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
        """Mean wealth over the watched pairs and beliefs."""
        return float(self.of_pairs[self.watched].mean()) if self.watched.any() else 1.0

    @property
    def differences(self) -> Floats:
        """rate_a - rate_b of fresh rows (pairs,), 0 where a side has none."""
        rates = (self.hits / np.maximum(self.sizes, 1))[self.sides]
        known = (self.sizes[self.sides] > 0).all(1)
        return np.where(known, rates[:, 0] - rates[:, 1], 0.0)

    @property
    def fresh_pairs(self) -> int:
        """Rows of the smaller side of the pair that has fewest."""
        sides = self.sides[self.watched]
        return int(self.sizes[sides].min()) if len(sides) else 0
