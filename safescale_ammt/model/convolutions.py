"""Convolutions and pooling with numpy, the same bits on every machine.

Images are rounded to a grid once, bits below their own largest number, and a kernel's
outputs likewise, so that every sum of products is exact, whichever library adds it
(`arithmetic`). A convolution is then windows of the images times a matrix. Where each
channel is a group, and in pools, windows are added place by place, in their order.

Operators take the arguments of torch's own schema, over any number of axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from safescale_ammt.errors import InputError
from safescale_ammt.model.arithmetic import PIECE, Product, on_grid, plain

_AT_ONCE = 1 << 21
"""Numbers of windows that are made at once, 16 MiB: a cache holds few more."""
MOST_NUMBERS = 1 << 26
"""Numbers of one result, as of any operator."""


class Kernel:
    """A convolution's weights, made ready once for all rows.

    Args:
        weight: (outputs, channels of a group, ...).
    """

    def __init__(self, weight: Any) -> None:
        self.weight = np.asarray(weight, np.float64)
        self._products: dict[int, list[list[Product]]] = {}

    def products(self, groups: int) -> list[list[Product]]:
        """Returns what multiplies windows, group by group and piece by piece."""
        # The groups are known when the operator is called, and not before.
        if groups not in self._products:
            found = []
            for own in np.split(self.weight, groups):
                matrix = own.reshape(len(own), -1).T
                starts = range(0, len(matrix), PIECE)
                # No more inputs than whose products a double adds exactly.
                pieces = (on_grid(matrix[at : at + PIECE], 0) for at in starts)
                found.append([plain(piece) for piece in pieces])
            self._products[groups] = found
        return self._products[groups]


def convolution(  # noqa: PLR0917  as torch's schema has them
    x: Any,
    kernel: Any | Kernel,
    bias: Any | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    """Returns a convolution of images (n, channels, ...).

    Raises:
        InputError: a transposed one, or a result that is too large.
    """
    del output_padding
    if transposed:
        raise InputError(
            "A transposed convolution has no form without torch here; an upsampling "
            "and a convolution have one."
        )
    kernel = kernel if isinstance(kernel, Kernel) else Kernel(kernel)
    weight, axes = kernel.weight, weight_axes(kernel.weight)
    sides = [(0, 0), (0, 0), *((p, p) for p in spread(padding, axes))]
    check_room([n + low + high for n, (low, high) in zip(x.shape, sides, strict=True)])
    # Rounded before it is cut into windows, which share most of their numbers.
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    grid = on_grid(flat, 1).reshape(x.shape)
    # A product for each of many groups would take longer than its numbers.
    apart = weight.shape[1] == 1 and groups > 1
    padded = np.pad(x if apart else grid, sides)
    taken = windows(
        padded, weight.shape[2:], spread(stride, axes), spread(dilation, axes)
    )
    shape = (len(x), len(weight), *taken.shape[2 : 2 + axes])
    check_room(shape)
    if apart:
        out = by_channel(taken, weight, groups)
    else:
        out = np.empty(shape)
        for group, pieces in enumerate(kernel.products(groups)):
            wide, deep = len(weight) // groups, weight.shape[1]
            own = taken[:, group * deep : (group + 1) * deep]
            out[:, group * wide : (group + 1) * wide] = multiplied(own, pieces, axes)
    return out if bias is None else out + bias.reshape(-1, *[1] * axes)


def weight_axes(weight: Any) -> int:
    """Returns how many axes a kernel moves along."""
    return int(weight.ndim) - 2


def spread(values: Sequence[int] | int, axes: int) -> tuple[int, ...]:
    """Returns a number for each axis; one alone is that of all."""
    given = (values,) if isinstance(values, int) else tuple(values)
    return given * axes if len(given) == 1 else given


def windows(
    x: Any,
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Any:
    """Returns a view of all windows (n, channels, places ..., size ...)."""
    axes = tuple(range(2, x.ndim))
    far = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    # A view: windows share their numbers until they are made a matrix.
    view = np.lib.stride_tricks.sliding_window_view(x, far, axis=axes)
    steps = [slice(None, None, s) for s in stride]
    inside = [slice(None, None, d) for d in dilation]
    return view[(slice(None), slice(None), *steps, *inside)]


def multiplied(taken: Any, pieces: Sequence[Product], axes: int) -> Any:
    """Multiplies windows by a matrix (n, outputs, places ...), some rows at a time."""
    n, channels = taken.shape[:2]
    places, size = taken.shape[2 : 2 + axes], taken.shape[2 + axes :]
    order = (0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
    inputs = channels * math.prod(size)
    # Windows are many times their images, so that few images are cut at once.
    step = max(1, _AT_ONCE // max(1, inputs * math.prod(places)))
    parts = []
    for at in range(0, max(n, 1), step):
        own = taken[at : at + step]
        flat = own.transpose(order).reshape(-1, inputs)
        found = reduce(
            np.add,
            (
                piece(flat[:, first : first + PIECE])
                for first, piece in zip(range(0, inputs, PIECE), pieces, strict=True)
            ),
        )
        parts.append(
            np.moveaxis(found.reshape(len(own), *places, found.shape[1]), -1, 1)
        )
    return np.concatenate(parts)


def by_channel(taken: Any, weight: Any, groups: int) -> Any:
    """Convolves each channel by kernels of its own, added place by place."""
    axes = weight_axes(weight)
    times = len(weight) // groups
    out = np.zeros((len(taken), len(weight), *taken.shape[2 : 2 + axes]))
    # Added in the order of the places: no library has a say in it.
    for place in product(*map(range, weight.shape[2:])):
        own = np.repeat(taken[(..., *place)], times, 1)
        out += own * weight[(slice(None), 0, *place)].reshape(-1, *[1] * axes)
    return out


def pooled_places(
    x: Any,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    *,
    fill: float,
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> Iterator[Any]:
    """Yields what lies at each place of the windows (..., places ...), in order.

    Args:
        x: images; pools are taken of the last axes.
        size: of a window.
        stride: between windows; none is their size.
        padding: on either side.
        fill: what stands there, and beyond.
        dilation: between places of a window.
        ceil: whether a last window may reach beyond the margin.
    """
    axes = len(size)
    stride = spread(stride or size, axes)
    padding, dilation = spread(padding, axes), spread(dilation, axes)
    counts, sides = [], [(0, 0)] * (x.ndim - axes)
    for n, k, s, p, d in zip(
        x.shape[-axes:], size, stride, padding, dilation, strict=True
    ):
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil else room // s) + 1
        # A window that began in the margin would hold nothing (torch).
        count -= ceil and (count - 1) * s >= n + p
        counts.append(count)
        sides.append((p, max(p, (count - 1) * s + d * (k - 1) + 1 - n - p)))
    check_room((*x.shape[:-axes], *counts))
    check_room([n + low + high for n, (low, high) in zip(x.shape, sides, strict=True)])
    # What is beyond counts nothing: 0 in a sum, the least number in a maximum.
    padded = np.pad(x, sides, constant_values=fill)
    for place in product(*map(range, size)):
        where: Any = [
            slice(i * d, i * d + (count - 1) * s + 1, s)
            for i, d, s, count in zip(place, dilation, stride, counts, strict=True)
        ]
        yield padded[(..., *where)]


def max_pool(  # noqa: PLR0917  as torch's schema has them
    x: Any,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> tuple[Any]:
    """Returns the largest number of each window."""
    places = pooled_places(
        x, size, stride, padding, fill=-math.inf, dilation=dilation, ceil=ceil
    )
    return (reduce(np.maximum, places),)


def average_pool(  # noqa: PLR0917  as torch's schema has them
    x: Any,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:
    """Returns the mean of each window; of one at the border torch counts the margin."""
    total = reduce(np.add, pooled_places(x, size, stride, padding, fill=0.0, ceil=ceil))
    # Whoever names a divisor divides every window by it, those at the border too.
    if divisor:
        return np.asarray(total / divisor)
    axes = len(size)
    counted = np.ones(x.shape[-axes:])
    if count_include_pad:
        # The margin counts, and not what a last window has beyond it.
        counted = np.pad(counted, [(p, p) for p in spread(padding, axes)], "edge")
        padding = (0,)
    each = pooled_places(counted, size, stride, padding, fill=0.0, ceil=ceil)
    count = reduce(np.add, each)
    places = tuple(slice(n) for n in total.shape[-axes:])
    return np.asarray(total / count[places])


def adaptive(
    function: Callable[[Sequence[Any]], Any],
) -> Callable[[Any, Sequence[int]], Any]:
    """Returns a pool to a given number of places; windows are as long as they come.

    Args:
        function: of the numbers of a window, place by place.
    """

    def pool(x: Any, size: Sequence[int]) -> Any:
        first = x.ndim - len(size)
        for axis, count in enumerate(size, first):
            n = x.shape[axis]
            parts = []
            # Windows overlap by one where the axis is no multiple of their number.
            for i in range(count):
                begin, end = i * n // count, -(-(i + 1) * n // count)
                own = [x.take(place, axis) for place in range(begin, end)]
                parts.append(function(own))
            x = np.stack(parts, axis)
        return x

    return pool


average_to = adaptive(lambda own: np.asarray(reduce(np.add, own) / len(own)))
largest_to = adaptive(lambda own: np.asarray(reduce(np.maximum, own)))


def nearest(x: Any, size: Sequence[int] | None, factors: Sequence[float] | None) -> Any:
    """Returns images of another size, each pixel that of the nearest place."""
    for axis, (count, scale) in enumerate(scales(x, size, factors), 2):
        at = np.floor(np.arange(count) * scale).astype(int)
        # A factor that is no whole number may round to a place beyond the last.
        x = x.take(np.minimum(at, x.shape[axis] - 1), axis)
    return x


def linear(
    x: Any,
    size: Sequence[int] | None,
    corners: bool,
    factors: Sequence[float] | None,
) -> Any:
    """Returns images of another size, between the pixels around each place."""
    for axis, (count, scale) in enumerate(scales(x, size, factors), 2):
        n = x.shape[axis]
        if corners:
            at = np.arange(count) * ((n - 1) / max(count - 1, 1))
        else:
            # Pixels are areas, whose centres are half a pixel in (torch).
            at = np.maximum((np.arange(count) + 0.5) * scale - 0.5, 0.0)
        low = np.minimum(np.floor(at).astype(int), n - 1)
        high = np.minimum(low + 1, n - 1)
        share = (at - low).reshape(-1, *[1] * (x.ndim - 1 - axis))
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


def scales(
    x: Any, size: Sequence[int] | None, factors: Sequence[float] | None
) -> list[tuple[int, float]]:
    """Returns how many places an axis gets, and how far apart they are."""
    own = x.shape[2:]
    if factors is not None:
        found = [(math.floor(n * f), 1 / f) for n, f in zip(own, factors, strict=True)]
    else:
        assert size is not None
        found = [(count, n / count) for n, count in zip(own, size, strict=True)]
    check_room((*x.shape[:2], *(count for count, _ in found)))
    return found


def check_room(shape: Sequence[int]) -> None:
    """Refuses a result that is too large, as a foreign program may ask for.

    Raises:
        InputError: it is.
    """
    if math.prod(shape) > MOST_NUMBERS:
        raise InputError(
            f"A step of the program makes {math.prod(shape)} numbers, at most "
            f"{MOST_NUMBERS} are computed at once."
        )
