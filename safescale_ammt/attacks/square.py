"""Square: random search by squares, which asks for answers and no slopes.

Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 to 3:

    d <- d with a window of side s changed;  kept if max_{i != y} z_i - z_y is no less

s = sqrt(p w h) of images (..., h, w), p of rows of numbers without such a form. p
begins at .8 and is halved after 10, 50, 200, 1000, 2000, 4000, 6000 and 8000 of 10,000
queries, or as soon of fewer. In the largest norm the window gets +-eps in each channel,
beginning from stripes. In the Euclidean one it gets what a second window had, and what
of the radius is not used, in the pattern eta of two halves of opposite sign, each

    eta_r,s = sum over c >= the distance from the middle of 1 / (c + 1)^2.

A step's windows are the same for all rows, its signs are of each row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safescale_ammt.attacks.attempt import Attempt, rowwise
from safescale_ammt.attacks.losses import margin

SHARE = 0.8
HALVED = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the window's area is halved."""
TILE = 5
"""Side of the tiles that the Euclidean search begins from, at most."""


def share_of(query: int, queries: int) -> float:
    """Returns which share of an image the window of a query takes."""
    halvings = sum(query > at * queries / 10_000 for at in HALVED)
    return math.ldexp(SHARE, -halvings)


class Canvas:
    """Rows as images (B, channels, h, w), and windows of them.

    Args:
        shape: of one row; images have two axes or more, the last two h and w.
    """

    def __init__(self, shape: torch.Size) -> None:
        plane = shape[-2:] if len(shape) > 1 else (1, *shape)
        self.h, self.w = plane[0], plane[-1]
        self.channels = math.prod(shape) // (self.h * self.w)

    def of(self, x: Tensor) -> Tensor:
        """Returns rows as images."""
        return x.reshape(len(x), self.channels, self.h, self.w)

    def sides(self, share: float) -> tuple[int, int]:
        """Returns height and width of a window of a share of an image."""
        if self.h == 1:
            return 1, min(max(1, round(share * self.w)), self.w)
        side = max(1, round(math.sqrt(share * self.h * self.w)))
        return min(side, self.h), min(side, self.w)

    def window(self, h: int, w: int, generator: torch.Generator) -> tuple[slice, slice]:
        """Returns where a window of a size lies, drawn."""
        top, left = (
            int(torch.randint(0, whole - part + 1, (1,), generator=generator))
            for whole, part in ((self.h, h), (self.w, w))
        )
        return slice(top, top + h), slice(left, left + w)


def square(attempt: Attempt, queries: int) -> Tensor:
    """Returns the best points of a random search.

    Args:
        attempt: the rows.
        queries: answers that each row may ask for; at least one.
    """
    canvas = Canvas(attempt.ball.centre.shape[1:])
    first, change = (
        (stripes, of_signs)
        if attempt.ball.threat.norm == "linf"
        else (tiles, of_length)
    )
    found, at = attempt.ball.centre.clone(), torch.arange(len(attempt.y))
    rest = attempt
    x = first(rest, canvas)
    value, right = judged(rest, x)
    for query in range(1, queries + 1):
        found[at[~right]] = x[~right]
        if not bool(right.all()):
            at, x, value = at[right], x[right], value[right]
            rest = rest.part(right.nonzero()[:, 0])
        if query == queries or not len(at):
            break
        moved = change(rest, canvas, x, canvas.sides(share_of(query, queries)))
        fresh, right = judged(rest, moved)
        # Of equal margins the later point: a plateau is crossed, not sat on.
        kept = (fresh >= value) | ~right
        x = torch.where(rowwise(kept, x), moved, x)
        value = torch.where(kept, fresh, value)
    found[at] = x
    return found


def judged(attempt: Attempt, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the margin of the best other class (B,), and who is answered right."""
    with torch.no_grad():
        logits, codes = attempt.target.answer(x)
    return margin(logits, attempt.y, attempt.y), codes == attempt.y


def signs(shape: tuple[int, ...], attempt: Attempt) -> Tensor:
    """Returns -1 and 1, drawn."""
    drawn = torch.randint(0, 2, shape, generator=attempt.generator) * 2 - 1
    return drawn.to(attempt.ball.centre)


def put(attempt: Attempt, changes: Tensor) -> Tensor:
    """Returns the rows with changes (B, channels, h, w), inside ball and range."""
    centre = attempt.ball.centre
    return attempt.ball.project(centre + changes.reshape(centre.shape))


def stripes(attempt: Attempt, canvas: Canvas) -> Tensor:
    """Returns rows with vertical stripes of +-eps."""
    drawn = signs((len(attempt.y), canvas.channels, 1, canvas.w), attempt)
    return put(attempt, attempt.ball.threat.eps * drawn.repeat(1, 1, canvas.h, 1))


def of_signs(
    attempt: Attempt, canvas: Canvas, x: Tensor, sides: tuple[int, int]
) -> Tensor:
    """Returns rows with +-eps in a window."""
    changes = canvas.of(x - attempt.ball.centre).clone()
    rows, columns = canvas.window(*sides, attempt.generator)
    drawn = signs((len(x), canvas.channels, 1, 1), attempt)
    # The corners of the ball: a loss that is nearly linear is greatest there.
    changes[:, :, rows, columns] = attempt.ball.threat.eps * drawn
    return put(attempt, changes)


def bump(h: int, w: int) -> Tensor:
    """Returns a bump that is 0 nowhere: sums of 1 / (c + 1)^2 (h, w)."""
    r = (torch.arange(h) - h // 2).abs()[:, None]
    c = (torch.arange(w) - w // 2).abs()[None, :]
    steps = 1 / torch.arange(1, max(h, w) + 1, dtype=torch.float32) ** 2
    outward = steps.flip(0).cumsum(0).flip(0)
    found: Tensor = outward[torch.maximum(r, c).clamp(max=len(outward) - 1)]
    return found


def eta(h: int, w: int, generator: torch.Generator) -> Tensor:
    """Returns the pattern of a window (h, w): two bumps of opposite sign, length 1."""
    wide = h == 1 or bool(torch.randint(0, 2, (1,), generator=generator))
    a, b = (w, h) if wide else (h, w)
    halves = [bump(a // 2, b), -bump(a - a // 2, b)] if a > 1 else [bump(1, b)]
    whole = torch.cat([half / half.norm() for half in halves])
    whole = whole / whole.norm()
    found: Tensor = whole.T if wide else whole
    return found


def tiles(attempt: Attempt, canvas: Canvas) -> Tensor:
    """Returns rows with tiles of the pattern, of the whole radius."""
    changes = torch.zeros_like(canvas.of(attempt.ball.centre))
    h, w = (min(TILE, side) for side in (canvas.h, canvas.w))
    for top in range(0, canvas.h - h + 1, h):
        for left in range(0, canvas.w - w + 1, w):
            pattern = eta(h, w, attempt.generator).to(changes)
            drawn = signs((len(changes), canvas.channels, 1, 1), attempt)
            changes[:, :, top : top + h, left : left + w] = pattern * drawn
    return put(attempt, stretched(attempt, changes))


def stretched(attempt: Attempt, changes: Tensor) -> Tensor:
    """Returns changes whose length is the radius."""
    lengths = rowwise(changes.flatten(1).norm(dim=1), changes)
    found: Tensor = changes / (lengths + 1e-12) * attempt.ball.threat.eps
    return found


def of_length(
    attempt: Attempt, canvas: Canvas, x: Tensor, sides: tuple[int, int]
) -> Tensor:
    """Returns rows with the length of one window in another one."""
    changes = canvas.of(x - attempt.ball.centre).clone()
    to, source = (canvas.window(*sides, attempt.generator) for _ in range(2))
    whole = changes.flatten(1).norm(dim=1)
    unused = (attempt.ball.threat.eps**2 - whole**2).clamp(min=0) / canvas.channels

    def lengths(part: Tensor) -> Tensor:
        each: Tensor = part.flatten(2).norm(dim=2)[:, :, None, None]
        return each

    # Squares of both windows, what lies in both counted once.
    left = changes.clone()
    left[:, :, to[0], to[1]] = 0
    own = changes[:, :, to[0], to[1]]
    both = lengths(own) ** 2 + lengths(left[:, :, source[0], source[1]]) ** 2
    pattern = eta(*sides, attempt.generator).to(changes)
    drawn = signs((len(x), canvas.channels, 1, 1), attempt)
    fresh = pattern * drawn + own / (lengths(own) + 1e-12)
    fresh = fresh / (lengths(fresh) + 1e-12)
    changes[:, :, source[0], source[1]] = 0
    size = (both + unused[:, None, None, None]).sqrt()
    changes[:, :, to[0], to[1]] = fresh * size
    return put(attempt, stretched(attempt, changes))
