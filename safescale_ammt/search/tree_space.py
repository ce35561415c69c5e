"""The space of boosted trees: the same moves as for nets, on LightGBM's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.search.search_space import Space, neighbour, pick

TREE_GENES: dict[str, tuple[float, ...]] = {
    "leaves": (4, 8, 15, 31, 47, 63),
    "least_rows": (5, 10, 20, 40, 80),
    "l2": (0.0, 1.0, 3.0, 10.0, 30.0),
    "rate": (0.02, 0.03, 0.05, 0.07, 0.1, 0.15),
    "rounds": (100, 150, 200, 300, 450, 600),
}
"""Gene -> its values, in order: a mutation takes a neighbouring one."""
_TRIES = 64


@dataclass(frozen=True)
class TreeSpace(Space):
    """The settings of trees that may be tried."""

    def smallest(self) -> Any:
        """Returns the genome with the fewest numbers."""
        return TreeGenome(leaves=4, rounds=100)

    def seed(self) -> Any:
        """Returns the default genome, or the smallest if it is over a cap."""
        genome = TreeGenome()
        return genome if self.holds(genome) else self.smallest()

    def draw(self, rng: np.random.Generator) -> Any:
        """Draws a genome uniformly over the values of each gene."""
        for _ in range(_TRIES):
            genes: dict[str, Any] = {k: pick(rng, v) for k, v in TREE_GENES.items()}
            if self.holds(genome := TreeGenome(**genes)):
                return genome
        return self.smallest()

    def mutate(self, genome: Any, rate: float, rng: np.random.Generator) -> Any:
        """Mutates each gene with probability `rate`, and always at least one.

        Returns a genome under the caps; the parent itself only if no mutation of
        it was found there.
        """
        for _ in range(_TRIES):
            genes = [gene for gene in TREE_GENES if rng.random() < rate]
            changed: dict[str, Any] = {
                gene: neighbour(rng, TREE_GENES[gene], getattr(genome, gene))
                for gene in genes or [pick(rng, tuple(TREE_GENES))]
            }
            if self.holds(child := replace(genome, **changed)):
                return child
        return genome

    def cross(self, first: Any, second: Any, rng: np.random.Generator) -> Any:
        """Takes each gene from one of two parents; `first` if that is over a cap."""
        genes = {
            gene: getattr(first if rng.integers(2) else second, gene)
            for gene in TREE_GENES
        }
        child = TreeGenome(**genes)
        return child if self.holds(child) else first
