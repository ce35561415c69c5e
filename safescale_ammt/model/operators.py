"""Operators of torch with numpy, in double precision: what a program may call.

Matrices multiply as those of a genome do (`arithmetic.exact`); a product of two things
that both depend on the row, and every sum, is added from the first number to the last.
So a row has the same bits on every machine, whichever library computes.

An operator takes the arguments of torch's own schema in its order, defaults filled in.
Where a tensor lies (device, layout, memory format) is left out at tracing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from safescale_ammt.errors import InputError
from safescale_ammt.model import convolutions, functions
from safescale_ammt.model.arithmetic import (
    exact,
    exp,
    in_order,
    relu,
    sigmoid,
    silu,
    tanh,
)

MOST_NUMBERS = 1 << 26
"""Numbers of one result, half a GiB: a foreign program may not ask for more."""
TYPES: Mapping[str, Any] = {"float": np.float64, "int": np.int64, "bool": np.bool_}
"""Types of numbers by their names in a program; every floating one is a double."""


def room(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Returns the common shape of operands.

    Raises:
        InputError: a result of it would be larger than `MOST_NUMBERS`.
    """
    shape = np.broadcast_shapes(*map(tuple, shapes))
    if math.prod(shape) > MOST_NUMBERS:
        raise InputError(
            f"A step of the program makes {math.prod(shape)} numbers, at most "
            f"{MOST_NUMBERS} are computed at once."
        )
    return tuple(shape)


def both(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of two operands that have room together."""

    def of_both(a: Any, b: Any, *rest: Any) -> Any:
        room(np.shape(a), np.shape(b))
        return function(a, b, *rest)

    return of_both


def axes_of(x: Any, dims: Sequence[int] | int | None) -> tuple[int, ...]:
    """Returns axes as numbers from 0, in their order; none named is all."""
    named = (dims,) if isinstance(dims, int) else tuple(dims or ())
    return tuple(sorted({d % x.ndim for d in named})) or tuple(range(x.ndim))


def total(
    x: Any,
    dims: Sequence[int] | int | None = None,
    keep: bool = False,
    kind: str | None = None,
) -> Any:
    """Returns sums over axes, added from the first number to the last."""
    if kind is not None or x.dtype == np.bool_:
        x = x.astype(TYPES[kind or "int"])
    axes = axes_of(x, dims)
    rest = [a for a in range(x.ndim) if a not in axes]
    shape = [x.shape[a] for a in rest]
    rows = x.transpose(*rest, *axes).reshape(math.prod(shape), -1)
    found = in_order(rows) if rows.shape[1] else np.zeros(len(rows))
    kept = [1 if a in axes else n for a, n in enumerate(x.shape)]
    return np.asarray(found).reshape(kept if keep else shape)


def mean(
    x: Any,
    dims: Sequence[int] | int | None = None,
    keep: bool = False,
    kind: str | None = None,
) -> Any:
    """Returns means over axes."""
    count = math.prod(x.shape[a] for a in axes_of(x, dims))
    return total(x, dims, keep, kind) / count


def variance(
    x: Any, dims: Sequence[int] | None, correction: float | None, keep: bool
) -> Any:
    """Returns variances over axes."""
    away = x - mean(x, dims, True)
    count = math.prod(x.shape[a] for a in axes_of(x, dims))
    less = 1.0 if correction is None else correction
    return total(away * away, dims, keep) / (count - less)


def length(
    x: Any, order: float = 2, dims: Any = None, keep: bool = False, kind: Any = None
) -> Any:
    """Returns lengths over axes, of the order 1, 2 or infinity.

    Raises:
        ValueError: another order.
    """
    x = np.abs(converted(x, kind))
    if order == math.inf:
        return largest(x, dims, keep)
    if order not in (1, 2):
        raise ValueError(f"a length of order {order}")
    return total(x, dims, keep) if order == 1 else np.sqrt(total(x * x, dims, keep))


def softmax_over(x: Any, dim: int, half: bool = False, *, log: bool = False) -> Any:
    """Returns the softmax over an axis, or its logarithm."""
    del half
    away = x - x.max(dim, keepdims=True)
    part = exp(away)
    whole = total(part, dim, True)
    return away - functions.log_of(whole) if log else part / whole


def normalised(
    x: Any, axes: Sequence[int], weight: Any, bias: Any, epsilon: float
) -> Any:
    """Returns x with mean 0 and variance 1 over axes, scaled and moved."""
    away = x - mean(x, axes, True)
    found = away / np.sqrt(mean(away * away, axes, True) + epsilon)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


def layer_norm(
    x: Any, shape: Sequence[int], weight: Any, bias: Any, epsilon: float
) -> tuple[Any]:
    """Returns layer norm over the last axes (Ba, Kiros & Hinton 2016)."""
    axes = range(x.ndim - len(shape), x.ndim)
    return (normalised(x, axes, weight, bias, epsilon),)


def group_norm(  # noqa: PLR0917  as torch's schema has them
    x: Any,
    weight: Any,
    bias: Any,
    rows: int,
    channels: int,
    rest: int,
    groups: int,
    epsilon: float,
) -> tuple[Any]:
    """Returns group norm (Wu & He 2018)."""
    del rest
    parts = x.reshape(rows, groups, -1)
    found = normalised(parts, (2,), None, None, epsilon).reshape(x.shape)
    shape = [1, channels, *[1] * (x.ndim - 2)]
    found = found if weight is None else found * weight.reshape(shape)
    return (found if bias is None else found + bias.reshape(shape),)


def batch_norm(  # noqa: PLR0917  as torch's schema has them
    x: Any,
    weight: Any,
    bias: Any,
    means: Any,
    variances: Any,
    momentum: float,
    epsilon: float,
) -> tuple[Any]:
    """Returns batch norm by the statistics that were kept (Ioffe & Szegedy 2015)."""
    del momentum
    shape = [1, -1, *[1] * (x.ndim - 2)]
    scale = 1.0 / np.sqrt(variances + epsilon)
    found = (x - means.reshape(shape)) * scale.reshape(shape)
    found = found if weight is None else found * weight.reshape(shape)
    return (found if bias is None else found + bias.reshape(shape),)


def instance_norm(  # noqa: PLR0917  as torch's schema has them
    x: Any, weight: Any, bias: Any, training: bool, momentum: float, epsilon: float
) -> tuple[Any]:
    """Returns batch norm by the statistics of what is given, as instance norm asks."""
    del training, momentum
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    scale, move = (
        None if each is None else each.reshape(shape) for each in (weight, bias)
    )
    return (normalised(x, axes, scale, move, epsilon),)


def times(rows: Any, matrix: Any) -> Any:
    """Multiplies rows (n, d) by a matrix (d, m), or by what multiplies by one."""
    return matrix(rows) if callable(matrix) else exact(matrix)(rows)


def plus_times(
    bias: Any, rows: Any, matrix: Any, beta: float = 1, alpha: float = 1
) -> Any:
    """Returns beta bias + alpha rows times matrix."""
    product = times(rows, matrix)
    product = product if alpha == 1 else alpha * product
    return (bias if beta == 1 else beta * bias) + product


def times_each(a: Any, b: Any) -> Any:
    """Multiplies matrices (k, n, d) by matrices (k, d, m), inputs in their order."""
    room((len(a), a.shape[1], b.shape[2]))
    parts = (a[:, :, i, None] * b[:, i, None, :] for i in range(a.shape[2]))
    return reduce(np.add, parts)


def cut(x: Any, dim: int, start: int | None, end: int | None, step: int) -> Any:
    """Returns a slice along an axis."""
    where = [slice(None)] * x.ndim
    where[dim] = slice(start, end, step)
    return x[tuple(where)]


def expand(x: Any, shape: Sequence[int], implicit: bool = False) -> Any:
    """Returns x repeated along axes of length 1; -1 leaves an axis as it is."""
    del implicit
    own = (1,) * (len(shape) - x.ndim) + x.shape
    full = [n if wanted == -1 else wanted for wanted, n in zip(shape, own, strict=True)]
    return np.broadcast_to(x, room(full))


def view(x: Any, shape: Sequence[int]) -> Any:
    """Returns the numbers of x in another shape."""
    return x.reshape(tuple(shape))


def squeeze(x: Any, dims: Sequence[int] | int | None = None) -> Any:
    """Returns x without axes of length 1, of those named."""
    return x.squeeze(tuple(a for a in axes_of(x, dims) if x.shape[a] == 1))


def pieces(x: Any, sizes: Sequence[int] | int, dim: int = 0) -> list[Any]:
    """Returns parts of given sizes, or of one size, along an axis."""
    if isinstance(sizes, int):
        return np.split(x, range(sizes, x.shape[dim], sizes), dim)
    return np.split(x, np.cumsum(sizes)[:-1], dim)


def pick(x: Any, dim: int, index: Any) -> Any:
    """Returns entries along an axis by their numbers.

    Raises:
        InputError: a number beyond the axis, or below 0.
    """
    if index.size and not 0 <= index.min() <= index.max() < x.shape[dim]:
        raise InputError(
            f"A row asks for entries {index.min()} to {index.max()} of a table of "
            f"{x.shape[dim]}."
        )
    room([*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]])
    return x.take(index, dim)


def at(x: Any, indices: Sequence[Any]) -> Any:
    """Returns entries by numbers along axes; None is a whole axis."""
    named = [i for i, index in enumerate(indices) if index is not None]
    if len(named) != 1 or indices[named[0]].dtype == np.bool_:
        raise ValueError("entries by numbers along one axis alone")
    dim = named[0]
    index = indices[dim]
    return pick(x, dim, np.where(index < 0, index + x.shape[dim], index))


def pad(x: Any, widths: Sequence[int], value: float = 0.0) -> Any:
    """Returns x with a margin, the last axis named first."""
    sides = [(0, 0)] * x.ndim
    for i in range(len(widths) // 2):
        sides[x.ndim - 1 - i] = (widths[2 * i], widths[2 * i + 1])
    if min(map(min, sides)) < 0:
        raise ValueError("a margin below 0")
    room([n + low + high for n, (low, high) in zip(x.shape, sides, strict=True)])
    return np.pad(x, sides, constant_values=value)


def full(shape: Sequence[int], value: float, kind: str | None = None) -> Any:
    """Returns an array of one number."""
    return np.full(room(shape), value, TYPES[kind or "float"])


def steps(start: float, end: float, step: float, kind: str | None = None) -> Any:
    """Returns numbers from a start, below an end."""
    count = max(0, math.ceil((end - start) / step))
    return (start + step * np.arange(*room((count,)))).astype(TYPES[kind or "int"])


def converted(x: Any, kind: str | None = None, *_: Any) -> Any:
    """Returns x as numbers of another type; a fraction is cut off towards 0."""
    return x if kind is None else x.astype(TYPES[kind])


def clamp(x: Any, least: Any = None, most: Any = None) -> Any:
    """Returns x between two bounds."""
    x = x if least is None else np.maximum(x, least)
    return x if most is None else np.minimum(x, most)


def elu(x: Any, alpha: float = 1, scale: float = 1, inner: float = 1) -> Any:
    """Returns ELU (Clevert, Unterthiner & Hochreiter 2016)."""
    below = alpha * (exp(inner * np.minimum(x, 0.0)) - 1.0)
    return scale * np.where(x > 0, x, below)


def best(x: Any, dim: int | None = None, keep: bool = False) -> Any:
    """Returns the numbers of the largest entries along an axis."""
    if dim is None:
        return np.asarray(x.argmax())
    return x.argmax(dim, keepdims=keep)


def largest(x: Any, dims: Any = (), keep: bool = False) -> Any:
    """Returns the largest entries along axes."""
    return x.max(axes_of(x, dims), keepdims=keep)


def smallest(x: Any, dims: Any = (), keep: bool = False) -> Any:
    """Returns the smallest entries along axes."""
    return x.min(axes_of(x, dims), keepdims=keep)


def chosen(condition: Any, a: Any, b: Any) -> Any:
    """Returns a where a condition holds, else b."""
    room(np.shape(condition), np.shape(a), np.shape(b))
    return np.where(condition, a, b)


def unchanged(x: Any, *_: Any) -> Any:
    """Returns x: what says only where a tensor lies changes nothing."""
    return x


_BINARY: dict[str, Callable[..., Any]] = {
    "add": lambda a, b, alpha=1: a + (b if alpha == 1 else alpha * b),
    "sub": lambda a, b, alpha=1: a - (b if alpha == 1 else alpha * b),
    "rsub": lambda a, b, alpha=1: b - (a if alpha == 1 else alpha * a),
    "mul": np.multiply,
    "div": np.divide,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
OPERATORS: dict[str, Callable[..., Any]] = {
    **{
        f"{name}.{form}": both(function)
        for name, function in _BINARY.items()
        for form in ("Tensor", "Scalar")
    },
    "maximum": both(np.maximum),
    "minimum": both(np.minimum),
    "pow.Tensor_Scalar": lambda x, n: functions.power(x, float(n)),
    "logical_and": both(np.logical_and),
    "logical_or": both(np.logical_or),
    "logical_not": np.logical_not,
    "bitwise_and.Tensor": both(np.bitwise_and),
    "bitwise_or.Tensor": both(np.bitwise_or),
    "bitwise_not": np.invert,
    "where.self": chosen,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "reciprocal": lambda x: 1.0 / x,
    "exp": functions.exp_of,
    "log": functions.log_of,
    "log1p": functions.log1p,
    "erf": functions.erf,
    "sin": functions.sine,
    "cos": lambda x: functions.sine(x, 1),
    "tanh": tanh,
    "sigmoid": sigmoid,
    "relu": relu,
    "silu": silu,
    "gelu": functions.gelu_of,
    "elu": elu,
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "clamp": clamp,
    "hardtanh": lambda x, least=-1, most=1: clamp(x, least, most),
    "isnan": np.isnan,
    "isinf": np.isinf,
    "sum.dim_IntList": total,
    "sum": lambda x, kind=None: total(x, kind=kind),
    "mean.dim": mean,
    "mean": lambda x, kind=None: mean(x, kind=kind),
    "var.correction": variance,
    "linalg_vector_norm": length,
    "amax": largest,
    "amin": smallest,
    "max.dim": lambda x, d, keep=False: (largest(x, d, keep), best(x, d, keep)),
    "argmax": best,
    "any.dim": lambda x, dim, keep=False: x.any(dim, keepdims=keep),
    "any": lambda x: x.any(),
    "_softmax": softmax_over,
    "_log_softmax": lambda x, dim, half=False: softmax_over(x, dim, half, log=True),
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "_native_batch_norm_legit.no_stats": instance_norm,
    "convolution": convolutions.convolution,
    "max_pool2d_with_indices": convolutions.max_pool,
    "max_pool3d_with_indices": convolutions.max_pool,
    "avg_pool2d": convolutions.average_pool,
    "avg_pool3d": convolutions.average_pool,
    "_adaptive_avg_pool2d": convolutions.average_to,
    "_adaptive_avg_pool3d": convolutions.average_to,
    "adaptive_max_pool2d": lambda x, size: (convolutions.largest_to(x, size),),
    "adaptive_max_pool3d": lambda x, size: (convolutions.largest_to(x, size),),
    "upsample_nearest1d.vec": convolutions.nearest,
    "upsample_nearest2d.vec": convolutions.nearest,
    "upsample_linear1d.vec": convolutions.linear,
    "upsample_bilinear2d.vec": convolutions.linear,
    "mm": times,
    "addmm": plus_times,
    "bmm": times_each,
    "view": view,
    "_unsafe_view": view,
    "reshape": view,
    "expand": expand,
    "permute": lambda x, dims: x.transpose(dims),
    "transpose.int": np.swapaxes,
    "t": np.transpose,
    "unsqueeze": np.expand_dims,
    "squeeze": squeeze,
    "squeeze.dim": squeeze,
    "squeeze.dims": squeeze,
    "select.int": lambda x, dim, i: x.take(i, dim),
    "slice.Tensor": cut,
    "cat": lambda parts, dim=0: np.concatenate(parts, dim),
    "stack": lambda parts, dim=0: np.stack(parts, dim),
    "split_with_sizes": pieces,
    "split.Tensor": pieces,
    "unbind.int": lambda x, dim=0: list(np.moveaxis(x, dim, 0)),
    "getitem": lambda parts, i: parts[i],
    "flip": np.flip,
    "index_select": pick,
    "index.Tensor": at,
    "embedding": lambda table, index, *_: pick(table, 0, index),
    "constant_pad_nd": pad,
    "full": full,
    "arange.start_step": steps,
    "full_like": lambda x, value, kind=None: full(x.shape, value, kind),
    "scalar_tensor": lambda value, kind=None: full((), value, kind),
    "_to_copy": converted,
    "clone": unchanged,
    "alias": unchanged,
    "detach": unchanged,
    "lift_fresh_copy": unchanged,
}
"""Torch's name of an operator, `.default` left out -> what computes it."""
PREPARED: Mapping[str, tuple[int, Callable[[Any], Any]]] = {
    "mm": (1, exact),
    "addmm": (2, exact),
    "convolution": (1, convolutions.Kernel),
}
"""Operator -> place of its matrix, and what prepares it where no row changes it."""
