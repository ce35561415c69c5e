"""Small images of three classes, and the forms of files that hold them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = 3


def images(each: int, seed: int, side: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Returns bytes (n, side, side) and labels (n,), class after class."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(CLASSES, dtype=np.uint8), each)
    pixels = rng.integers(0, 160, (len(label), side, side))
    # Each class has two bright rows of its own.
    for row in range(CLASSES):
        pixels[label == row, 2 * row : 2 * row + 2] += 60
    return pixels.astype(np.uint8), label


def idx_bytes(array: np.ndarray, kind: int = 0x08) -> bytes:
    """Spells an array as an IDX file."""
    sides = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sides + array.tobytes()


def write_idx(
    folder: Path, name: str, pixels: np.ndarray, label: np.ndarray, packed: bool = True
) -> str:
    """Writes two IDX files; returns the URI of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = ".gz" if packed else ""
    for array, kind in ((pixels, "images-idx3"), (label, "labels-idx1")):
        data = idx_bytes(array)
        path = folder / f"{name}-{kind}-ubyte{ending}"
        path.write_bytes(gzip.compress(data) if packed else data)
    return (folder / f"{name}-images-idx3-ubyte{ending}").as_uri()


def write_npz(path: Path, pixels: np.ndarray, label: np.ndarray, **more: Any) -> str:
    """Writes an archive of arrays; returns its URI."""
    np.savez_compressed(path, images=pixels, labels=label, **more)
    return path.as_uri()


def write_folder(
    folder: Path, pixels: np.ndarray, label: np.ndarray, table: str = ""
) -> str:
    """Writes PNG files, in a folder for each class or beside a table of labels."""
    lines = ["file,label"]
    for i, (image, code) in enumerate(zip(pixels, label, strict=True)):
        name = f"{i:05}.png" if table else f"{code}/{i:05}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
        lines.append(f"{name},{code}")
    if table:
        (folder / table).write_text("\n".join(lines))
    return folder.as_uri()
