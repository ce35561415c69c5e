"""IDX, the format of MNIST's files: a magic number, dimensions, then the values.

Two zero bytes, the type of the values, the number of dimensions, each of these as 4
bytes, the greatest first (LeCun, Cortes & Burges, "The MNIST database of handwritten
digits"). Plain, or packed as any file may be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.errors import DataError
from safescale_ammt.reading.byte_streams import CHUNK, HashedStream, Unpacked
from safescale_ammt.reading.images import (
    MOST_BYTES,
    ImageLayout,
    Images,
    check_size,
    open_file,
    with_channels,
)

_BYTES = 0x08
_NAMES = {"images": "labels", "idx3": "idx1"}
"""What the usual name of a file of images has, and that of its labels instead."""


def read_idx(uri: str, layout: ImageLayout) -> Images:
    """Reads a file of images, and that of their labels if there is a label.

    Raises:
        DataError: a file is missing, is no such file, is cut short or goes on after
            its end, or they hold different numbers of rows.
    """
    # By what a file is for and not by its name: a copy elsewhere has the same digests.
    digests, columns = {}, {}
    with open_file(uri, "images") as stream:
        array, digests["images"] = idx_array(stream, uri, (3, 4))
    if layout.label:
        beside = labels_uri(uri, layout)
        with open_file(beside, "labels, data.labels names another file") as stream:
            labels, digests["labels"] = idx_array(stream, beside, (1,))
        columns[layout.label] = pa.array(map(str, labels.tolist()), pa.string())
    return Images(with_channels(array, layout.channels, uri), columns, digests)


def labels_uri(uri: str, layout: ImageLayout) -> str:
    """Returns where the labels of a file of images are, by its name if none is given.

    Raises:
        DataError: the name of the images leads to no other.
    """
    folder, _, name = uri.rpartition("/")
    beside = layout.labels
    if not beside:
        beside = name
        for images, labels in _NAMES.items():
            beside = beside.replace(images, labels)
    if beside == name:
        raise DataError(
            f"Nothing says where the labels of {uri} are: a file "
            "train-images-idx3-ubyte has them in train-labels-idx1-ubyte beside it; "
            "else data.labels names the file."
        )
    return f"{folder}/{beside}"


def idx_array(
    stream: BinaryIO, origin: str, dimensions: Sequence[int]
) -> tuple[NDArray[np.uint8], str]:
    """Reads a file of bytes; returns them, and the digest of the file as it is stored.

    Args:
        stream: the file.
        origin: its URI, for sentences.
        dimensions: numbers of them that fit.

    Raises:
        DataError: it is no such file, is cut short, or goes on after its end.
    """
    hashed = HashedStream(stream)
    data = Unpacked(hashed, origin)
    head = data.read(4) or b""
    if len(head) < 4 or head[:2] != b"\0\0" or head[3] not in dimensions:
        raise DataError(
            f"{origin} is no IDX file of {' or '.join(map(str, dimensions))} "
            "dimensions: its first bytes are no such magic number."
        )
    # Of labels too: a class number beyond 255 is no byte, and would be cut.
    if head[2] != _BYTES:
        raise DataError(
            f"{origin} is an IDX file of values of type 0x{head[2]:02x}; bytes (0x08) "
            "are read."
        )
    sides = data.read(4 * head[3]) or b""
    if len(sides) < 4 * head[3]:
        raise DataError(f"{origin} ends within its head; it is truncated.")
    shape = [int(side) for side in np.frombuffer(sides, ">u4")]
    if len(shape) > 1:
        check_size(shape[0], math.prod(shape[1:]), origin)
    elif shape[0] > MOST_BYTES:
        raise DataError(f"{origin} states {shape[0]} labels, more than can be read.")
    size = math.prod(shape)
    # Part by part: what a head claims is not there before it was read.
    found = bytearray()
    while len(found) < size and (part := data.read(min(CHUNK, size - len(found)))):
        found += part
    if len(found) < size:
        raise DataError(
            f"{origin} states {' x '.join(map(str, shape))} values and holds "
            f"{len(found)} of these {size} bytes; it is truncated."
        )
    if data.read(1):
        raise DataError(
            f"{origin} goes on after the {' x '.join(map(str, shape))} values that it "
            "states; it is damaged, or another kind of file."
        )
    return np.frombuffer(found, np.uint8).reshape(shape), hashed.digest()
