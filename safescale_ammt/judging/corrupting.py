"""Corrupting: which corruption each judged image meets, and what it does.

    noise       + N(0, s^2)                               s .08, .16, .24
    shot        + N(0, x / photons)                       photons 60, 25, 12
    impulse     black or white pixels, a share            .03, .09, .17
    blur        binomial smoothing, deviation in pixels   .7, 1, 1.4 of 28
    contrast    mean + c (x - mean)                       c .6, .4, .2
    brightness  + b                                       b .1, .2, .3
    rotate      by degrees, to either side                10, 20, 30
    translate   along both axes, to either side           1/14, 2/14, 3/14 of a side

Pixels are in [0, 1] there; what leaves the range is cut, and the result is bytes again,
so that any model that reads images is asked as ever. Where pixels are missing the
border's are repeated. An image's lot follows from the sealed rows' digest and its own
bytes: neither other images nor the model have a say. Sums, products, quotients and
roots alone are computed, which IEEE 754 rounds: the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.constitution.corruptions import SEVERITIES, Corruptions
from safescale_ammt.judging.drawn_rows import lots_of

Images = NDArray[np.float64]
"""Pixels from 0 to 255 (n, channels, height, width)."""
RIGHT, WRONG = "right under ", "wrong under "
"""Before the corruption, in words of evidence."""
NOISE, PHOTONS, SHARE = (0.08, 0.16, 0.24), (60, 25, 12), (0.03, 0.09, 0.17)
PASSES, CONTRAST, BRIGHTER = (1, 2, 4), (0.6, 0.4, 0.2), (0.1, 0.2, 0.3)
DEGREES = (
    (0.984807753012208, 0.17364817766693033),
    (0.9396926207859084, 0.3420201433256687),
    (0.8660254037844387, 0.5),
)
"""Cosine and sine of 10, 20 and 30 degrees."""
FOURTEENTHS = (1, 2, 3)
_TERMS = 12
"""Uniform numbers whose sum, less its mean, has variance 1: within 6 deviations it is
the normal law's to a hundredth (Irwin and Hall)."""


def drawn_corruptions(
    corruptions: Corruptions, holdout: str, rows: NDArray[np.void]
) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Draws which corruption each row meets.

    Args:
        corruptions: that there are.
        holdout: identity digest of the holdout.
        rows: raw-row hashes, (n,) of 16 bytes each or (n, 16) uint8.

    Returns:
        Numbers into `corruptions.each()` (n,), and the lots (n,) of 32 bytes that the
        corruptions themselves are drawn by.
    """
    # Two promises on one image are not to meet the same: the key is part of the lot.
    lots = lots_of(f"{holdout} {corruptions.key}", rows)
    count = len(corruptions.kinds) * len(SEVERITIES)
    # Of 2^64 lots one more or less falls to each: no corruption is more likely.
    first = np.ascontiguousarray(lots).view(np.uint64).reshape(len(lots), -1)[:, 0]
    return (first.astype("<u8") % np.uint64(count)).astype(np.int64), lots


def words_of(corruptions: Corruptions) -> tuple[str, ...]:
    """Returns the outcomes in words: of corruption i those of codes 2 i and 2 i + 1."""
    names = [f"{kind} {severity}" for kind, severity in corruptions.each()]
    return tuple(word + name for name in names for word in (RIGHT, WRONG))


def corruptions_in(words: Sequence[str]) -> Corruptions | None:
    """Returns the corruptions that outcomes in words are of, None of other words."""
    named = [
        word.removeprefix(RIGHT).split()[:1] for word in words[:: 2 * len(SEVERITIES)]
    ]
    found = Corruptions(tuple(name for each in named for name in each))
    return found if words and words_of(found) == tuple(words) else None


def corrupted(
    images: NDArray[np.uint8],
    numbers: NDArray[np.int64],
    lots: NDArray[np.void],
    corruptions: Corruptions,
) -> NDArray[np.uint8]:
    """Corrupts images, each as its number says and by its own lot.

    Args:
        images: bytes (n, channels, height, width).
        numbers: into `corruptions.each()` (n,).
        lots: 32 bytes each (n,).
        corruptions: that the numbers are of.
    """
    out = np.empty_like(images)
    # All that meet the same at once; none of them has a say in another's bytes.
    for number, (kind, severity) in enumerate(corruptions.each()):
        at = np.flatnonzero(numbers == number)
        if len(at):
            own = [lot.tobytes() for lot in lots[at]]
            x = images[at].astype(np.float64)
            changed = _CORRUPT[kind](x, SEVERITIES.index(severity), own)
            out[at] = np.clip(np.floor(changed + 0.5), 0, 255).astype(np.uint8)
    return out


def uniform(lots: Sequence[bytes], count: int) -> NDArray[np.float64]:
    """Returns numbers in (0, 1) that follow from each lot (lots, count)."""
    # SHAKE is a standard: no version of a library gives other numbers.
    drawn = b"".join(hashlib.shake_256(lot).digest(2 * count) for lot in lots)
    whole = np.frombuffer(drawn, "<u2").reshape(len(lots), count)
    return (whole + 0.5) / 65536


def normal(lots: Sequence[bytes], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Returns numbers of mean 0 and deviation 1, by lot (lots, *shape)."""
    count = int(np.prod(shape))
    drawn = uniform(lots, _TERMS * count).reshape(len(lots), _TERMS, count)
    total = np.zeros((len(lots), count))
    # Term by term: a sum of so many could be added in another order elsewhere.
    for term in range(_TERMS):
        total += drawn[:, term]
    return (total - _TERMS / 2).reshape(len(lots), *shape)


def noise(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Adds noise of one deviation."""
    return x + 255 * NOISE[at] * normal(lots, x.shape[1:])


def shot(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Adds the noise of counted photons, by their normal law."""
    return x + np.sqrt(x * (255 / PHOTONS[at])) * normal(lots, x.shape[1:])


def impulse(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Turns a share of the pixels black or white, all channels of each."""
    _, channels, height, width = x.shape
    drawn = uniform(lots, height * width).reshape(len(x), 1, height, width)
    # A dead pixel is dead in all colours.
    drawn = np.repeat(drawn, channels, 1)
    half = SHARE[at] / 2
    return np.where(drawn < half, 0.0, np.where(drawn > 1 - half, 255.0, x))


def blur(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Smooths by (1, 2, 1) / 4 along both axes, more often in larger images."""
    del lots
    size = min(x.shape[2:]) / 28
    for _ in range(max(at + 1, round(PASSES[at] * size * size))):
        for axis in (2, 3):
            pad = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
            # Pixels of the border once more: a dark margin would darken the image.
            padded = np.moveaxis(np.pad(x, pad, "edge"), axis, 0)
            smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
            x = np.asarray(np.moveaxis(smooth, 0, axis))
    return x


def contrast(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Draws pixels toward the image's mean."""
    del lots
    # Whole numbers: exact in any order.
    mean = x.sum((1, 2, 3), keepdims=True) / x[0].size
    return np.asarray(mean + CONTRAST[at] * (x - mean))


def brightness(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Adds a share of the range."""
    del lots
    return x + 255 * BRIGHTER[at]


def rotate(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Turns about the centre, to a side by lot, between the nearest four pixels."""
    cosine, sine = DEGREES[at]
    _, _, height, width = x.shape
    down, right = np.indices((height, width), np.float64)
    down -= (height - 1) / 2
    right -= (width - 1) / 2
    out = np.empty_like(x)
    for i, side in enumerate(_sides(lots, 1)[:, 0]):
        # Where each pixel of the result comes from: the turn backwards.
        rows = cosine * down + side * sine * right + (height - 1) / 2
        columns = cosine * right - side * sine * down + (width - 1) / 2
        out[i] = between(x[i], rows, columns)
    return out


def translate(x: Images, at: int, lots: Sequence[bytes]) -> Images:
    """Moves along both axes by whole pixels, to either side by lot."""
    _, _, height, width = x.shape
    rows, columns = np.arange(height), np.arange(width)
    out = np.empty_like(x)
    for i, (vertical, horizontal) in enumerate(_sides(lots, 2)):
        far = [max(1, round(FOURTEENTHS[at] * n / 14)) for n in (height, width)]
        # Rows beyond the border are the border's.
        own_rows = np.clip(rows - vertical * far[0], 0, height - 1)
        own_columns = np.clip(columns - horizontal * far[1], 0, width - 1)
        out[i] = x[i][:, own_rows][:, :, own_columns]
    return out


def _sides(lots: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """Returns -1 or 1 (lots, count), by lot."""
    return np.where(uniform(lots, count) < 0.5, -1, 1)


def between(
    image: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]
) -> NDArray[Any]:
    """Returns what lies at points between pixels (channels, height, width)."""
    _, height, width = image.shape
    rows, columns = (
        np.clip(at, 0, size - 1) for at, size in ((rows, height), (columns, width))
    )
    # A point on a pixel has that one twice, with weights 1 and 0.
    above, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    below = np.minimum(above + 1, height - 1)
    beside = np.minimum(left + 1, width - 1)
    down, right = rows - above, columns - left
    upper = image[:, above, left] * (1 - right) + image[:, above, beside] * right
    lower = image[:, below, left] * (1 - right) + image[:, below, beside] * right
    return np.asarray(upper * (1 - down) + lower * down)


_CORRUPT: dict[str, Callable[[Images, int, Sequence[bytes]], Images]] = {
    "noise": noise,
    "shot": shot,
    "impulse": impulse,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "rotate": rotate,
    "translate": translate,
}
