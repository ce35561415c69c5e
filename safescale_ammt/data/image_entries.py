"""Images as typed entries of a column: their bytes, all of one size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.schema import ImageFeature
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.image_cells import Contents, cell_shape


def image_feature(name: str, known: Column) -> ImageFeature:
    """Returns the images of development rows; the first one says their size.

    Args:
        name: column name.
        known: the entries of the development rows.

    Raises:
        DataError: it is no image.
    """
    shape = cell_shape(known.values[0].as_py()) if len(known.values) else None
    if shape is None:
        raise DataError(f"Column {name!r} holds no images.")
    return ImageFeature(name, shape)


def as_images(
    column: Column,
    contents: Contents,
    feature: ImageFeature,
    first_row: Callable[[NDArray[np.bool_]], str],
) -> pa.FixedSizeBinaryArray:
    """Returns a column of images as their bytes (n,).

    Args:
        column: cells, as `reading.image_cells` spells them.
        contents: what they stand for.
        feature: the images that are expected.
        first_row: names the first of some rows, for a sentence.

    Raises:
        DataError: an image of another size.
    """
    # Each distinct image once: the cell says its size.
    cells = column.values.to_pylist()
    unlike = [cell_shape(cell) != feature.shape for cell in cells]
    wrong = np.array(unlike, np.bool_)[column.codes]
    if wrong.any():
        other = column.values[int(column.codes[np.argmax(wrong)])].as_py()
        size = " x ".join(map(str, cell_shape(other) or ()))
        raise DataError(
            f"{column.rows(wrong)} images are of another size than the "
            f"{' x '.join(map(str, feature.shape))} (channels x height x width) of the "
            f"development images, the first at {first_row(wrong)}: "
            f"{size or 'no image'}; bring all to one size."
        )
    images = pa.array(map(contents.__getitem__, cells), pa.binary(feature.size))
    return images.take(pa.array(column.codes))
