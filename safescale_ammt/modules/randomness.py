"""Randomness of a module: its own in each net and step, and the user's left alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def unseeded(value: int) -> None:
    """Seeds nothing: outside of a step nobody draws."""
    del value


@contextmanager
def own_randomness(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Gives a function that seeds what a module draws from; all is put back after."""
    on_device = device.type not in ("cpu", "xla")
    kind = device.type if on_device else "cuda"
    devices = [device.index or 0] if on_device and device.type != "mps" else []

    def seed(value: int) -> None:
        torch.default_generator.manual_seed(value)
        random.seed(value)
        np.random.seed(value % 2**32)  # noqa: NPY002
        if on_device:
            torch.get_device_module(device).manual_seed(value)

    # Augmentations draw from Python's and numpy's as often as from torch's.
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices, device_type=kind):
            yield seed
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
