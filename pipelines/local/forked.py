"""Processes of a run that are forked, and so spared what this one has imported.

Importing is most of what a run costs whose stages are in the cache. A fork is made
while this process has one thread, and only by a program of ours (`spare_imports`): one
that calls us as a library may hold what no second process should have.
"""

from __future__ import annotations

import fcntl
import gc
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from safescale_ammt.library_imports import spared

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ABOVE = 10
"""Descriptors from here on are no standard ones."""


class Forked:
    """A process that was forked: as much of `subprocess.Popen` as is asked of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Waits for its end; returns what `poll` does then."""
        return self._reap(0)

    def kill(self) -> None:
        """Kills it, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode


def possible() -> bool:
    """Says whether a process can be forked here, and its end be seen.

    Linux alone has a file for a process' end and a list of open files (where /proc is),
    and macOS' frameworks bear no fork.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return sys.platform == "linux" and Path("/proc/self/fd").is_dir()


def safe() -> bool:
    """Says whether this process may be forked: ours, and with one thread."""
    return possible() and spared() and threading.active_count() == 1


def fork(
    main: Callable[[], int],
    name: str,
    standard: Sequence[int],
    kept: Collection[int] = (),
    *,
    new_session: bool = False,
) -> Forked:
    """Forks this process; the fork ends with the code that `main` returns.

    Args:
        main: runs in the fork; it returns once all that is due at an end was done.
        name: what `ps` shows; the command line is that of this process.
        standard: the files that become its standard input, output and error.
        kept: further files that stay open in it; all others are closed.
        new_session: whether it leads a session of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # What is there now is never looked at again: it would be copied.
    gc.freeze()
    # Held back around the fork: a handler of this process is not for that one.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # Python 3.12 warns of each fork beside threads, which libraries have too.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return Forked(pid)
    code = 1
    try:
        if new_session:
            os.setsid()
        begin(name, standard, kept)
        code = main()
    except BaseException:  # noqa: BLE001  the last frame of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def begin(name: str, standard: Sequence[int], kept: Collection[int]) -> None:
    """Makes a fork what a process is that was started anew; see `fork`."""
    for signum in _SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    # Above first: one of them may be where another one goes.
    above = [fcntl.fcntl(file, fcntl.F_DUPFD, _ABOVE) for file in standard]
    for number, file in enumerate(above):
        os.dup2(file, number)
    for file in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if file > 2 and file not in kept:
            # The listing itself had one that is closed by now.
            with suppress(OSError):
                os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    # Unbuffered, as the last lines of a killed process are those that are asked for.
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            open(file, "wb", buffering=0, closefd=False),  # noqa: SIM115
            "utf-8",
            "backslashreplace",
            write_through=True,
        )
        for file in (1, 2)
    )
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name[:15], encoding="ascii")
