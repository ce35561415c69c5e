"""Lifeline: a process that ends when the one that started it does."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(signum: int = signal.SIGTERM) -> None:
    """Asks Linux for a signal at the parent's death; elsewhere this does nothing.

    `torchrun` gives its workers sessions of their own, so that a kill of its group
    does not reach them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum)
