"""Bets against a line between two rates, block by block: evidence at any time.

A block holds n_a rows of group a and n_b of group b, answered by one model. Against
"p_a - p_b <= tau" one who believes in rates q = (q_a, q_b) beyond the line bets

    E = prod_a f(y; q_a) / f(y; o_a)  prod_b f(y; q_b) / f(y; o_b)

where f is Bernoulli's law and o the point of the line that is nearest to q:

    o = argmin n_a KL(q_a || o_a) + n_b KL(q_b || o_b)   with  o_a - o_b = tau

(Turner, Ly & Grünwald, arXiv:2106.02693; Turner & Grünwald, arXiv:2203.09785). Below
the line the bet gains nothing on average: at the optimum
(q_a - o_a) / (o_a (1 - o_a)) = m / n_a and (q_b - o_b) / (o_b (1 - o_b)) = -m / n_b
with one m >= 0, so that, by 1 + x <= exp(x),

    E[E] = (1 + (p_a - o_a) m / n_a)^n_a (1 - (p_b - o_b) m / n_b)^n_b
        <= exp(m (p_a - p_b - tau)) <= 1.

The product over blocks is a test martingale whatever the beliefs, if they are of
earlier blocks: it ever reaches 1 / alpha with a chance of at most alpha (Ville 1939).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXCESSES = (0.05, 0.1, 0.2)
"""Distances from the line that are believed in beside the estimate itself."""
BELIEFS = 1 + len(EXCESSES)
_EDGE = 0.01
"""No rate is believed to be nearer to 0 or 1: one surprise would cost everything."""
_HALVINGS = 50


def beliefs(hits: Floats, sizes: Floats, tau: Floats) -> Floats:
    """Returns what may be believed of two rates after some rows.

    The first belief is the estimate; the others keep its weighted mean, and their
    difference lies beyond the line by `EXCESSES`.

    Args:
        hits: of both groups so far (..., 2).
        sizes: rows of both groups so far (..., 2).
        tau: difference on the line (...).

    Returns:
        Rates (..., BELIEFS, 2).
    """
    # One row more, half of it a hit: of no rows, a rate of one half.
    estimate = (hits + 0.5) / (sizes + 1)
    weight = (sizes + 1) / (sizes + 1).sum(-1, keepdims=True)
    middle = (estimate * weight).sum(-1, keepdims=True)
    difference = tau[..., None] + np.array(EXCESSES)
    others = [
        middle + difference * weight[..., 1:],
        middle - difference * weight[..., :1],
    ]
    found = np.stack(others, -1)
    # Both move alike where one would leave the unit interval.
    low = np.maximum(_EDGE - found[..., 1:], 0)
    high = np.maximum(found[..., :1] - 1 + _EDGE, 0)
    found = np.concatenate([estimate[..., None, :], found + low - high], -2)
    clipped: Floats = found.clip(_EDGE, 1 - _EDGE)
    return clipped


def log_bets(hits: Floats, sizes: Floats, tau: Floats, believed: Floats) -> Floats:
    """Returns log E of one block by each belief (..., BELIEFS).

    Zero, no bet, of a belief on the line or below it, and of a block without rows of
    both groups.

    Args:
        hits: of both groups in the block (..., 2).
        sizes: rows of both groups in the block (..., 2).
        tau: difference on the line (...).
        believed: rates (..., BELIEFS, 2), of rows before the block.
    """
    hits, sizes, tau = hits[..., None, :], sizes[..., None, :], tau[..., None]
    beyond = believed[..., 0] - believed[..., 1] > tau
    bets = beyond & (sizes > 0).all(-1)
    # Where there is no bet, any belief beyond some line will do.
    q = np.where(bets[..., None], believed, np.array([0.75, 0.25]))
    o = nearest_on_line(q, np.maximum(sizes, 1), np.where(bets, tau, 0.0))
    gains = hits * np.log(q / o) + (sizes - hits) * np.log((1 - q) / (1 - o))
    logs: Floats = np.where(bets, gains.sum(-1), 0.0)
    return logs


def nearest_on_line(q: Floats, sizes: Floats, tau: Floats) -> Floats:
    """Returns the rates on the line that are nearest to rates beyond it (..., 2)."""
    # Between these ends the derivative of the divergence rises from below 0 to above.
    low, high = q[..., 1] + tau, q[..., 0]
    for _ in range(_HALVINGS):
        a = (low + high) / 2
        b = a - tau
        slope = -sizes[..., 0] * (q[..., 0] - a) / (a * (1 - a))
        slope = slope - sizes[..., 1] * (q[..., 1] - b) / (b * (1 - b))
        low, high = np.where(slope < 0, a, low), np.where(slope < 0, high, a)
    a = (low + high) / 2
    return np.stack([a, a - tau], -1)
