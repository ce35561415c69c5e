"""The space of genomes for tables: draw one, mutate one, cross two.

Every gene has a short ordered list of values. A mutation of an ordered gene
(width, heads) takes a neighbouring value, so that children resemble their
parents; an unordered gene is drawn anew. Two spellings of one network are one
genome: residual links that find no two equal widths are written as none.

Nothing outside the two caps ever leaves this module: parameters bound memory,
and FLOPs bound what eight agents will cost later, which keeps a budget in steps
comparable between candidates.

Dropout is left as it is: a short run always prefers none. On Adult no dropout
beats .2 by .002 nats after 240 steps; after 1,200 steps 0 to .3 tie in loss and 0
has the lower accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from safescale_ammt.errors import ConfigError
from safescale_ammt.model.genome import ACTIVATIONS, ENCODINGS, Genome
from safescale_ammt.model.tree_genome import AnyGenome

WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)
DEEPEST = 4
HEADS = (1, 2, 4, 8)
GENES = ("encoding", "widths", "depth", "activation", "residual", "heads")
# Draws before a genome under the caps is given up; the smallest always fits.
_TRIES = 64

Value = TypeVar("Value")


@dataclass(frozen=True)
class Space:
    """The genomes that may be tried.

    Attributes:
        d_in: width of an encoded row, by numeric encoding.
        n_out: logits of the network.
        max_parameters: most trained numbers of a genome.
        max_flops: most FLOPs of one row's forward pass.
    """

    d_in: dict[str, int]
    n_out: int
    max_parameters: int
    max_flops: float

    def __post_init__(self) -> None:
        """Checks that at least the smallest network lies inside."""
        smallest = self.smallest()
        if not self.holds(smallest):
            raise ConfigError(
                f"search.max_parameters is {self.max_parameters}, but the smallest "
                f"network for these data has {self.parameters(smallest)}; raise it."
            )

    def parameters(self, genome: AnyGenome) -> int:
        """Counts the trained numbers of a genome on these data."""
        return genome.parameters(self.d_in[genome.encoding], self.n_out)

    def flops(self, genome: AnyGenome) -> int:
        """Counts the FLOPs of one row's forward pass on these data."""
        return genome.flops(self.d_in[genome.encoding], self.n_out)

    def holds(self, genome: AnyGenome) -> bool:
        """Says whether a genome lies under both caps."""
        return (
            self.parameters(genome) <= self.max_parameters
            and self.flops(genome) <= self.max_flops
        )

    def smallest(self) -> Genome:
        """Returns the genome with the fewest parameters."""
        encoding = min(ENCODINGS, key=lambda name: self.d_in[name])
        return Genome(encoding=encoding, widths=WIDTHS[:1])

    def seed(self) -> Genome:
        """Returns the default genome, narrowed until it fits under the caps."""
        genome = Genome()
        while not self.holds(genome) and max(genome.widths) > WIDTHS[0]:
            narrower = tuple(max(WIDTHS[0], width // 2) for width in genome.widths)
            genome = replace(genome, widths=narrower)
        return genome if self.holds(genome) else self.smallest()

    def draw(self, rng: np.random.Generator) -> Genome:
        """Draws a genome uniformly over the values of each gene."""
        for _ in range(_TRIES):
            depth = int(rng.integers(1, DEEPEST + 1))
            genome = Genome(
                encoding=pick(rng, ENCODINGS),
                # Equal widths, which residual links need; mutation makes them differ.
                widths=(pick(rng, WIDTHS),) * depth,
                activation=pick(rng, ACTIVATIONS),
                residual=bool(rng.integers(2)),
                heads=pick(rng, HEADS),
            )
            genome = _canonical(genome)
            if self.holds(genome):
                return genome
        return self.smallest()

    def mutate(self, genome: Genome, rate: float, rng: np.random.Generator) -> Genome:
        """Mutates each gene with probability `rate`, and always at least one.

        Returns a genome under the caps; the parent itself only if no mutation of
        it was found there.
        """
        for attempt in range(_TRIES):
            # A high rate may jump over a tight cap every time: then step once.
            gene_rate = rate if attempt < _TRIES // 2 else 0.0
            genes = [gene for gene in GENES if rng.random() < gene_rate]
            child = genome
            for gene in genes or [pick(rng, GENES)]:
                if gene == "encoding":
                    child = replace(child, encoding=pick(rng, ENCODINGS))
                elif gene == "activation":
                    child = replace(child, activation=pick(rng, ACTIVATIONS))
                elif gene == "residual":
                    child = replace(child, residual=not child.residual)
                elif gene == "heads":
                    child = replace(child, heads=neighbour(rng, HEADS, child.heads))
                else:
                    widths = child.widths
                    at = int(rng.integers(len(widths)))
                    layers: tuple[int, ...]
                    if gene == "widths":
                        layers = (neighbour(rng, WIDTHS, widths[at]),)
                    else:
                        # One layer is doubled or removed, so that the widths of the
                        # others stay.
                        grow = len(widths) == 1 or (
                            len(widths) < DEEPEST and bool(rng.integers(2))
                        )
                        layers = (widths[at],) * (2 if grow else 0)
                    widths = (*widths[:at], *layers, *widths[at + 1 :])
                    child = replace(child, widths=widths)
            child = _canonical(child)
            if child != _canonical(genome) and self.holds(child):
                return child
        # The search sees a genome that it has tried and proposes another.
        return genome

    def cross(self, first: Genome, second: Genome, rng: np.random.Generator) -> Genome:
        """Takes each gene from one of two parents (uniform crossover).

        Widths and depth travel together. Returns `first` if the child lies
        outside the caps.
        """
        genes = ("encoding", "widths", "activation", "residual", "heads")
        values = {
            gene: getattr(first if rng.integers(2) else second, gene) for gene in genes
        }
        child = _canonical(Genome(**values))
        return child if self.holds(child) else first


def _canonical(genome: Genome) -> Genome:
    """Returns the one spelling of a network: no residual links that link nothing."""
    links = any(a == b for a, b in pairwise(genome.widths))
    return replace(genome, residual=genome.residual and links)


def pick(rng: np.random.Generator, values: Sequence[Value]) -> Value:
    """Draws one of the values."""
    return values[int(rng.integers(len(values)))]


def neighbour(rng: np.random.Generator, values: Sequence[Value], value: Value) -> Value:
    """Returns the value before or after; one that is not listed joins the middle."""
    at = values.index(value) if value in values else len(values) // 2
    step = 1 if rng.integers(2) else -1
    # At either end there is one neighbour alone, and standing still is no mutation.
    return values[at + step if 0 <= at + step < len(values) else at - step]
