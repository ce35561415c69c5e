"""A process that has imported what stages need, and becomes each of them by a fork.

A stage imports for one to two seconds and often computes for less. So the runner starts
this process beside KFP's (`process_runner`); for each stage it imports what that one
needs, keeps it, and forks. The fork runs the very command of the compiled pipeline,
KFP's executor, under its own exit code, and what one stage does the next never sees:
this process itself computes nothing and has one thread of Python. (OpenBLAS and
jemalloc have threads from their import on, and fork handlers for them.)

It reads calls on a Unix socket, whose other end the runner's process holds: when that
one dies, however hard, the kernel closes it, and this process ends its whole group.
Where no process can be forked (`forked.possible`) stages start cold.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from components import STAGES
from pipelines.local.kfp_seam import KFP_RUNTIME, StageCall
from safescale_ammt.library_imports import spare_imports
from safescale_ammt.parent_death import PARENT, end_with_parent

_LATE = {
    "search_architecture": ("safescale_ammt.search.trials",),
    "train_agents": ("safescale_ammt.launch.task", "safescale_ammt.training.merge"),
}
"""What a stage imports once it has begun, and surely needs if nothing is refused."""
_NEXT = dict(pairwise(STAGES))
_PIECE = 65536  # bytes


class StageServer:
    """Answers each call with the exit code of a fork that ran it.

    Args:
        channel: the socket of calls; an answer is a line, `null` if what the stage
            needs could not be imported, a negative signal as in `subprocess`.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._stopped = False
        # A run that is stopped sends SIGTERM to the whole group. It is meant for the
        # stage; this process only has to start none afterwards.
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: Any) -> None:
        """Starts no stage any more, until a call has been answered."""
        self._stopped = True

    def next_stage(self) -> StageCall:
        """Serves calls; returns in a fork alone, with the call that it is to run."""
        while True:
            call, output = self.receive()
            answer: int | None = None
            if imported(call.function):
                answer = self.fork(call, output)
                if answer is None:
                    return call
            os.close(output)
            self._stopped = False
            self._channel.sendall(json.dumps(answer).encode() + b"\n")

    def receive(self) -> tuple[StageCall, int]:
        """Waits for a call; returns it and the file that gets what the stage prints."""
        line, files = b"", list[int]()
        while not line.endswith(b"\n"):
            piece, found, _, _ = socket.recv_fds(self._channel, _PIECE, 1)
            if not piece:
                os.killpg(0, signal.SIGKILL)
            line, files = line + piece, files + list(found)
        return StageCall.from_line(line), files[0]

    def fork(self, call: StageCall, output: int) -> int | None:
        """Forks a stage and waits for it; returns its exit code, None in the fork."""
        parent = str(os.getpid())
        # Held back around the fork: a signal in between would reach neither of both.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if self._stopped:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            return -signal.SIGTERM
        # Python 3.12 warns of each fork beside threads, jemalloc's too.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            stage = os.fork()
        if stage == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            # Should this process be killed alone, nobody would wait for the stage.
            end_with_parent(signal.SIGKILL, {PARENT: parent})
            self._channel.close()
            for standard in (1, 2):
                os.dup2(output, standard)
            os.close(output)
            # What `ps` shows, as the command line is that of the process before.
            with suppress(OSError):
                Path("/proc/self/comm").write_text(call.function[:15], encoding="ascii")
            return None
        if signal.SIGTERM in signal.sigpending():
            os.kill(stage, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        ended = os.pidfd_open(stage)
        # Meanwhile what the next one needs: a second that the run does not wait for.
        if following := _NEXT.get(call.function):
            imported(following)
        # Nobody calls while a stage runs: what can be read is the end of the runner.
        runner = self._channel.fileno()
        if runner in select.select([ended, runner], [], [])[0]:
            os.killpg(0, signal.SIGKILL)
        os.close(ended)
        return os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])


def imported(function: str) -> bool:
    """Imports what a stage needs; says whether that went well."""
    own = f"safescale_ammt.stages.{function}"
    try:
        for name in ("kfp.dsl.executor", own, *_LATE.get(function, ())):
            import_module(name)
        # The client of the store that the stages open, or that of their registry.
        if any(value.startswith("s3:") for value in os.environ.values()):
            import_module("safescale_ammt.store.s3")
    except Exception:  # noqa: BLE001  a stage that starts cold says it with its frame
        traceback.print_exc()
        return False
    # What is there now is never collected: a fork that looked at it would copy it. To
    # look for garbage first takes longer than an import leaves.
    gc.freeze()
    return True


def run_to_end(main: Callable[[], object]) -> int:
    """Runs a program, and what is due when an interpreter ends; returns its exit code.

    Args:
        main: the program; it may raise `SystemExit`, as programs do.
    """
    code = 0
    try:
        main()
    except SystemExit as error:
        # As Python takes it: nothing is 0, and a text is a last word.
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  the last frame of a process
        sys.excepthook(*sys.exc_info())
        code = 1
    # In the order of `Py_FinalizeEx`: threads, exit functions, what is not yet written.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)
    return code


def serve(channel: socket.socket) -> int:
    """Serves calls; returns in a fork alone, with the exit code of its stage."""
    os.environ.update(KFP_RUNTIME)
    return run_to_end(StageServer(channel).next_stage().execute)


if __name__ == "__main__":
    spare_imports()
    # Taking all modules apart would copy their memory: a quarter of a second a stage.
    os._exit(serve(socket.socket(fileno=int(sys.argv[1]))))
