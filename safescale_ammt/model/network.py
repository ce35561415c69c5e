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

from safescale_ammt.model.genome import Genome, shapes

Weights = dict[str, Tensor]
"""Layer name -> tensor (k, ...): the k nets stacked along the first axis."""

ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": f.gelu,
    "silu": f.silu,
    "tanh": torch.tanh,
}

_MASK_UNITS = 1 << 20
"""Units of the row that dropout masks are windows of."""
_VECTOR = 32
"""Numbers that two registers of the widest vector unit (AVX-512) hold."""


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
    theta = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        row, fan_in = [], 1
        for name, shape in shapes(genome, d_in, n_out).items():
            kind = name.rpartition(".")[2]
            if kind == "weight":
                fan_in = shape[-2]
            # Drawn for every tensor, also where all are 1: to skip a draw would
            # change the weights of every later layer.
            values = torch.rand(shape, generator=generator).mul_(2).sub_(1)
            if kind in ("weight", "bias"):
                values /= math.sqrt(fan_in)
            elif name == "layer0.scale_in":
                values = torch.where(values < 0, -1.0, 1.0)
            else:
                values = torch.ones(shape)
            row.append(values.flatten())
        theta.append(torch.cat(row))
    return torch.stack(theta)


def kept_scale(dropout: float) -> float:
    """Returns what a mask multiplies the units by that it does not drop."""
    # The number that a mask of float32 holds, to the bit, also in doubles.
    return torch.tensor(256 / (256 - round(dropout * 256))).item()


class Dropout:
    """Takes dropout masks as windows of one long row of random units.

    Where a window begins is drawn for each net, layer and step; the row is drawn once.
    Units of one mask are independent; a later mask that has some of the same bits has
    them at other units. The probability is rounded to 1/256; the scale of the other
    units is exact for the rounded value, so the expectation is unchanged.
    """

    def __init__(
        self, probability: float, seed: int, device: torch.device | None = None
    ) -> None:
        self._cut = round(probability * 256)
        self.generator = torch.Generator().manual_seed(seed)
        self._local, self._nets = slice(None), 1
        self._row = torch.zeros(0)
        if self._cut:
            drawn = torch.empty(_MASK_UNITS, dtype=torch.uint8)
            drawn.random_(generator=torch.Generator().manual_seed(seed))
            # Where a window begins is drawn by the processor, on any device.
            self._row = ((drawn >= self._cut) * kept_scale(probability)).to(device)

    def place(self, slots: range, nets: int) -> None:
        """Draws for all nets from now on, and gives the masks of some slots."""
        self._local, self._nets = slice(slots.start, slots.stop), nets

    def masks(self, units: int) -> Sequence[Tensor]:
        """Returns a mask (units,) of each net here, none of them if nothing drops."""
        if self._cut == 0:
            return ()
        # Windows are drawn for all nets, also those of other processes: a net gets the
        # same ones wherever it is computed. Long masks are several windows.
        length = min(units, _MASK_UNITS // 2)
        parts = -(-units // length)
        starts = torch.randint(
            _MASK_UNITS - length, (self._nets, parts), generator=self.generator
        )
        return [
            self._row[net[0] : net[0] + units]
            if parts == 1
            else torch.cat([self._row[s : s + length] for s in net])[:units]
            for net in starts[self._local].tolist()
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x (k, ...) with each unit dropped independently."""
        if self._cut == 0:
            return x
        units = x.numel() if self._nets == 1 else x[0].numel()
        return x * torch.stack([*self.masks(units)]).view(x.shape)


def forward(
    genome: Genome,
    weights: Weights,
    x: Tensor,
    dropout: Dropout | None = None,
    *,
    one_of_several: bool = False,
) -> Tensor:
    """Computes the logits of every head of every net.

    Args:
        genome: the architecture that `weights` belong to.
        weights: stacked tensors of k nets.
        x: encoded rows (k, B, d_in), net by net, or (1, B, d_in) shared by all.
        dropout: draws the masks; None when not training.
        one_of_several: the one net here is one of several, and other processes
            compute the rest.

    Returns:
        Logits (k, heads, B, n_out).
    """
    k, heads = weights["out.bias"].shape[:2]
    x = x.expand(k, -1, -1)
    rows = x.shape[1]
    hidden = x[:, None]
    activation = ACTIVATION[genome.activation]
    for i in range(len(genome.widths)):
        before = hidden
        layer = _layer(weights, f"layer{i}", hidden, one_of_several)
        hidden = net_by_net(activation, layer)
        if dropout is not None:
            hidden = dropout(hidden)
        if genome.residual and before.shape[-1] == hidden.shape[-1]:
            hidden = hidden + before
    # Without a hidden layer all heads read the same rows; the last matrix is per head.
    hidden = hidden.expand(k, heads, rows, hidden.shape[-1]).flatten(0, 1)
    out = _affine(
        weights["out.bias"].flatten(0, 1)[:, None],
        hidden,
        weights["out.weight"].flatten(0, 1),
        one_of_several,
    )
    return out.view(k, heads, rows, -1)


def _affine(bias: Tensor, x: Tensor, matrix: Tensor, one_of_several: bool) -> Tensor:
    """Returns bias + x W of each net, the same bits whichever process computes it."""
    # For a single net with one output the library takes another routine (matrix
    # times vector) than for several, so this net is computed beside itself.
    if one_of_several and len(x) == 1 and matrix.shape[-1] == 1:
        twice = (t.expand(2, -1, -1) for t in (bias, x, matrix))
        return torch.baddbmm(*twice)[:1]
    return torch.baddbmm(bias, x, matrix)


def net_by_net(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Applies a function of each number so that no net's bits depend on the others."""
    # Vector units take `_VECTOR` numbers at a time, and a routine that rounds
    # otherwise takes the rest: nets that do not end on such an edge go one by one.
    if len(values[0]) == 1 or values[0][0].numel() % _VECTOR == 0:
        return function(*values)
    return torch.stack([function(*net) for net in zip(*values, strict=True)])


def _layer(weights: Weights, name: str, x: Tensor, one_of_several: bool) -> Tensor:
    """Maps (k, h or 1, B, d) to (k, h, B, w): s * ((r * x) W) + b."""
    matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    heads, rows = bias.shape[1], x.shape[2]
    if heads == 1:
        return _affine(bias, x[:, 0], matrix, one_of_several)[:, None]
    # Scaling x and the product is the same map as scaling W for each head, without a
    # matrix per head.
    scale_in = weights[f"{name}.scale_in"][:, :, None]
    scale_out = weights[f"{name}.scale_out"][:, :, None]
    product = torch.bmm((x * scale_in).flatten(1, 2), matrix)
    product = product.view(len(product), heads, rows, -1)
    return torch.addcmul(bias[:, :, None], product, scale_out)


def predicted(logits: Tensor) -> Tensor:
    """Returns class codes (...) of head-averaged logits (..., n_out)."""
    # Logit 0 is probability 1/2, which decides for class 1, as the predictor does.
    if logits.shape[-1] == 1:
        return (logits[..., 0] >= 0).to(torch.int64)
    return logits.argmax(-1)


def probability(logits: Tensor, outcome: int) -> Tensor:
    """Returns P(class = outcome) (...) from logits (..., n_out)."""
    if logits.shape[-1] == 1:
        return torch.sigmoid(logits[..., 0] if outcome == 1 else -logits[..., 0])
    return torch.softmax(logits, -1)[..., outcome]


def chances(label: Tensor, n_out: int) -> Tensor:
    """Returns class codes (...) as chances (..., n_out); chances stay what they are."""
    return label if label.is_floating_point() else f.one_hot(label, n_out)


def row_log_losses(logits: Tensor, label: Tensor) -> Tensor:
    """Returns the log loss in nats of each row (n,) from logits (n, n_out)."""
    # Two classes have one logit, that of class 1.
    if logits.shape[1] > 1:
        return f.cross_entropy(logits, label, reduction="none")
    hit = label.to(logits.dtype)
    return f.binary_cross_entropy_with_logits(logits[:, 0], hit, reduction="none")


def log_loss(out: Tensor, label: Tensor) -> float:
    """Returns the mean log loss in nats of logits (n, n_out) on labels (n,)."""
    # Two classes have one logit, that of class 1.
    if out.shape[1] == 1:
        return float(f.binary_cross_entropy_with_logits(out[:, 0], label.to(out.dtype)))
    return float(f.cross_entropy(out, label))
