"""Logits of a model, as they are defined: `network.forward` without torch.

    h_0 = x,   h_{l+1} = act(s_l * ((r_l * h_l) W_l) + b_l) [+ h_l]
    logit = mean over nets and heads of (h_L V + c)

Definition 2 multiplies exactly (`arithmetic.exact`) and rounds the logits of each net
and head to multiples of 2^-20 before they are added, so that their mean is one number
whoever computes it. Definition 1, of models that were saved before it, multiplies in
double precision as the library rounds, and rounds the mean alone: its logits differ
between libraries by a step of the grid where an edge lies within their rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from safescale_ammt.model.arithmetic import ACTIVATION, Floats, Product, exact, plain
from safescale_ammt.model.genome import Genome

GRID = 2.0**20
"""Logits are rounded to multiples of 1 / GRID."""
BY_LIBRARY, EXACT = 1, 2
MULTIPLIED: dict[int, Callable[[Floats], Product]] = {BY_LIBRARY: plain, EXACT: exact}
"""Definition -> how a matrix multiplies rows; a definition is never changed."""


def logits(
    genome: Genome, weights: Mapping[str, Floats], x: Floats, definition: int
) -> Floats:
    """Returns the logits (n, n_out) of encoded rows, on the grid.

    Args:
        genome: the architecture that `weights` belong to.
        weights: stacked tensors of the nets, as float64 (members, ...).
        x: encoded rows (n, d), float64.
        definition: a key of `MULTIPLIED`.
    """
    members, heads, n_out = weights["out.bias"].shape
    total = np.zeros((len(x), n_out))
    for member in range(members):
        net = {name: w[member] for name, w in weights.items()}
        for found in of_heads(genome, net, x, MULTIPLIED[definition]):
            total += on_logit_grid(found) if definition == EXACT else found
    return on_logit_grid(total / (members * heads))


def on_logit_grid(found: Floats) -> Floats:
    """Rounds logits to multiples of 1 / GRID, halves to even ones."""
    return np.rint(found * GRID) / GRID


def of_heads(
    genome: Genome,
    net: Mapping[str, Floats],
    x: Floats,
    multiplied: Callable[[Floats], Product],
) -> Iterator[Floats]:
    """Yields the logits (n, n_out) of each head of one net."""
    names = [f"layer{i}" for i in range(len(genome.widths))]
    products = {name: multiplied(net[f"{name}.weight"]) for name in names}
    for head in range(genome.heads):
        hidden = x
        for name in names:
            before = hidden
            if genome.heads > 1:
                product = products[name](before * net[f"{name}.scale_in"][head])
                product = product * net[f"{name}.scale_out"][head]
            else:
                product = products[name](before)
            hidden = ACTIVATION[genome.activation](product + net[f"{name}.bias"][head])
            if genome.residual and before.shape == hidden.shape:
                hidden = hidden + before
        out = multiplied(net["out.weight"][head])
        yield out(hidden) + net["out.bias"][head]
