"""Keeps the embedded object store alive exactly as long as somebody uses it.

A stand-alone script (standard library only): `embedded.py` starts it in a
session of its own, with the server's environment on standard input:

    supervisor.py USERS_LOCK LIFE_LOCK_DESCRIPTOR PORTS COMMAND...

Users hold a shared lock on USERS_LOCK. The kernel drops a lock when its holder
ends, however it ends, so that the lock *is* the count of living users: once the
exclusive lock can be had, nobody is left, and the server is stopped. A run that
is killed with -9 thus leaves no process behind, and a second run that joined
the server keeps it. Should the supervisor itself be killed, the kernel kills
the server (PR_SET_PDEATHSIG, which needs a parent with one thread: this one).
The inherited life lock is held by supervisor and server, so that it is free only
when both are gone: two servers never share one data folder.
A server that dies on its own is started again on the same ports, and clients
that retry do not notice.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_RESTARTS = 3
_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL. A server needs 1 to 3; now and then its admin
part hangs (seen in 1 of 12 stops), and kill -9 costs no acknowledged object."""
_TICK = 0.1  # seconds


def main(arguments: Sequence[str]) -> int:
    """Runs the server until nobody uses it, or until SIGTERM."""
    users, life, ports, *command = arguments
    environment = json.loads(sys.stdin.buffer.read())
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    start = _starter(command, environment, int(life))
    server, restarts = start(), 0
    with Path(users).open("rb") as lock:
        while not asked and not _nobody_holds(lock.fileno()):
            if server.poll() is not None and restarts < _RESTARTS:
                server, restarts = start(), restarts + 1
            elif server.poll() is not None:
                break
            time.sleep(_TICK)
        hopeless = server.poll() is not None
        # The lock is kept until the server is gone: newcomers wait for it.
        _end(server)
        _remove_sockets(json.loads(ports))
    return int(hopeless)


def _starter(
    command: Sequence[str], environment: dict[str, str], life: int
) -> Callable[[], subprocess.Popen[bytes]]:
    """Returns a function that starts the server; it inherits the life lock only."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    parent = os.getpid()

    def die_with_parent() -> None:  # pragma: no cover  (between fork and exec)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[life],
            # One thread, so that this is safe; see the module's text.
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )

    return start


def _nobody_holds(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(server: subprocess.Popen[bytes], grace: float = _GRACE) -> None:
    server.terminate()
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _remove_sockets(ports: Sequence[int]) -> None:
    """Removes the sockets that SeaweedFS leaves in /tmp when it is killed."""
    for port in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
