"""Interval bounds of a released net: what no change of a pixel by eps can do.

Each step takes lower and upper bounds of its inputs to those of its outputs (Gowal et
al. 2018, arXiv:1810.12715, section 3), head by head and net by net:

    linear       m <- W m + b,  r <- |W| r      m, r: middle and half of the width
    activation   least and greatest value on [l, u]; gelu and silu fall, then rise
    residual     bounds are added

A row is certified where its label's logit is surely above all others, or surely on its
side of the threshold. The bounds hold for the model's own arithmetic (`arithmetic`,
`logits`): each rounding of it is added to the radius, as is that of the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.model.arithmetic import ACTIVATION, BITS, Floats
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.logits import GRID
from safescale_ammt.model.predictor import Deployable

Interval = tuple[Floats, Floats]
"""Lower and upper bounds of the same shape."""
ROUNDED = 2.0 ** (1 - BITS)
"""Most that a factor of an exact product is rounded by, as a share of the largest."""
SLACK = 1e-9
"""Most that double precision adds to a sum or a function here, as a share of it."""
NEAREST = 1e-6
"""Least threshold, from 0 or 1, at which a row is certified."""
LOWEST = {"gelu": -0.7517915246935645, "silu": -1.2784645427610738}
"""Where the activations that fall and rise have their least value."""


def check_bounded(model: Deployable) -> str:
    """Says why a model has no bounds here, "" of one that has."""
    if not isinstance(model.genome, Genome):
        return (
            "certified_accuracy has bounds for nets of the pipeline's own, and the "
            "model is a user's module; promise robust_accuracy, or train without "
            "training.model"
        )
    if model.head is not None:
        return (
            "certified_accuracy has no bounds for a fair head, which moves the model's "
            "threshold for each row; promise robust_accuracy"
        )
    return ""


def linear(low: Floats, high: Floats, matrix: Floats, bias: Floats) -> Interval:
    """Returns bounds of rows times a matrix, plus bias, in the model's arithmetic."""
    middle, radius = (low + high) / 2, (high - low) / 2
    size = np.abs(matrix)
    largest = np.maximum(np.abs(low), np.abs(high))
    # Inputs are rounded to a grid of their row's largest, weights of their column's.
    of_rows = largest.max(1, keepdims=True) * size.sum(0)
    of_weights = largest.sum(1, keepdims=True) * size.max(0, initial=0.0)
    rounded = ROUNDED * (1 + ROUNDED) * (of_rows + of_weights)
    # Taken on the bounds: whatever the row is, its largest number is no larger.
    centre = middle @ matrix + bias
    width = radius @ size + rounded
    width = width + SLACK * (width + largest @ size + np.abs(bias))
    return centre - width, centre + width


def activated(name: str, low: Floats, high: Floats) -> Interval:
    """Returns bounds of an activation on intervals."""
    function = ACTIVATION[name]
    ends = function(low), function(high)
    # Of what falls and then rises the greatest value is at an end all the same.
    least = np.minimum(*ends)
    if name in LOWEST:
        least = np.minimum(least, function(np.clip(LOWEST[name], low, high)))
    most = np.maximum(*ends)
    return least - SLACK * (1 + np.abs(least)), most + SLACK * (1 + np.abs(most))


def bounds(
    genome: Genome, weights: Mapping[str, Floats], low: Floats, high: Floats
) -> Interval:
    """Returns bounds of a model's logits (n, n_out).

    Args:
        genome: of the nets.
        weights: stacked tensors, float64 (members, ...).
        low: least inputs (n, d).
        high: greatest inputs (n, d).
    """
    members, heads, n_out = weights["out.bias"].shape
    least, most = np.zeros((len(low), n_out)), np.zeros((len(low), n_out))
    for member in range(members):
        net = {name: w[member] for name, w in weights.items()}
        for head in range(heads):
            found = of_head(genome, net, head, (low, high))
            least, most = least + found[0], most + found[1]
    count = members * heads
    # Each head's logits are rounded to the grid, and their mean is.
    edge = 1 / GRID + SLACK * (np.abs(least) + np.abs(most)) / count
    return least / count - edge, most / count + edge


def of_head(
    genome: Genome, net: Mapping[str, Floats], head: int, rows: Interval
) -> Interval:
    """Returns bounds of one head's logits (n, n_out)."""
    for i in range(len(genome.widths)):
        name, before = f"layer{i}", rows
        matrix = net[f"{name}.weight"]
        if genome.heads > 1:
            scale = net[f"{name}.scale_in"][head]
            rows = scaled(rows, scale)
            rows = linear(*rows, matrix, np.zeros(matrix.shape[1]))
            rows = scaled(rows, net[f"{name}.scale_out"][head])
            bias = net[f"{name}.bias"][head]
            rows = rows[0] + bias, rows[1] + bias
        else:
            rows = linear(*rows, matrix, net[f"{name}.bias"][head])
        rows = activated(genome.activation, *rows)
        if genome.residual and before[0].shape == rows[0].shape:
            rows = rows[0] + before[0], rows[1] + before[1]
    return linear(*rows, net["out.weight"][head], net["out.bias"][head])


def scaled(rows: Interval, by: Floats) -> Interval:
    """Returns bounds times numbers, which may be negative."""
    ends = rows[0] * by, rows[1] * by
    least, most = np.minimum(*ends), np.maximum(*ends)
    return least - SLACK * np.abs(least), most + SLACK * np.abs(most)


def proven(
    model: Deployable, x: NDArray[np.float32], label: NDArray[np.int64], eps: float
) -> NDArray[np.bool_]:
    """Returns which rows no change by eps inside [0, 1] can answer wrong (n,).

    Args:
        model: one that has bounds (`check_bounded`).
        x: encoded rows (n, width) in [0, 1].
        label: class codes (n,).
        eps: most that a number may change by.
    """
    assert isinstance(model.genome, Genome)
    assert isinstance(model.weights, Mapping)
    weights = {n: np.asarray(w, np.float64) for n, w in model.weights.items()}
    rows = np.asarray(x, np.float64)
    # Pixels beyond their range are no images, whoever changes them.
    low, high = np.clip(rows - eps, 0, 1), np.clip(rows + eps, 0, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        least, most = bounds(model.genome, weights, low, high)
    if least.shape[1] == 1:
        at = model.threshold
        # Near either end a rounding of the score is a long way in the logit.
        if not NEAREST < at < 1 - NEAREST:
            return np.zeros(len(x), dtype=bool)
        line = math.log(at) - math.log1p(-at)
        near = SLACK * (1 + abs(line))
        sure = least[:, 0] > line + near, most[:, 0] < line - near
        return np.where(label == 1, *sure)
    own = np.arange(least.shape[1]) == np.asarray(label)[:, None]
    others = np.where(own, -np.inf, most).max(1)
    # Written so that what is no number certifies nothing.
    return np.asarray(least[own] > others)
