"""From the bytes behind a URI to a raw table of images and what stands beside them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from safescale_ammt.config.sections import IMAGE
from safescale_ammt.files.canonical import digest_stream
from safescale_ammt.reading.blocks import Blocks
from safescale_ammt.reading.byte_streams import HashedStream
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.files import File
from safescale_ammt.reading.idx import idx_array, labels_uri, read_idx
from safescale_ammt.reading.image_cells import cells_of_images
from safescale_ammt.reading.image_folder import (
    decoded,
    image_names,
    read_bounded,
    read_image_folder,
)
from safescale_ammt.reading.images import (
    ImageLayout,
    Images,
    open_file,
    with_channels,
)
from safescale_ammt.reading.npz import npz_images, read_npz
from safescale_ammt.reading.scratch import Scratch
from safescale_ammt.reading.spool import Spool
from safescale_ammt.store.uri import open_store, split_uri

READERS: Mapping[str, Callable[[str, ImageLayout], Images]] = {
    "idx": read_idx,
    "npz": read_npz,
    "image_folder": read_image_folder,
}
"""What reads each form of images."""
_ZIP = b"PK\x03\x04"
_ENCODED = (b"\x89PNG\r\n", b"\xff\xd8\xff")
"""First bytes of PNG and JPEG files."""


def spool_images(uri: str, layout: ImageLayout, scratch: Scratch) -> Spool:
    """Reads all images behind a URI, and what stands beside them, once.

    Raises:
        DataError: nothing is there, or no such images.
        StorageError: the scratch folder's disk is full.
    """
    return spooled(READERS[layout.format](uri, layout), uri, scratch)


def spooled(images: Images, origin: str, scratch: Scratch) -> Spool:
    """Makes a spool of images that were read.

    Raises:
        DataError: there are none, or a column is of other images.
        StorageError: the scratch folder's disk is full.
    """
    cells, contents = cells_of_images(images.checked(origin).pixels)
    blocks = Blocks(scratch, origin)
    columns = {IMAGE: pa.array(cells, pa.string()), **images.columns}
    for at, texts in enumerate(columns.values()):
        blocks.add(at, Column.of(pa.chunked_array([texts])))
    held = {name: blocks.held[at] for at, name in enumerate(columns)}
    # The config names every column: no sentence about one shows a cell.
    file = File(origin, blocks.sizes, held, names_are_safe=True)
    spool = Spool.of_files({"": file}, origin)
    return replace(spool, digests=images.digests, contents=contents)


def image_digests(uri: str, layout: ImageLayout) -> dict[str, str]:
    """Digests the files behind a URI as `spool_images` does, without decoding them.

    Raises:
        DataError: nothing is there.
    """

    def digest(stream: BinaryIO) -> str:
        with stream:
            return digest_stream(stream)

    if layout.format == "npz":
        return {"": digest(open_file(uri, "images"))}
    if layout.format == "idx":
        return {
            "images": digest(open_file(uri, "images")),
            "labels": digest(open_file(labels_uri(uri, layout), "labels")),
        }
    store_uri, key = split_uri(uri)
    store, prefix = open_store(store_uri), key.rstrip("/") + "/" if key else ""
    # In the order in which `read_image_folder` reads them.
    names = [*[layout.labels] * bool(layout.labels), *image_names(store, prefix)]
    return {name: digest(store.open(prefix + name)) for name in names}


def given_images(source: str | Path | bytes, origin: str, layout: ImageLayout) -> Spool:
    """Reads images without labels, of whatever form their bytes show.

    Args:
        source: a path or URI of a file or folder, or the bytes of a file.
        origin: what bytes are called in a sentence.
        layout: names the array of an NPZ file, and says where channels are.

    Raises:
        DataError: nothing is there, or no images.
    """
    if isinstance(source, bytes):
        images = stream_images(io.BytesIO(source), origin, layout)
        return spooled(images, origin, Scratch())
    origin = str(source)
    uri = origin if "://" in origin else Path(source).resolve().as_uri()
    store_uri, key = split_uri(uri)
    store = open_store(store_uri)
    if key and not key.endswith("/") and store.exists(key):
        with store.open(key) as stream:
            images = stream_images(stream, origin, layout)
    else:
        images = read_image_folder(uri, layout)
    return spooled(images, origin, Scratch())


def stream_images(stream: BinaryIO, origin: str, layout: ImageLayout) -> Images:
    """Reads one file of images without labels: IDX, NPZ, or one PNG or JPEG image.

    Raises:
        DataError: it is none of these.
    """
    peeked = io.BufferedReader(HashedStream(stream))
    start = peeked.peek(8)
    if start.startswith(_ZIP):
        return npz_images(peeked, origin, layout)
    if start.startswith(_ENCODED):
        return Images(decoded(read_bounded(peeked, origin), origin)[None], {}, {})
    array, digest = idx_array(peeked, origin, (3, 4))
    return Images(with_channels(array, layout.channels, origin), {}, {"": digest})
