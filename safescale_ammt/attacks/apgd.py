"""APGD: gradient steps whose length adapts itself.

Croce and Hein 2020, arXiv:2003.01690, algorithm 1:

    z      = P(x_k + eta step(grad f(x_k)))
    x_k+1  = P(x_k + alpha (z - x_k) + (1 - alpha) (x_k - x_k-1))     alpha = .75

eta starts at 2 eps. At checkpoints w_j = ceil(p_j N) of N steps, p_0 = 0, p_1 = .22,
p_j+1 = p_j + max(p_j - p_j-1 - .03, .06), a row goes back to its best point with half
the step if, since the last checkpoint,

    1. fewer than rho = .75 of its steps have raised f, or
    2. neither its step was halved then nor its largest f has grown.

A row that is answered wrong takes no further step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safescale_ammt.attacks.attempt import Attempt, RowBall, rowwise
from safescale_ammt.attacks.losses import Loss, cross_entropy, dlr
from safescale_ammt.attacks.slopes import Slopes, exact

MOMENTUM, RISES = 0.75, 0.75
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06
"""First stretch between checkpoints, how much shorter each is, and the least."""


def checkpoints(steps: int) -> list[int]:
    """Returns the steps at which the step size is looked at."""
    before, at = 0.0, FIRST
    marks = []
    while at <= 1:
        # Sums of such numbers are a little above those of the paper.
        marks.append(math.ceil(at * steps - 1e-9))
        before, at = at, at + max(at - before - SHORTER, SHORTEST)
    return marks


class Climb:
    """Rows on their way up a loss; those that are answered wrong have left it.

    Args:
        slopes: where losses, answers and slopes come from.
        attempt: the rows.
        aim: the class that each is driven to (B,).
        x: where they start.
    """

    def __init__(
        self, slopes: Slopes, attempt: Attempt, aim: Tensor, x: Tensor
    ) -> None:
        self._slopes, self._threat = slopes, attempt.ball.threat
        self.found = x.clone()
        self.at = torch.arange(len(x), device=x.device)
        value, codes, grad = slopes(x, attempt.y, aim)
        self._ball = attempt.ball
        self._rows = {
            "centre": attempt.ball.centre,
            "y": attempt.y,
            "aim": aim,
            "x": x,
            "before": x,
            "grad": grad,
            "value": value,
            "best": x,
            "best_grad": grad,
            "best_value": value,
            "marked_value": value,
            "eta": torch.full_like(value, 2.0),
            "rises": torch.zeros_like(value),
            "halved": torch.zeros_like(value, dtype=torch.bool),
        }
        self._leave(codes)

    def _leave(self, codes: Tensor) -> None:
        rows = self._rows
        wrong = codes != rows["y"]
        self.found[self.at[wrong]] = rows["x"][wrong]
        if bool(wrong.any()):
            self.at = self.at[~wrong]
            self._rows = {name: part[~wrong] for name, part in rows.items()}
            self._ball = RowBall(self._threat, self._rows["centre"])

    def step(self, momentum: float) -> None:
        """Takes one step."""
        rows, ball = self._rows, self._ball
        x, eta = rows["x"], rows["eta"]
        change = ball.moved(x, rows["grad"], eta) - x
        past = x - rows["before"]
        moved = ball.project(x + momentum * change + (1 - momentum) * past)
        value, codes, grad = self._slopes(moved, rows["y"], rows["aim"])
        rows["rises"] = rows["rises"] + (value > rows["value"])
        rows |= {"before": x, "x": moved, "value": value, "grad": grad}
        better = value > rows["best_value"]
        for name in ("x", "grad", "value"):
            best = "best" if name == "x" else f"best_{name}"
            mask = rowwise(better, rows[name])
            rows[best] = torch.where(mask, rows[name], rows[best])
        self._leave(codes)

    def look(self, taken: int) -> None:
        """Halves steps at a checkpoint, `taken` steps after the last one."""
        rows = self._rows
        few = rows["rises"] < RISES * taken
        stuck = ~rows["halved"] & (rows["best_value"] <= rows["marked_value"])
        halve = few | stuck
        rows["eta"] = torch.where(halve, rows["eta"] / 2, rows["eta"])
        for name in ("x", "grad", "value"):
            best = "best" if name == "x" else f"best_{name}"
            mask = rowwise(halve, rows[name])
            rows[name] = torch.where(mask, rows[best], rows[name])
        rows |= {"halved": halve, "marked_value": rows["best_value"]}
        rows["rises"] = torch.zeros_like(rows["rises"])

    def end(self) -> Tensor:
        """Returns the point where each row was answered wrong, else its best one."""
        self.found[self.at] = self._rows["best"]
        return self.found


def climb(
    attempt: Attempt, slopes: Slopes, aim: Tensor, start: Tensor, steps: int
) -> Tensor:
    """Returns points after so many steps of the algorithm, from a start.

    Args:
        attempt: the rows.
        slopes: where losses, answers and slopes come from.
        aim: the class that each row is driven to (B,).
        start: inside the ball.
        steps: N.
    """
    rows, last, marks = Climb(slopes, attempt, aim, start), 0, checkpoints(steps)
    for k in range(1, steps + 1):
        if not len(rows.at):
            break
        # The first step has none before it.
        rows.step(MOMENTUM if k > 1 else 1.0)
        if k in marks:
            rows.look(k - last)
            last = k
    return rows.end()


def apgd(
    attempt: Attempt,
    steps: int,
    restarts: int = 1,
    loss: Loss = cross_entropy,
    slopes: Slopes | None = None,
) -> Tensor:
    """Returns points of APGD on a loss that aims at no class; each restart is random.

    Args:
        attempt: the rows.
        steps: of each start.
        restarts: starts, of the rows that survive those before.
        loss: what is made larger where `slopes` are the target's own.
        slopes: where losses, answers and slopes come from, if not from the target.
    """
    found, at = attempt.ball.centre.clone(), torch.arange(len(attempt.y))
    for _ in range(restarts):
        rest = attempt.part(at)
        own = slopes or exact(attempt.target, loss)
        start = rest.ball.start(attempt.generator)
        found[at] = climb(rest, own, rest.aims[:, 0], start, steps)
        at = attempt.survivors(found)
        if not len(at):
            break
    return found


def apgd_targeted(attempt: Attempt, steps: int, aims: int, restarts: int = 1) -> Tensor:
    """Returns points of APGD on the targeted DLR loss, one class after another.

    Args:
        attempt: the rows.
        steps: of each start.
        aims: most classes that a row is driven to, the likeliest first.
        restarts: starts for each class.
    """
    found, at = attempt.ball.centre.clone(), torch.arange(len(attempt.y))
    own = exact(attempt.target, dlr)
    for place in range(min(aims, attempt.aims.shape[1])):
        for _ in range(restarts):
            if not len(at):
                return found
            rest = attempt.part(at)
            start = rest.ball.start(attempt.generator)
            found[at] = climb(rest, own, rest.aims[:, place], start, steps)
            at = attempt.survivors(found)
    return found
