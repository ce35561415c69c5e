"""Device: which there is, and how torch is set so that a seed gives the same bytes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch.utils import deterministic

CPU = torch.device("cpu")
# Parameters of glibc's mallopt(3), which has no binding in Python.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_FILL = "fill_uninitialized_memory"
"""By name: torch's types do not know it."""
_KEEP_BYTES = 1 << 28
"""256 MiB of freed memory stay with the process."""


@contextmanager
def settled(
    threads: int, device: torch.device = CPU, *, warns: bool = False
) -> Iterator[None]:
    """Runs the body with so many threads and deterministic algorithms only.

    Sums depend on how threads split them, so the number of threads is part of
    the config. The settings before are restored at the end, however it comes.

    Args:
        threads: of the processor.
        device: that is computed on. Where it is no processor, or whoever calls has said
            so before, what has no deterministic form is a warning of torch's.
        warns: says so.
    """
    before = torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    fills: bool = getattr(deterministic, _FILL)
    warns = warns or mode == 1 or device.type != "cpu"
    try:
        torch.set_num_threads(threads)
        # Unlike `use_deterministic_algorithms` this does not import the compiler,
        # which costs two CPU seconds.
        torch.set_deterministic_debug_mode("warn" if warns else "error")
        # In this mode torch fills all new memory with NaN, each result of each product
        # too: that is for who reads what nobody wrote, and takes a tenth of a training
        # step.
        setattr(deterministic, _FILL, False)
        yield
    finally:
        setattr(deterministic, _FILL, fills)
        torch.set_num_threads(before)
        torch.set_deterministic_debug_mode(mode)


def keep_freed_memory() -> None:
    """Asks glibc to keep freed memory instead of returning it after each step.

    Without glibc this does nothing.
    """
    # Large tensors otherwise go back to the system and are faulted in again at every
    # step, which makes a step about 1.3 times as long.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # No mappings: glibc would unmap a block of its own at once, whatever else is
        # set.
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        mallopt(_M_TOP_PAD, _KEEP_BYTES // 8)


LADDER = ("tpu", "cuda", "xpu", "mps", "cpu")
"""Kinds of devices, the fastest first: `auto` takes the first that is there."""


def present_device(kind: str) -> torch.device | None:
    """Returns the device of a kind, None where this machine has none."""
    if kind == "cpu":
        return torch.device("cpu")
    if kind == "tpu":
        # Whichever maintained backend is installed; its device is named xla.
        try:
            return torch.device(import_module("torch_xla").device())
        except (ImportError, RuntimeError):
            return None
    backend = getattr(torch, kind, None) or getattr(torch.backends, kind, None)
    if not backend or not backend.is_available():
        return None
    if kind == "mps":
        return torch.device(kind)
    # Of several processes on a machine each takes the next one.
    count = max(1, backend.device_count())
    return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")) % count)


def present_for_tables(wanted: str) -> Callable[[str], torch.device | None]:
    """Returns what finds the device of a kind for nets of a table.

    Their optimizer has no form for a TPU. An Apple GPU has to be named: it is no
    hardware that somebody has reserved, and small nets are faster without.
    """

    def present(kind: str) -> torch.device | None:
        left_out = kind == "tpu" or (kind == "mps" and wanted != kind)
        return None if left_out else present_device(kind)

    return present


def find_device(
    wanted: str, present: Callable[[str], torch.device | None] = present_device
) -> tuple[str, torch.device, str]:
    """Returns kind and device that training uses, and what is to be said of the wish.

    Args:
        wanted: a kind of `LADDER`, or auto.
        present: finds the device of a kind.
    """
    kinds = LADDER if wanted == "auto" else LADDER[LADDER.index(wanted) :]
    for kind in kinds:
        device = present(kind)
        if device is not None:
            break
    assert device is not None
    if kind == "cuda":
        # Products are deterministic with this.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted in ("auto", kind):
        return kind, device, ""
    return kind, device, f"No {wanted} is there: training uses the {kind}."
