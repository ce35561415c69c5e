"""Processes that a test starts: none of them outlives it, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from coverage import Coverage

COVERAGE = "COVERAGE_PROCESS_"
"""What begins the names of variables that have a process measured."""
_STARTED: list[Child | Fork] = []
_WARM = multiprocessing.get_context("forkserver")
MEASURED_UNTIL = [float("inf")]
"""From so many seconds of `taken` on children start without coverage."""
_STOPPING = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)


class Child(subprocess.Popen[Any]):
    """A process that is killed when its block or its test is left.

    What it started goes with it: the product promises that, and tests check it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if taken() >= MEASURED_UNTIL[0]:
            given = options.get("env")
            environ = os.environ if given is None else given
            names = [name for name in environ if not name.startswith(COVERAGE)]
            options["env"] = {name: environ[name] for name in names}
        super().__init__(*arguments, **options)
        _STARTED.append(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Else a test that fails in the block would wait for a process that hangs.
        self.kill()
        super().__exit__(kind, error, trace)


class Fork:
    """A `Child` that a process has forked which has imported `warm`'s modules once.

    Of use where importing (torch takes a second and a half) is most of what a child
    does, and nothing that is tested. That process ends with this one.

    Args:
        main: a function of a module, called with the arguments.
        arguments: of `main`.
        environ: beside the environment of the first of all forks.
    """

    seconds = 0.0
    """How long all that have ended lived."""

    def __init__(
        self,
        main: Callable[..., None],
        arguments: Sequence[str],
        environ: Mapping[str, str],
    ) -> None:
        output, printed = _WARM.Pipe(duplex=False)
        errors, said = _WARM.Pipe(duplex=False)
        measured = any(name.startswith(COVERAGE) for name in os.environ)
        measured = measured and taken() < MEASURED_UNTIL[0]
        given = (main, [*arguments], {**environ}, measured, printed, said)
        self._process = _WARM.Process(target=_become, args=given)
        self._begun = time.monotonic()
        with _unmeasured():
            self._process.start()
        for end in (printed, said):
            end.close()
        self.stdout, self._errors = (
            os.fdopen(os.dup(end.fileno()), encoding="utf-8")
            for end in (output, errors)
        )
        _STARTED.append(self)

    @property
    def returncode(self) -> int | None:
        """The exit code, as of `Child`."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns the exit code, None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end; returns what it printed. It prints little."""
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        with self.stdout, self._errors:
            return self.stdout.read(), self._errors.read()

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.join()
        self.stdout.close()
        self._errors.close()
        Fork.seconds += time.monotonic() - self._begun


def taken() -> float:
    """Returns what all children took that have ended: seconds of CPU, or a fork's life.

    Linux counts nowhere what another's children took.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + Fork.seconds


def warm(*modules: str) -> None:
    """Names what is imported before the first fork."""
    _WARM.set_forkserver_preload([*modules])


def as_module(name: str, *arguments: str) -> None:
    """Becomes `python -m NAME ARGUMENTS`: a `Fork`'s main."""
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


@contextmanager
def _unmeasured() -> Iterator[None]:
    """Lets coverage begin in the fork (it does by itself), not in what it is of."""
    names = [name for name in os.environ if name.startswith(COVERAGE)]
    before = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(before)


def _become(
    main: Callable[..., None],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    measured: bool,
    *outputs: Any,
) -> None:
    """Runs in the fork."""
    # It began by itself, whatever the environment says of processes that start cold.
    if not measured and (running := Coverage.current()):
        running.set_option("run:disable_warnings", ["no-data-collected"])
        running.stop()
    os.environ.update(environ)
    for number, output in enumerate(outputs, 1):
        os.dup2(output.fileno(), number)
        output.close()
    main(*arguments)


def end_all() -> None:
    """Kills and reaps whatever is left."""
    while _STARTED:
        with _STARTED.pop():
            pass


@contextmanager
def foreground() -> Iterator[None]:
    """Lets children heed signals that this process was told to ignore.

    A shell starts a background job (`make test &`) with SIGINT ignored, `nohup`
    does so with SIGHUP, and what is ignored stays so in all that is started. This
    process goes on to do nothing about them, but by a function: a child does not
    inherit that.
    """
    before = {number: signal.getsignal(number) for number in _STOPPING}
    ignored = [number for number in _STOPPING if before[number] is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def background() -> Iterator[None]:
    """Starts children as a shell does with `&`: they are to ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
