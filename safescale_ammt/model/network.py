"""Networks: k nets of one genome, computed as one program.

All parameters of one net are one row of a matrix `theta` (k, P). Slices of that
row are the layers, every product is a batched matmul over the k nets, and so
sharing, averaging and Adam are arithmetic on a matrix:

    h_0 = x,   h_{l+1} = drop(act(s_l * ((r_l * h_l) W_l) + b_l)) [+ h_l]
    logit = mean over heads of (h_L V + c)

r, s (per head) and V, c (per head) are the TabM adapters (arXiv:2410.24210);
a net of one head has none and is a plain multilayer perceptron.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.model.genome import Genome

Weights = dict[str, Tensor]
"""Layer name -> tensor (k, ...): the k nets stacked along the first axis."""

_ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": f.gelu,
    "silu": f.silu,
    "tanh": torch.tanh,
}


_VECTOR = 32
"""Numbers that two registers of the widest vector unit (AVX-512) hold."""


def shapes(genome: Genome, d_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each layer's tensors, for one net, in a fixed order.

    Args:
        genome: the architecture.
        d_in: width of an encoded row.
        n_out: logits (1 for a binary label, else one per class).
    """
    h = genome.heads
    found: dict[str, tuple[int, ...]] = {}
    fan_in = d_in
    for i, width in enumerate(genome.widths):
        found[f"layer{i}.weight"] = (fan_in, width)
        found[f"layer{i}.bias"] = (h, width)
        if h > 1:
            found[f"layer{i}.scale_in"] = (h, fan_in)
            found[f"layer{i}.scale_out"] = (h, width)
        fan_in = width
    found["out.weight"] = (h, fan_in, n_out)
    found["out.bias"] = (h, n_out)
    return found


def unflatten(theta: Tensor, layout: dict[str, tuple[int, ...]]) -> Weights:
    """Cuts the rows of theta (k, P) into named tensors (k, ...); views, no copy."""
    sizes = [math.prod(shape) for shape in layout.values()]
    parts = torch.split(theta, sizes, dim=1)
    return {
        name: part.view(len(theta), *shape)
        for (name, shape), part in zip(layout.items(), parts, strict=True)
    }


def flatten(weights: Weights) -> Tensor:
    """Joins named tensors (k, ...) into theta (k, P); inverse of `unflatten`."""
    return torch.cat([w.flatten(1) for w in weights.values()], dim=1)


def initial(genome: Genome, d_in: int, n_out: int, seeds: Sequence[int]) -> Tensor:
    """Draws theta (k, P) for k nets, each from its own seed.

    Weights are uniform in +-1/sqrt(fan_in) as in `torch.nn.Linear`; biases of a
    plain net too. The first layer's input scalings are random signs, which makes
    heads differ from the start (TabM, section 3.3); all other scalings are 1.
    """
    layout = shapes(genome, d_in, n_out)
    return torch.stack([_initial_row(layout, seed) for seed in seeds])


def _initial_row(layout: dict[str, tuple[int, ...]], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = []
    fan_in = 1
    for name, shape in layout.items():
        kind = name.rpartition(".")[2]
        if kind == "weight":
            fan_in = shape[-2]
        drawn = torch.rand(shape, generator=generator).mul_(2).sub_(1)
        if kind in ("weight", "bias"):
            drawn /= math.sqrt(fan_in)
        elif name == "layer0.scale_in":
            drawn = torch.where(drawn < 0, -1.0, 1.0)
        else:
            drawn = torch.ones(shape)
        parts.append(drawn.flatten())
    return torch.cat(parts)


class Dropout:
    """Draws dropout masks from bytes: eight units per 64-bit random number.

    The probability is rounded to 1/256; the scale of the kept units is exact for
    the rounded value, so the expectation is unchanged.
    """

    def __init__(self, probability: float, seed: int) -> None:
        self._cut = round(probability * 256)
        self.generator = torch.Generator().manual_seed(seed)
        self._shown, self._nets = slice(None), 1

    def show(self, mine: range, nets: int) -> None:
        """Draws for so many nets from now on and uses the masks of some of them."""
        self._shown, self._nets = slice(mine.start, mine.stop), nets

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x with each unit dropped independently."""
        if self._cut == 0:
            return x
        # Each net's units lie together, those of net i after those of net i - 1.
        units = x.numel() if self._nets == 1 else x[0].numel() * self._nets
        words = torch.empty((units + 7) // 8, dtype=torch.int64)
        words.random_(-(2**63), None, generator=self.generator)
        masks = words.view(torch.uint8)[:units].view(self._nets, -1)
        kept = masks[self._shown] >= self._cut
        return x * (kept.view(x.shape) * (256 / (256 - self._cut)))


def forward(
    genome: Genome,
    weights: Weights,
    x: Tensor,
    dropout: Dropout | None = None,
    *,
    lone: bool = False,
) -> Tensor:
    """Computes the logits of every head of every net.

    Args:
        genome: the architecture that `weights` belong to.
        weights: stacked tensors of k nets.
        x: encoded rows (k, B, d_in), net by net, or (1, B, d_in) shared by all.
        dropout: draws the masks; None when not training.
        lone: this net is one of several that other processes compute.

    Returns:
        Logits (k, heads, B, n_out).
    """
    k, heads = weights["out.bias"].shape[:2]
    x = x.expand(k, -1, -1)
    rows = x.shape[1]
    hidden = x[:, None]
    activation = _ACTIVATION[genome.activation]
    for i in range(len(genome.widths)):
        before = hidden
        hidden = net_by_net(activation, _layer(weights, f"layer{i}", hidden, lone))
        if dropout is not None:
            hidden = dropout(hidden)
        if genome.residual and before.shape[-1] == hidden.shape[-1]:
            hidden = hidden + before
    hidden = hidden.expand(k, heads, rows, hidden.shape[-1]).flatten(0, 1)
    out = _affine(
        weights["out.bias"].flatten(0, 1)[:, None],
        hidden,
        weights["out.weight"].flatten(0, 1),
        lone,
    )
    return out.view(k, heads, rows, -1)


def _affine(bias: Tensor, x: Tensor, matrix: Tensor, lone: bool) -> Tensor:
    """Returns bias + x W of each net, the same bits whoever computes it.

    For a single net with one output the library would take another routine
    (matrix times vector), so a lone net of several is computed beside itself.
    """
    if lone and len(x) == 1 and matrix.shape[-1] == 1:
        twice = (t.expand(2, -1, -1) for t in (bias, x, matrix))
        return torch.baddbmm(*twice)[:1]
    return torch.baddbmm(bias, x, matrix)


def net_by_net(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Applies a function of each number so that no net's bits depend on the others.

    Vector units take `_VECTOR` numbers at a time, and a routine that rounds
    otherwise takes the rest: nets that do not end on such an edge go one by one.
    """
    if len(values[0]) == 1 or values[0][0].numel() % _VECTOR == 0:
        return function(*values)
    return torch.stack([function(*net) for net in zip(*values, strict=True)])


def _layer(weights: Weights, name: str, x: Tensor, lone: bool) -> Tensor:
    """Maps (k, h or 1, B, d) to (k, h, B, w): s * ((r * x) W) + b."""
    matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    heads, rows = bias.shape[1], x.shape[2]
    if heads == 1:
        return _affine(bias, x[:, 0], matrix, lone)[:, None]
    scale_in = weights[f"{name}.scale_in"][:, :, None]
    scale_out = weights[f"{name}.scale_out"][:, :, None]
    product = torch.bmm((x * scale_in).flatten(1, 2), matrix)
    product = product.view(len(product), heads, rows, -1)
    return torch.addcmul(bias[:, :, None], product, scale_out)


def predicted(logits: Tensor) -> Tensor:
    """Returns class codes (...) of head-averaged logits (..., n_out)."""
    if logits.shape[-1] == 1:
        return (logits[..., 0] >= 0).to(torch.int64)
    return logits.argmax(-1)


def probability(logits: Tensor, outcome: int) -> Tensor:
    """Returns P(class = outcome) (...) from logits (..., n_out)."""
    if logits.shape[-1] == 1:
        return torch.sigmoid(logits[..., 0] if outcome == 1 else -logits[..., 0])
    return torch.softmax(logits, -1)[..., outcome]
