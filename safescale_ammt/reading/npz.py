"""NPZ, NumPy's archives of arrays: images, labels and columns beside them by name.

Each array's head is read before its values: an array of objects, which would be
unpickled, and one that claims more values than the archive holds are refused.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from safescale_ammt.errors import DataError, SafescaleError, one_of
from safescale_ammt.reading.byte_streams import HashedStream
from safescale_ammt.reading.images import (
    MOST_BYTES,
    ImageLayout,
    Images,
    check_size,
    open_file,
    with_channels,
)
from safescale_ammt.reading.scratch import Scratch

_HEADS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
IMAGES, LABELS = "images", "labels"
"""Usual names of arrays."""


class ArrayHead(NamedTuple):
    """What an array says of itself before its values."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def read_npz(uri: str, layout: ImageLayout) -> Images:
    """Reads an archive; see `npz_images`.

    Raises:
        DataError: nothing is there, or what `npz_images` refuses.
    """
    with open_file(uri, "images") as stream:
        return npz_images(stream, uri, layout)


def npz_images(stream: BinaryIO, origin: str, layout: ImageLayout) -> Images:
    """Reads the arrays of an archive that a layout names.

    Args:
        stream: the archive.
        origin: its URI, for sentences.
        layout: names the arrays.

    Raises:
        DataError: it is no such archive, lacks an array, or one is of another kind.
    """
    hashed = HashedStream(stream)
    try:
        with Scratch().copied(hashed, origin) as (file, _), zipfile.ZipFile(file) as z:
            images = member(z, layout.images or IMAGES, "images", origin)
            columns = {}
            if layout.label:
                name = layout.labels or LABELS
                array = member(z, name, "labels", origin)
                columns[layout.label] = texts_of(array, name, origin)
            for name in layout.beside:
                array = member(z, name, "column", origin)
                columns[name] = texts_of(array, name, origin)
    except SafescaleError:
        raise
    # A RuntimeError is an archive that is encrypted, or packed in a way nobody knows; a
    # ValueError one whose parts lie before its beginning.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError):
        raise DataError(
            f"{origin} is no whole NPZ file; it is truncated, damaged or of another "
            "format."
        ) from None
    pixels = with_channels(images, layout.channels, origin)
    return Images(pixels, columns, {"": hashed.digest()})


def member(archive: zipfile.ZipFile, name: str, role: str, origin: str) -> NDArray[Any]:
    """Reads one array.

    Args:
        archive: that holds it.
        name: of the array.
        role: `images`, `labels` or `column`.
        origin: of the archive, for sentences.

    Raises:
        DataError: it is not there, or of another kind or size.
    """
    names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    if name not in names:
        key = f" (data.{role})" if role != "column" else ""
        raise DataError(f"{origin} has no array {name!r}{key}, {one_of(names, name)}.")
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        shape, fortran, dtype = head_of(file, name, origin)
        # A label of 1.0 may be a class, an amount or a rounded probability.
        kinds = "u" if role == "images" else "iubUS"
        if dtype.kind not in kinds or (role == "images" and dtype.itemsize != 1):
            wanted = "bytes (uint8)" if role == "images" else "whole numbers or text"
            raise DataError(
                f"Array {name!r} of {origin} is of type {dtype.name}, expected "
                f"{wanted}."
            )
        if role == "images" and len(shape) in (3, 4):
            check_size(shape[0], math.prod(shape[1:]), origin)
        size = math.prod(shape) * dtype.itemsize
        if size > MOST_BYTES:
            raise DataError(
                f"Array {name!r} of {origin} states {size} bytes, more than the "
                f"{MOST_BYTES} of a source that are read."
            )
        # One more byte shows an array that goes on.
        data = file.read(size + 1)
    if len(data) != size:
        raise DataError(
            f"Array {name!r} of {origin} does not hold the "
            f"{' x '.join(map(str, shape))} values that it states; it is damaged."
        )
    array: NDArray[Any] = np.ndarray(shape, dtype, data, order="F" if fortran else "C")
    return array


def head_of(file: Any, name: str, origin: str) -> ArrayHead:
    """Reads the head of an array.

    Raises:
        DataError: it has none that fits, or its values are objects.
    """
    try:
        head = ArrayHead(*_HEADS[npy.read_magic(file)](file))
    except (KeyError, ValueError):
        raise DataError(f"{name!r} of {origin} is no array of NumPy's.") from None
    if head.dtype.hasobject:
        raise DataError(
            f"Array {name!r} of {origin} holds Python objects, which are never "
            "unpickled; save it as numbers or text."
        )
    return head


def texts_of(array: NDArray[Any], name: str, origin: str) -> pa.StringArray:
    """Returns whole numbers or texts (n,) or (n, 1) as texts.

    Raises:
        DataError: it has other dimensions, or is no text.
    """
    # Keras and MedMNIST write labels as a column.
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"Array {name!r} of {origin} has {array.ndim} dimensions; it needs one "
            "value for each image."
        )
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"Array {name!r} of {origin} holds bytes that are no text (UTF-8)."
            ) from None
    # Python would spell a flag as True, which another tool's table has as 1.
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return pa.array(map(str, array.tolist()), pa.string())
