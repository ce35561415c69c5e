"""Parent death: a process that ends when those that it works for do.

Two ways, since neither is enough. Linux signals a process whose parent dies, but not
one whose grandparent does, nor one that asks too late. A lock that the run holds is
free once the run is gone, however it went and whoever stands between; a process has to
be up to wait for it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Value of the constant in Linux' <sys/prctl.h>; Python has no name for it.
_PR_SET_PDEATHSIG = 1
PARENT = "SAFESCALE_PARENT"
"""Variable: the process id of who starts a process that ends with it."""
RUN_LOCK = "SAFESCALE_RUN_LOCK"
"""Variable: a file that the run keeps locked for as long as it lives."""


def end_with_parent(
    signum: int = signal.SIGTERM, environ: Mapping[str, str] = os.environ
) -> None:
    """Requests a signal from Linux at the parent's death; elsewhere does nothing.

    Args:
        signum: the signal; it comes at once if the parent is dead already.
        environ: names the parent, if its death before this call is to be noticed.
    """
    # `torchrun` gives its workers sessions of their own, so that a kill of its
    # process group does not reach them.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum)
        # Whoever adopted us is not who started us: no signal comes any more.
        if environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            os.kill(os.getpid(), signum)


@contextmanager
def run_lock(file: Path) -> Iterator[None]:
    """Holds a run's lock; the kernel drops it with this process at the latest."""
    with file.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def end_with_run(environ: Mapping[str, str] = os.environ) -> None:
    """Kills the own process group once the run's lock is free.

    Without a lock in the environment, as in a container or a pod, it does nothing:
    there somebody else ends what is left.
    """
    if file := environ.get(RUN_LOCK):
        threading.Thread(target=kill_once_free, args=(Path(file),), daemon=True).start()


def kill_once_free(file: Path) -> None:
    """Waits for a run's lock, then kills the own process group."""
    try:
        with file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
    except FileNotFoundError:
        pass  # the run has ended, and its folder with it
    # Nobody is left to count a time of grace, so no stage gets one.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    # What it becomes has no such request of its own, and keeps this one.
    end_with_parent()
    os.environ.pop(PARENT, None)
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  no shell is wanted
