"""Images as cells of a table: a short text of their size and a hash of their bytes.

Raw rows are columns of texts, which are hashed, compared and placed as such. The text
of an image is canonical: equal images have one, from any form of file, so that they
are known again and lie on one side. The bytes go beside it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]
"""Channels, height and width."""
_CELL = re.compile(r"image:([1-9]\d*)x([1-9]\d*)x([1-9]\d*):[0-9a-f]{64}")
Contents = Mapping[str, bytes]
"""The bytes of each image, by its cell."""


def cells_of_images(pixels: NDArray[np.uint8]) -> tuple[list[str], dict[str, bytes]]:
    """Returns the cell of each image, and the bytes that these stand for.

    Args:
        pixels: (n, channels, height, width).
    """
    head = "image:" + "x".join(map(str, pixels.shape[1:])) + ":"
    contents: dict[str, bytes] = {}
    cells = []
    for image in pixels:
        # In C's order whatever the array's: one image has one text.
        data = image.tobytes()
        cells.append(cell := head + hashlib.sha256(data).hexdigest())
        contents.setdefault(cell, data)
    return cells, contents


def cell_shape(text: str) -> Shape | None:
    """Returns the size of an image by its cell; None of another text."""
    if not (cell := _CELL.fullmatch(text)):
        return None
    channels, height, width = map(int, cell.groups())
    return channels, height, width
