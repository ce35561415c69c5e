"""Randomness of a module: its own in each net and step, and the user's left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        if on_device:
            torch.get_device_module(device).manual_seed(value)

    with torch.random.fork_rng(devices, device_type=kind):
        yield seed
