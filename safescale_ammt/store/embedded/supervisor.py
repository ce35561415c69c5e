"""Keeps the embedded object store alive exactly as long as somebody uses it.

A stand-alone script (standard library only): `server.py` starts it in a session
of its own, with the server's environment on standard input:

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
A server is asked to end if one of its users may have written (a file WRITTEN lies
beside the lock), and killed if nobody did: then there is nothing to bring to disk.
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
from contextlib import suppress
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# One that dies again and again has a reason that a restart does not mend.
_RESTARTS = 3
_GRACE = 2.5
"""Seconds between SIGTERM and SIGKILL. A server needs 1.1 to 1.4, if busy too.
In a fifth of the stops its volume server waits half a minute for a TLS connection that
nobody has used yet, and kill -9 costs no acknowledged object."""
_TICK, _LATER = 0.05, 0.2
"""Seconds between looks: of a command, whose user waits for its end, and of a run."""
_SOON = 10.0
"""Seconds after which a user is a run: looking twenty times a second costs as much as
half of what an idle server does."""
WRITTEN = "written"
"""Empty file beside the lock: a user of the server may have written to it."""


def main(arguments: Sequence[str]) -> int:
    """Runs the server until nobody uses it, or until SIGTERM."""
    users, life, ports, *command = arguments
    environment = json.loads(sys.stdin.buffer.read())
    signals: list[int] = []

    # Taken note of only: what a signal interrupts may be the start of the server.
    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
    start = _starter(command, environment, int(life))
    server, restarts, deserted = start(), 0, False
    written = Path(users).with_name(WRITTEN)
    started = time.monotonic()
    with Path(users).open("rb") as lock:
        while not signals:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                deserted = True  # nobody else holds it
                break
            if server.poll() is not None:
                if restarts == _RESTARTS:
                    break
                server, restarts = start(), restarts + 1
            early = time.monotonic() - started < _SOON
            time.sleep(_TICK if early else _LATER)
        has_died = server.poll() is not None
        # The lock is kept until the server is gone: newcomers wait for it.
        end(server, 0.0 if deserted and not written.exists() else _GRACE)
        # Without the lock a writer may be at its work, whose mark it is.
        if deserted:
            written.unlink(missing_ok=True)
        # SeaweedFS leaves its sockets in /tmp when it is killed.
        for port in json.loads(ports):
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                path.unlink(missing_ok=True)
    return int(has_died)


def end(server: subprocess.Popen[bytes], grace: float) -> None:
    """Asks a server to end and kills it after `grace` seconds; 0 = at once."""
    if grace:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(grace)
    server.kill()
    server.wait()


def _starter(
    command: Sequence[str], environment: dict[str, str], life: int
) -> Callable[[], subprocess.Popen[bytes]]:
    """Returns a function that starts the server; it inherits the life lock only."""
    # Loaded before the fork: between fork and exec little is safe.
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    parent = os.getpid()

    def die_with_parent() -> None:  # pragma: no cover  (between fork and exec)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before prctl: then no signal comes any more.
        if os.getppid() != parent:
            os._exit(1)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[life],
            # Safe, because this process has one thread: no lock is held at the fork.
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )

    return start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
