"""The side of the runner to the warm process: it is started, called and listened to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.local.forked import Forked, fork
from pipelines.local.kfp_seam import StageCall
from pipelines.local.warm import serve


class WarmProcess:
    """The process that stages are forked from (`warm`).

    It is started at the first call, or forked at once.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._channel: socket.socket | None = None

    @classmethod
    def forked(cls) -> WarmProcess:
        """Forks it of this process, which has one thread; it starts with its modules.

        What stages read and print is none of this process: they get no input, and
        print where its errors go.
        """
        warm = cls()
        warm._channel, other = socket.socketpair()
        with other, Path(os.devnull).open("rb") as nothing:
            warm._process = fork(
                lambda: serve(other),
                "safescale-warm",
                (nothing.fileno(), 2, 2),
                {other.fileno()},
            )
        return warm

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process and self._channel:
            # Without a stage it has nothing to lose, and asked by SIGTERM it stays.
            self._process.kill()
            self._process.wait()
            self._channel.close()

    def run(self, call: StageCall) -> int | None:
        """Runs a stage, prints what it prints, and returns its exit code.

        Returns:
            The code; negative for a signal; None if nothing could be started.
        """
        channel = self.started()
        output, stage_end = os.pipe()
        line = call.to_line()
        try:
            sent = socket.send_fds(channel, [line], [stage_end])
            channel.sendall(line[sent:])
        except OSError:  # it died since it was looked at
            self.close()
            os.close(output)
            return None
        finally:
            os.close(stage_end)
        with os.fdopen(output, encoding="utf-8", errors="replace") as lines:
            show(lines)
        with channel.makefile("rb") as answers:
            answer = answers.readline()
        if answer:
            code: int | None = json.loads(answer)
            return code
        # It was killed, and its stage with it; it may still be on its way out.
        self.close()
        return -signal.SIGKILL

    def started(self) -> socket.socket:
        """Starts the process unless it lives; returns the socket that it reads."""
        # One that was killed with a stage whose time was up is followed by another.
        if self._process and self._channel and self._process.poll() is None:
            return self._channel
        self.close()
        self._channel, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.local.warm", str(other.fileno())],
                pass_fds=[other.fileno()],
            )
        return self._channel


def show(lines: Iterable[Any]) -> None:
    """Prints a stage's lines as they come, and ends the last one."""
    for line in lines:
        print(line, end="")
    print(flush=True)
