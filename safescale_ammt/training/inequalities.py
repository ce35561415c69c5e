"""Inequalities: sums of rates that a promise holds below a bound.

Whatever is promised of rates is linear in them, so that one Lagrangian, one dual
update and one margin serve all. With r_a the rate of a group, s_k the share of class
k among the rows and t the promised line:

    gap <= t                 r_a - r_b                          <= t    for all a, b
    loss gap <= t            m_a - m_b  (means of losses)       <= t    for all a, b
    ratio >= t               t r_b - r_a                        <= 0    for all a, b
    error of a group <= t    1 - sum_k s_k P(right | k, group)  <= t    for all groups
    recall >= t              - r                                <= -t
    accuracy >= t            - sum_k s_k P(right | k)           <= -t
    balanced accuracy >= t   - mean_k P(right | k)              <= -t
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Term(NamedTuple):
    """A factor times a rate, which may be mixed of the rates of several cells.

    Attributes:
        factor: what the rate is multiplied by.
        cells: the cells whose rates are mixed.
        weights: of these rates.
        constant: what is added to them: the rate is constant + weights . rates.
    """

    factor: float
    cells: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)
    constant: float = 0.0


@dataclass(frozen=True)
class Pair:
    """One inequality: two rates that are compared, or one that is held to a line.

    Attributes:
        principle: id of the principle that it is a part of.
        name: which groups and rates it is about.
        terms: their sum is promised to be no more than the bound.
        bound: of the sum.
        least: the least sum that is worth aiming at, where rates do not say: none
            below it can be reached, or only at the cost of all else.
        counted: whether its rates are shares of rows, and no means of losses.
    """

    principle: str
    name: str
    terms: tuple[Term, ...]
    bound: float
    least: float
    counted: bool = True

    @property
    def is_gap(self) -> bool:
        """Whether it is the difference of the rates of two cells, both of counts."""
        plain = all(t.weights == (1.0,) and not t.constant for t in self.terms)
        plain &= self.counted
        return plain and [t.factor for t in self.terms] == [1.0, -1.0]

    @property
    def opposite(self) -> tuple[tuple[float, tuple[int, ...]], ...]:
        """What the terms of the same comparison the other way round are."""
        cells = [t.cells for t in self.terms]
        factors = [t.factor for t in self.terms]
        return tuple(zip(factors, reversed(cells), strict=True))


def gap(principle: str, name: str, a: int, b: int, most: float) -> Pair:
    """Returns rate_a - rate_b <= most; equal rates are aimed at, at best."""
    return Pair(principle, name, (Term(1.0, (a,)), Term(-1.0, (b,))), most, 0.0)


def ratio(
    principle: str, name: str, cells: tuple[int, int], least: float, *, rate: float
) -> Pair:
    """Returns least rate_high - rate_low <= 0, the linear form of low / high >= least.

    Args:
        principle: whose it is.
        name: of the pair.
        cells: of the lower rate, then of the higher one.
        least: the ratio that is promised.
        rate: of both cells together, as it may be expected: at equal rates, the best
            that both of their ratios can be, the sum is (least - 1) rate.
    """
    low, high = cells
    terms = (Term(least, (high,)), Term(-1.0, (low,)))
    return Pair(principle, name, terms, 0.0, (least - 1) * rate)


def at_most(principle: str, name: str, terms: Sequence[Term], most: float) -> Pair:
    """Returns a sum of errors <= most; half of what is allowed is aimed at, at best."""
    # Below that, a margin could ask for what no model can do, and its multiplier would
    # rise until nothing else counts.
    return Pair(principle, name, tuple(terms), most, most / 2)


def at_least(principle: str, name: str, terms: Sequence[Term], least: float) -> Pair:
    """Returns a sum of rates >= least; terms are its negatives."""
    return Pair(principle, name, tuple(terms), -least, -(1 + least) / 2)


class Sums:
    """The sums of many inequalities as tensors; shorter ones are padded with 0 times.

    Args:
        pairs: the inequalities, at least one.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        terms = max(len(p.terms) for p in pairs)
        parts = max(len(t.cells) for p in pairs for t in p.terms)
        shape = len(pairs), terms, parts
        self.cells = torch.zeros(shape, dtype=torch.long)
        self.weights = torch.zeros(shape)
        self.factors, self.constants = (torch.zeros(shape[:2]) for _ in range(2))
        for i, pair in enumerate(pairs):
            # What is padded looks at a cell of the inequality's own: 0 times the rate
            # of another one, which nobody knows, would be no number.
            self.cells[i] = pair.terms[0].cells[0]
            for j, term in enumerate(pair.terms):
                self.cells[i, j, : len(term.cells)] = torch.tensor(term.cells)
                self.weights[i, j, : len(term.cells)] = torch.tensor(term.weights)
                self.factors[i, j] = term.factor
                self.constants[i, j] = term.constant

    def rates(self, rates: Tensor) -> Tensor:
        """Returns the terms' rates (..., pairs, terms) from those of cells."""
        mixed = (rates[..., self.cells] * self.weights).sum(-1)
        return self.constants + mixed

    def of(self, rates: Tensor) -> Tensor:
        """Returns the sums (..., pairs) from the rates of cells (..., cells)."""
        return (self.rates(rates) * self.factors).sum(-1)

    def errors(self, rates: Tensor, sizes: Tensor) -> Tensor:
        """Returns the sums' binomial standard errors (..., pairs).

        Args:
            rates: of the cells (..., cells), NaN of those without rows.
            sizes: rows behind each rate, of the same shape.
        """
        # Agresti-Caffo: one success and one failure more, never a zero variance. A rate
        # that nobody knows is given the largest variance that there is.
        n = (sizes[..., self.cells] * (self.weights != 0)).sum(-1)
        p = (self.rates(rates.nan_to_num(0.5)) * n + 1) / (n + 2)
        variance = p * (1 - p) / (n + 2)
        return (variance * self.factors.square()).sum(-1).sqrt()

    def spreads(self, variances: Tensor) -> Tensor:
        """Returns the sums' standard errors (pairs,).

        Args:
            variances: of what is known of each cell's rate (cells,).
        """
        of_terms = (variances[self.cells] * self.weights.square()).sum(-1)
        return (of_terms * self.factors.square()).sum(-1).sqrt()
