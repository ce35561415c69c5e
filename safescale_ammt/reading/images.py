"""Images that were read: their pixels, and the columns that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.config.sections import IMAGE, DataConfig
from safescale_ammt.errors import DataError
from safescale_ammt.files.memory import in_units
from safescale_ammt.store.uri import open_store, split_uri

Pixels = NDArray[np.uint8]
"""Bytes of images (n, channels, height, width)."""
MOST_BYTES = 1 << 29
"""Bytes of the images of one source, at most: all of them are held."""
MOST_INPUTS = 1 << 16
"""Bytes of one image, at most: each becomes an input of a model."""


@dataclass(frozen=True)
class ImageLayout:
    """Where a source has its images and what stands beside them.

    Attributes:
        format: `idx`, `npz` or `image_folder`.
        label: name of the label's column; "" = the rows have none.
        images: array of an NPZ file with the images.
        labels: array with the labels, or the file beside the images; "" = as usual.
        channels: where arrays of four dimensions have their channels, `first` or
            `last`.
        beside: names of other columns, of an NPZ file or a table of labels.
    """

    format: str
    label: str = ""
    images: str = ""
    labels: str = ""
    channels: str = "last"
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: DataConfig) -> ImageLayout | None:
        """Returns what a config says of images; None if its rows are none."""
        if not config.has_images:
            return None
        entity = (config.entity,) if config.entity else ()
        # What the config speaks of and pixels do not hold.
        beside = (*config.sensitive, *entity, *config.ids, *config.drop)
        beside += config.references
        return cls(
            config.format,
            config.label,
            config.images,
            config.labels,
            config.channels,
            tuple(dict.fromkeys(beside)),
        )


@dataclass(frozen=True)
class Images:
    """Images of one source.

    Attributes:
        pixels: their bytes.
        columns: texts (n,) beside them, by name; the label first.
        digests: of the files as they are stored, by name.
    """

    pixels: Pixels
    columns: Mapping[str, pa.StringArray]
    digests: Mapping[str, str]

    def checked(self, origin: str) -> Images:
        """Returns these images.

        Raises:
            DataError: there are none, or a column is of other images.
        """
        n = len(self.pixels)
        if not n or not self.pixels.size:
            raise DataError(f"{origin} holds no images.")
        for name, column in self.columns.items():
            if name == IMAGE:
                raise DataError(
                    f"A column beside the images of {origin} is called {IMAGE!r}, as "
                    "that of the images is; give it another name."
                )
            if len(column) != n:
                raise DataError(
                    f"{origin} holds {n} images, and {len(column)} values of "
                    f"{name!r}; each image needs one."
                )
        return self


def check_size(count: int, inputs: int, origin: str) -> None:
    """Refuses images that are too large, before they are read.

    Args:
        count: of images.
        inputs: bytes of each.
        origin: of them, for the sentence.

    Raises:
        DataError: an image, or all of them, take more than there is room for.
    """
    if inputs > MOST_INPUTS:
        raise DataError(
            f"An image of {origin} has {inputs} values (channels x height x width), "
            f"at most {MOST_INPUTS} become inputs of a model; make them smaller."
        )
    if count * inputs > MOST_BYTES:
        raise DataError(
            f"{origin} holds {count} images of {inputs} bytes, "
            f"{in_units(count * inputs)} in all; at most {in_units(MOST_BYTES)} of one "
            "source are read."
        )


def with_channels(array: NDArray[np.uint8], channels: str, origin: str) -> Pixels:
    """Brings images to channels, height and width.

    Args:
        array: (n, height, width), or of four dimensions.
        channels: where four have their channels, `first` or `last`.
        origin: of them, for the sentence.

    Raises:
        DataError: it has other dimensions.
    """
    # Without an axis for channels there is one.
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        return array if channels == "first" else np.moveaxis(array, 3, 1)
    raise DataError(
        f"The images of {origin} have {array.ndim} dimensions; images, height and "
        "width are three, and channels may be a fourth (data.channels says where)."
    )


def open_file(uri: str, role: str) -> BinaryIO:
    """Opens a file of any store.

    Args:
        uri: `s3://bucket/key` or `file:///path`.
        role: what it is for, for the sentence.

    Raises:
        DataError: nothing lies there.
    """
    if "://" not in uri:
        raise DataError(
            f"{uri!r} is no URI; prepare_data reads s3://bucket/key or file:///path, "
            "and `safescale data fetch` brings a built-in data set there."
        )
    store_uri, key = split_uri(uri)
    store = open_store(store_uri)
    if not key or key.endswith("/") or not store.exists(key):
        raise DataError(f"{uri} ({role}) does not exist, or is no file.")
    return store.open(key)
