"""A folder of PNG or JPEG files: one image each, all of one size and kind.

The class of an image is the name of its folder, or stands in a table of labels beside
the images. Pillow decodes; it is loaded here alone.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.errors import DataError, InputError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.reading.images import ImageLayout, Images, check_size
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store, split_uri

ENDINGS = (".png", ".jpg", ".jpeg")
"""Endings of the files of a folder that are images."""
FILE = "file"
"""Column of a table of labels with the path of an image, below the folder."""
MOST_FILE = 1 << 26
"""Bytes of one file, at most."""
_CHANNELS = {"L": 1, "RGB": 3}
_UNFIT = {
    "1": "has one bit for each pixel",
    "P": "has a palette",
    "PA": "has a palette and an alpha channel",
    "LA": "has an alpha channel",
    "La": "has an alpha channel",
    "RGBA": "has an alpha channel",
    "RGBa": "has an alpha channel",
    "I": "has more than 8 bits for each channel",
    "F": "has more than 8 bits for each channel",
    "CMYK": "has the colours of a printer (CMYK)",
    "YCbCr": "has the colours of a video (YCbCr)",
}


def read_image_folder(uri: str, layout: ImageLayout) -> Images:
    """Reads every image below a folder, in the order of their paths.

    Without a label, the path of each stands beside it (`FILE`).

    Raises:
        DataError: there is none, one is of another size or kind than the first, or
            has no label.
        StoreInputError: missing bucket or credentials.
        InputError: Pillow is not installed.
    """
    if "://" not in uri:
        raise DataError(
            f"{uri!r} is no URI; prepare_data reads a folder at s3://bucket/prefix or "
            "file:///path."
        )
    store_uri, key = split_uri(uri)
    store, prefix = open_store(store_uri), key.rstrip("/") + "/" if key else ""
    names = image_names(store, prefix)
    if not names:
        raise DataError(
            f"{uri} is no folder with images: found no {', '.join(ENDINGS)} below it."
        )
    digests: dict[str, str] = {}

    def content(name: str) -> bytes:
        with store.open(prefix + name) as stream:
            data = read_bounded(stream, f"{uri.rstrip('/')}/{name}")
        digests[name] = digest_bytes(data)
        return data

    # Labels first: what cannot be labelled is not decoded.
    columns = {FILE: pa.array(names, pa.string())}
    if layout.label:
        if layout.labels and not store.exists(prefix + layout.labels):
            raise DataError(f"{uri} has no table of labels {layout.labels!r}.")
        columns = (
            table_columns(content(layout.labels), uri, names, layout)
            if layout.labels
            else folder_columns(names, uri, layout)
        )
    images: NDArray[np.uint8] | None = None
    for i, name in enumerate(names):
        one = decoded(content(name), f"{name!r} of {uri}")
        if images is None:
            check_size(len(names), one.size, uri)
            images = np.empty((len(names), *one.shape), np.uint8)
        if one.shape != images.shape[1:]:
            raise DataError(
                f"The images of {uri} are not of one size: {names[0]!r} has "
                f"{in_words(images.shape[1:])}, {name!r} has {in_words(one.shape)}; "
                "bring them to one."
            )
        # Into one array at once: a list of all would be a second copy of them.
        images[i] = one
    assert images is not None
    return Images(images, columns, digests)


def image_names(store: Store, prefix: str) -> list[str]:
    """Lists the images below a prefix, sorted; hidden files and folders are none."""
    keys = (info.key.removeprefix(prefix) for info in store.list(prefix))
    return sorted(
        name
        for name in keys
        if name.lower().endswith(ENDINGS)
        # Beside the data lie `._a.png`, `__MACOSX`, `.thumbnails`.
        and not any(part.startswith((".", "_")) for part in name.split("/"))
    )


def read_bounded(stream: BinaryIO, origin: str) -> bytes:
    """Reads a file of at most `MOST_FILE` bytes.

    Raises:
        DataError: it is larger.
    """
    data = bytearray()
    while part := stream.read(MOST_FILE + 1 - len(data)):
        data += part
    if len(data) > MOST_FILE:
        raise DataError(f"{origin} is larger than {MOST_FILE >> 20} MiB; is no image.")
    return bytes(data)


def folder_columns(
    names: Sequence[str], uri: str, layout: ImageLayout
) -> dict[str, pa.StringArray]:
    """Returns the name of each image's folder as its label.

    Raises:
        DataError: an image lies in none, or the config names other columns.
    """
    if layout.beside:
        raise DataError(
            f"Column {layout.beside[0]!r} is named by the config, and a folder of "
            "images has none beside the label; data.labels names a table with both."
        )
    bare = [name for name in names if "/" not in name]
    if bare:
        raise DataError(
            f"{len(bare)} images of {uri} lie in no folder of a class, such as "
            f"{bare[0]!r}; put each class into a folder of its own, or name a table of "
            "labels (data.labels)."
        )
    return {layout.label: pa.array([name.split("/")[-2] for name in names])}


def table_columns(
    data: bytes, uri: str, names: Sequence[str], layout: ImageLayout
) -> dict[str, pa.StringArray]:
    """Returns the columns of a table of labels, in the order of the images.

    Args:
        data: a CSV file with a header: `file`, the label, the columns beside it.
        uri: of the folder, for sentences.
        names: of the images.
        layout: names the columns.

    Raises:
        DataError: it is no such table, or names an image not once.
    """
    where, wanted = f"{layout.labels!r} of {uri}", (layout.label, *layout.beside)
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{where} is no CSV file in UTF-8.") from None
    header = set(rows[0] if rows else ())
    if absent := [name for name in (FILE, *wanted) if name not in header]:
        raise DataError(
            f"{where} has no column {absent[0]!r}; a table of labels is a CSV file "
            f"with the columns {FILE} and {', '.join(wanted)}."
        )
    by_name: dict[str, Mapping[str, str | None]] = {row[FILE]: row for row in rows}
    missing = [name for name in names if name not in by_name]
    if missing or len(by_name) < len(rows) or len(by_name) > len(names):
        raise DataError(
            f"{where} does not name each image once: {len(missing)} of {len(names)} "
            f"images are not named, {len(rows) - len(by_name)} rows name one again, "
            f"and {len(by_name) - len(names) + len(missing)} name none."
        )
    return {
        name: pa.array([by_name[image][name] or "" for image in names], pa.string())
        for name in wanted
    }


def decoded(data: bytes, origin: str) -> NDArray[np.uint8]:
    """Decodes an image to (channels, height, width).

    Args:
        data: a PNG or JPEG file.
        origin: of it, for sentences.

    Raises:
        DataError: it is damaged, too large, or of another kind than grey or RGB with
            8 bits.
        InputError: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError(
            "To read PNG and JPEG files needs Pillow, which is not installed: "
            "pip install 'safescale-ammt[images]'; or save the images as one NPZ file."
        ) from None
    try:
        with warnings.catch_warnings():
            # Pillow warns of an image that unfolds to very much; here that is an error.
            warnings.simplefilter("error")
            # Two formats of some forty: each decoder is a way in for crafted bytes.
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                channels = channels_of(image.mode, image.info, origin)
                # By the head, before a pixel is there.
                check_size(1, channels * image.height * image.width, origin)
                array = np.asarray(image, np.uint8)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        Warning,
    ) as error:
        raise DataError(
            f"{origin} cannot be read as PNG or JPEG ({type(error).__name__}); it is "
            "damaged, or of another format."
        ) from None
    return array[None] if channels == 1 else np.moveaxis(array, 2, 0)


def channels_of(mode: str, info: Mapping[Any, Any], origin: str) -> int:
    """Returns the channels of an image of one of Pillow's modes.

    Raises:
        DataError: it is neither grey nor RGB with 8 bits, or has a transparent colour.
    """
    # Converted silently, 16 bits would lose half of what they say, and what shines
    # through a transparent colour is nobody's choice.
    why = _UNFIT.get(mode.split(";", maxsplit=1)[0])
    if "transparency" in info and mode in _CHANNELS:
        why = "has a transparent colour"
    if why or mode not in _CHANNELS:
        raise DataError(
            f"{origin} {why or f'is of mode {mode}'}; images are grey or RGB with 8 "
            "bits for each channel: save it so."
        )
    return _CHANNELS[mode]


def in_words(shape: Sequence[int]) -> str:
    """Spells a size: channels, height and width."""
    return " x ".join(map(str, shape)) + " (channels x height x width)"
