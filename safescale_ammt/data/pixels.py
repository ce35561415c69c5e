"""Pixels: an image's bytes are codes, and the inputs that they stand for lie in [0, 1].

No mean and no deviation of train: a radius of an attack is in units of the full range
of a pixel, as in RobustBench (Croce et al., NeurIPS 2021 Datasets and Benchmarks).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.schema import ImageFeature
from safescale_ammt.errors import DataError
from safescale_ammt.files.parquet import fixed_bytes


class Pixels:
    """An image: each of its bytes is a code, of the input byte / 255.

    Attributes:
        width: inputs, and codes, of an image.
        last: the greatest code.
    """

    last = 255
    # No code has a value beside it.
    places = None

    def __init__(self, feature: ImageFeature) -> None:
        self._feature = feature
        self.width = feature.size

    def codes(self, column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], None]:
        """Returns each image's bytes, uint8 (n, width).

        Raises:
            DataError: a cell is missing, or has not the bytes of an image.
        """
        feature = self._feature
        channels, height, width = feature.shape
        if column.type != pa.binary(self.width) or column.null_count:
            found = f"{column.null_count} without a value" * bool(column.null_count)
            raise DataError(
                f"Column {feature.name!r} must hold images of {channels} x {height} x "
                f"{width} (channels x height x width), {self.width} bytes each; found "
                f"cells {found or f'of type {column.type}'}."
            )
        images = fixed_bytes(column, np.dtype((np.void, self.width)))
        return images.view(np.uint8).reshape(-1, self.width), None

    def fill(self, inputs: NDArray[Any], code: NDArray[Any]) -> None:
        """Writes the inputs (n, width) of codes (n, width)."""
        # Divided in float32 for every encoding: the nearest float32 of byte / 255.
        np.copyto(inputs, np.divide(code, np.float32(255), dtype=np.float32))

    def pairs(
        self, code: NDArray[Any], first: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yields columns and weights (n,), see `Coding.pairs`.

        Args:
            code: (n, width).
            first: the column of the first pixel.
        """
        inputs = np.empty(code.shape, np.float32)
        self.fill(inputs, code)
        for column, weight in enumerate(inputs.T, first):
            yield np.full(len(code), column), weight
