"""Parent death: a process that ends when the one that started it does."""

from __future__ import annotations

import ctypes
import signal
import sys

# Value of the constant in Linux' <sys/prctl.h>; Python has no name for it.
_PR_SET_PDEATHSIG = 1


def end_with_parent(signum: int = signal.SIGTERM) -> None:
    """Requests a signal from Linux at the parent's death; elsewhere does nothing."""
    # `torchrun` gives its workers sessions of their own, so that a kill of its
    # process group does not reach them.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum)
