"""Gradients of plain nets by hand: forward and back, net by net, without a graph.

    z_l = h_{l-1} W_l + b_l,   h_l = mask_l act(z_l) [+ h_{l-1}],   logit = h_L V + c

A net's arrays stay in the processor's cache from the way forward to the way back, and
none of its bits depends on the nets beside it: products are of one net each, and what
is written for all nets at once is rounded number by number. Nets with several heads
are left to autograd (`learner.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import (
    ACTIVATION,
    Weights,
    chances,
    kept_scale,
    unflatten,
)
from safescale_ammt.training.pairs import Pairs

_aten = torch.ops.aten
_LINE = 16
"""Numbers of float32 in a cache line."""
# From the slope behind an activation, its input z and its output a, to the slope of z.
_BACK: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "relu": lambda slope, _, a: _aten.threshold_backward(slope, a, 0),
    "gelu": lambda slope, z, _: _aten.gelu_backward(slope, z),
    "silu": lambda slope, z, _: _aten.silu_backward(slope, z),
    "tanh": lambda slope, _, a: _aten.tanh_backward(slope, a),
}


@dataclass(frozen=True)
class Objective:
    """What the logits of k nets are held against.

    Attributes:
        label: class codes (k, B) of the first rows, which the task loss is of, or
            chances: of class 1, or of each class (k, B, C).
        brier: the Brier score's share in it, of each net.
        outcome: class whose probability counts, of each row after them (n - B,).
        weight: of that probability in each net's Lagrangian (k, n - B).
    """

    label: Tensor
    brier: Sequence[float]
    outcome: Tensor
    weight: Tensor

    @cached_property
    def pull(self) -> Tensor:
        """What the chance of class 1 weighs in each net's Lagrangian (k, n - B)."""
        return self.weight.where(self.outcome == 1, -self.weight)

    def slope(self, net: int, logits: Tensor) -> Tensor:
        """Returns the gradient of one net's Lagrangian by its logits (n, n_out)."""
        label, brier = self.label[net], self.brier[net]
        size = len(label)
        if logits.shape[1] == 1:
            chance = torch.sigmoid(logits)
            task, cells = chance[:size, 0], chance[size:, 0]
            # Both are written in place: first what needs the chances.
            cells.addcmul_(cells, cells, value=-1).mul_(self.pull[net])
            if not brier:
                task.sub_(label).div_(size)
                return chance
            curve = 8 * brier * task * (1 - task)
            task -= label
            task *= (1 - brier + curve) / size
            return chance
        chance, weight = torch.softmax(logits, 1), self.weight[net]
        task, cells = chance[:size], chance[size:]
        error = task - chances(label, logits.shape[1])
        pull = task * (error - (task * error).sum(1, keepdim=True))
        asked = f.one_hot(self.outcome, logits.shape[1]) - cells
        of = cells.gather(1, self.outcome[:, None]) * weight[:, None]
        both = (1 - brier) * error + 4 * brier * pull
        return torch.cat([both / size, of * asked])


class Step(NamedTuple):
    """What the way back needs of a hidden layer.

    Attributes:
        h: the layer's input.
        z: before the activation, behind it where that is written in place.
        a: behind it.
        mask: of the dropout, which a holds as well where z is a; None without.
        skip: whether h was added.
    """

    h: Tensor | Pairs
    z: Tensor
    a: Tensor
    mask: Tensor | None
    skip: bool


class Backprop:
    """The way forward and back of nets of one genome with one head.

    Args:
        genome: of the nets.
        layout: shape of each layer's tensors.
    """

    def __init__(self, genome: Genome, layout: dict[str, tuple[int, ...]]) -> None:
        # One head has one last matrix.
        last = {"out.weight": layout["out.weight"][1:]}
        self._genome, self._layout = genome, {**layout, **last}
        self._in_place = genome.activation == "relu"
        self._act = torch.relu_ if self._in_place else ACTIVATION[genome.activation]
        self._back = _BACK[genome.activation]
        # A unit of ReLU that was dropped is one below 0: what its mask multiplies by
        # is the same for all others, and is left to the products.
        self._scale = kept_scale(genome.dropout) if self._in_place else 1.0

    def __call__(
        self,
        theta: Tensor,
        rows: Sequence[Tensor | Pairs],
        masks: Sequence[Sequence[Tensor]],
        objective: Objective,
    ) -> tuple[Tensor, Tensor]:
        """Returns the logits (k, n, n_out) and the Lagrangians' gradient (k, P).

        Args:
            theta: weights (k, P).
            rows: of each net, encoded (n, d) or as pairs.
            masks: of each hidden layer, of each net (n * width,); none without dropout.
            objective: of all nets.
        """
        grad = torch.empty_like(theta)
        pairs = [x for x in rows if isinstance(x, Pairs)]
        # Of pairs alone the first layer is a table, and no matrix of its own.
        skipped = "layer0." if len(pairs) == len(rows) else "none"
        weights, slopes = (
            {
                name: (each, at_lines(each))
                for name, each in unflatten(of, self._layout).items()
                if not name.startswith(skipped)
            }
            for of in (theta, grad)
        )
        for source, copy in weights.values():
            copy.copy_(source)
        nets = (
            [
                dict(zip(of, net, strict=True))
                for net in zip(*(w.unbind() for _, w in of.values()), strict=True)
            ]
            for of in (weights, slopes)
        )
        tables, width = theta[:, :0], self._genome.widths[:1]
        if pairs:
            tables = pairs[0].ladders.sum_(pairs[0].tables(theta, *width).clone())
        logits, found = [], []
        for i, (x, own, into) in enumerate(zip(rows, *nets, strict=True)):
            drop = [layer[i] for layer in masks if layer]
            h, trail = self.forward(own, x, tables[i], drop)
            matrix = own["out.weight"]
            logits.append(torch.addmm(own["out.bias"], h, matrix))
            slope = objective.slope(i, logits[-1])
            torch.mm(h.T, slope, out=into["out.weight"])
            torch.sum(slope, 0, keepdim=True, out=into["out.bias"])
            found += self.backward(own, into, trail, slope @ matrix.T)
        for part, slope in slopes.values():
            part.copy_(slope)
        if pairs:
            at = torch.tensor([isinstance(x, Pairs) for x in rows]).nonzero()[:, 0]
            # What the loss says of a table's rows becomes what it says of the matrix'.
            of = pairs[0].ladders.sum_(torch.stack(found), back=True)
            pairs[0].tables(grad, *width).index_copy_(0, at, of)
        return torch.stack(logits), grad

    def forward(
        self,
        weights: Weights,
        x: Tensor | Pairs,
        table: Tensor,
        masks: Sequence[Tensor],
    ) -> tuple[Tensor, list[Step]]:
        """Returns the last hidden layer (n, width), and what the way back needs.

        Args:
            weights: of one net.
            x: its rows.
            table: which pairs are rows of.
            masks: of each hidden layer; none without dropout.
        """
        trail: list[Step] = []
        h = x
        for i, width in enumerate(self._genome.widths):
            if isinstance(h, Pairs):
                z, skip = h.product(table), False
            else:
                bias, matrix = weights[f"layer{i}.bias"], weights[f"layer{i}.weight"]
                z = torch.addmm(bias, h, matrix)
                skip = self._genome.residual and h.shape[1] == width
            a = self._act(z)
            mask = masks[i].view(a.shape) if masks else None
            out = a
            if mask is not None:
                out = a.mul_(mask) if self._in_place else a * mask
            trail.append(Step(h, z, a, mask, skip))
            h = out + h if skip and isinstance(h, Tensor) else out
        assert isinstance(h, Tensor)
        return h, trail

    def backward(
        self, weights: Weights, into: Weights, trail: Sequence[Step], slope: Tensor
    ) -> list[Tensor]:
        """Writes the hidden layers' gradient from that by the last one (n, width).

        Returns:
            The gradient of the first layer's table, if it was one.
        """
        scale = self._scale if trail and trail[-1].mask is not None else 1.0
        for i, (h, z, a, mask, skip) in reversed(list(enumerate(trail))):
            if mask is not None and not self._in_place:
                inner = self._back(slope * mask, z, a)
            else:
                inner = self._back(slope, z, a)
            if isinstance(h, Pairs):
                return [h.back(inner).mul_(scale)]
            matrix, bias = into[f"layer{i}.weight"], into[f"layer{i}.bias"]
            torch.addmm(matrix, h.T, inner, beta=0, alpha=scale, out=matrix)
            torch.sum(inner, 0, keepdim=True, out=bias).mul_(scale)
            if i:
                above = slope
                slope = inner @ weights[f"layer{i}.weight"].T.mul(scale)
                if skip:
                    slope.add_(above)
        return []


def at_lines(like: Tensor) -> Tensor:
    """Returns room for nets' tensors (k, ...): each begins where a cache line does.

    Products of the same numbers at another place can have other bits.
    """
    k, size = len(like), math.prod(like.shape[1:])
    room = torch.empty(k, -(-size // _LINE) * _LINE, dtype=like.dtype)
    return room[:, :size].view(like.shape)
