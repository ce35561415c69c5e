"""Fashion-MNIST from its four files, whose digests are checked, into memory."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from safescale_ammt.errors import DataError

SHA256 = {
    "train-images-idx3": "c59f468a2f672dc8",
    "train-labels-idx1": "bad3541b69d91243",
    "t10k-images-idx3": "5b4141f0afbad91e",
    "t10k-labels-idx1": "0402a96d92fd2663",
}
"""Beginnings of the digests of the files without their compression."""
HEADS = {"images": 16, "labels": 8}


def read(folder: Path, name: str) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Returns the numbers of a file.

    Raises:
        DataError: it is not there, or another one.
    """
    file = folder / f"{name}-ubyte.gz"
    if not file.is_file():
        raise DataError(f"{file} is missing; --data names Fashion-MNIST's folder.")
    raw = gzip.decompress(file.read_bytes())
    found = hashlib.sha256(raw).hexdigest()[:16]
    if found != SHA256[name]:
        raise DataError(f"{file} has digest {found}..., expected {SHA256[name]}...")
    return np.frombuffer(raw, np.uint8, offset=HEADS[name.split("-")[1]])


def images(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Returns images (n, 1, 28, 28) in [0, 1] and labels (n,).

    Args:
        folder: of the four files.
        part: `train` or `t10k`.

    Raises:
        DataError: a file is missing, or another one.
    """
    x = read(folder, f"{part}-images-idx3").reshape(-1, 1, 28, 28)
    y = read(folder, f"{part}-labels-idx1")
    return torch.tensor(x, dtype=torch.float32) / 255, torch.tensor(y).long()
