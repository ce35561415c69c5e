"""Processes that a test starts: none of them outlives it, however it ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

_STARTED: list[Child] = []
_STOPPING = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)


class Child(subprocess.Popen[Any]):
    """A process that is killed when its block or its test is left.

    What it started goes with it: the product promises that, and tests check it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
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
