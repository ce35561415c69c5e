"""Gradients of plain nets by hand: forward and back, net by net, without a graph.

    z_l = h_{l-1} W_l + b_l,   h_l = mask_l act(z_l) [+ h_{l-1}],   logit = h_L V + c

A net's arrays stay in the processor's cache from the way forward to the way back, and
none of its bits depends on the nets beside it. Nets with several heads are left to
autograd (`learner.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import ACTIVATION, Weights, unflatten
from safescale_ammt.training.pairs import Pairs

_aten = torch.ops.aten
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
        label: class codes (k, B) of the first rows, which the task loss is of.
        brier: the Brier score's share in it, of each net.
        outcome: class whose probability counts, of each row after them (n - B,).
        weight: of that probability in each net's Lagrangian (k, n - B).
    """

    label: Tensor
    brier: Sequence[float]
    outcome: Tensor
    weight: Tensor

    def slope(self, net: int, logits: Tensor) -> Tensor:
        """Returns the gradient of one net's Lagrangian by its logits (n, n_out)."""
        label, brier, weight = self.label[net], self.brier[net], self.weight[net]
        size = len(label)
        if logits.shape[1] == 1:
            chance = torch.sigmoid(logits)
            task, cells = chance[:size, 0], chance[size:, 0]
            # Both are written in place: first what needs the chances.
            curve = 8 * brier * task * (1 - task) if brier else 0.0
            cells *= (1 - cells) * weight.where(self.outcome == 1, -weight)
            task -= label
            task *= (1 - brier + curve) / size
            return chance
        chance = torch.softmax(logits, 1)
        task, cells = chance[:size], chance[size:]
        error = task - f.one_hot(label, logits.shape[1])
        pull = task * (error - (task * error).sum(1, keepdim=True))
        asked = f.one_hot(self.outcome, logits.shape[1]) - cells
        of = cells.gather(1, self.outcome[:, None]) * weight[:, None]
        both = (1 - brier) * error + 4 * brier * pull
        return torch.cat([both / size, of * asked])


class Step(NamedTuple):
    """What the way back needs of a hidden layer.

    Attributes:
        h: the layer's input.
        z: before the activation.
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
        self._genome, self._layout = genome, layout
        relu = genome.activation == "relu"
        self._act = torch.relu_ if relu else ACTIVATION[genome.activation]
        self._back = _BACK[genome.activation]

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
        weights, slopes = unflatten(theta, self._layout), unflatten(grad, self._layout)
        pairs = next((x for x in rows if isinstance(x, Pairs)), None)
        tables = pairs.tables(theta, self._genome.widths[0]).clone() if pairs else None
        if pairs and tables is not None:
            pairs.ladders.sum_(tables)
        logits = []
        for i, x in enumerate(rows):
            # Copies, which begin at the edge of a cache line: products of the same
            # numbers at another place can have other bits.
            own = {name: w[i].clone() for name, w in weights.items()}
            into = {name: w[i] for name, w in slopes.items()}
            drop = [layer[i] for layer in masks if layer]
            table = None if tables is None else tables[i]
            h, trail = self.forward(own, x, table, drop)
            matrix = own["out.weight"][0]
            logits.append(torch.addmm(own["out.bias"], h, matrix))
            slope = objective.slope(i, logits[-1])
            into["out.weight"][0].copy_(h.T @ slope)
            into["out.bias"].copy_(slope.sum(0))
            self.backward(own, into, trail, slope @ matrix.T)
        if pairs:
            # What the loss says of a table's rows becomes what it says of the matrix'.
            found = pairs.tables(grad, self._genome.widths[0])
            at = [i for i, x in enumerate(rows) if isinstance(x, Pairs)]
            if len(at) == len(rows):
                pairs.ladders.sum_(found, back=True)
            else:
                found[at] = pairs.ladders.sum_(found[at], back=True)
        return torch.stack(logits), grad

    def forward(
        self,
        weights: Weights,
        x: Tensor | Pairs,
        table: Tensor | None,
        masks: Sequence[Tensor],
    ) -> tuple[Tensor, list[Step]]:
        """Returns the last hidden layer (n, width), and what the way back needs."""
        trail: list[Step] = []
        h, in_place = x, self._genome.activation == "relu"
        for i, width in enumerate(self._genome.widths):
            if isinstance(h, Pairs):
                assert table is not None
                z, skip = h.product(table), False
            else:
                bias, matrix = weights[f"layer{i}.bias"], weights[f"layer{i}.weight"]
                z = torch.addmm(bias, h, matrix)
                skip = self._genome.residual and h.shape[1] == width
            a = self._act(z)
            mask = masks[i].view(a.shape) if masks else None
            out = a
            if mask is not None:
                out = a.mul_(mask) if in_place else a * mask
            trail.append(Step(h, z, a, mask, skip))
            h = out + h if skip and isinstance(h, Tensor) else out
        assert isinstance(h, Tensor)
        return h, trail

    def backward(
        self, weights: Weights, into: Weights, trail: Sequence[Step], slope: Tensor
    ) -> None:
        """Writes the hidden layers' gradient from that by the last one (n, width)."""
        for i, (h, z, a, mask, skip) in reversed(list(enumerate(trail))):
            inner = self._back(slope if mask is None else slope * mask, z, a)
            matrix, bias = into[f"layer{i}.weight"], into[f"layer{i}.bias"]
            if isinstance(h, Pairs):
                found = h.back(inner)
                matrix.copy_(found[:-1])
                bias.copy_(found[-1:])
                continue
            matrix.copy_(h.T @ inner)
            bias.copy_(inner.sum(0))
            if i:
                below = inner @ weights[f"layer{i}.weight"].T
                slope = below.add_(slope) if skip else below
