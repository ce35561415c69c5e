"""A thread that dies ends its test at once, which would else wait for it for ever.

Servers, readers and watchers of the tests are threads. What breaks in one is printed by
Python and is otherwise nobody's: whoever waits for what the thread should have done
waits to the end of his patience, and then says something else.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def end_the_test() -> Iterator[None]:
    """Raises in the main thread what a thread dies of within the block.

    Raises:
        AssertionError: a thread died; its cause is the thread's own exception.
    """
    reported = threading.excepthook
    died: list[threading.ExceptHookArgs] = []
    over = threading.Event()

    def report(found: threading.ExceptHookArgs) -> None:
        # Whoever was there before may still want to tell of it.
        reported(found)
        if over.is_set() or found.exc_type is SystemExit:
            return
        died.append(found)
        # Wakes the main thread, whatever it waits for.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def tell(number: int, frame: FrameType | None) -> None:
        if died:
            name = died[0].thread.name if died[0].thread else "a thread"
            kind, cause = died[0].exc_type.__name__, died[0].exc_value
            died.clear()
            raise AssertionError(f"{name} died: {kind}: {cause}") from cause

    before = signal.signal(signal.SIGUSR1, tell)
    threading.excepthook = report
    try:
        yield
    finally:
        over.set()
        died.clear()
        threading.excepthook = reported
        # By default the signal ends a process, and one may still be on its way.
        signal.signal(signal.SIGUSR1, before if callable(before) else signal.SIG_IGN)
