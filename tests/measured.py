"""Coverage looks at the first part of a test: what runs on and on is seen by then.

Before Python 3.14 coverage is asked at every call, also in files that it leaves out,
which doubles the CPU seconds of what calls much: properties with a hundred examples,
and the plain answers that ours are compared with. A line that only runs later counts as
not run: what is reported is never more than what ran.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from coverage import Coverage

SECONDS = 0.5
"""Of CPU, of all threads of this process."""


@contextmanager
def at_first(seconds: float = SECONDS) -> Iterator[None]:
    """Lets coverage of this process rest once the block has taken these CPU seconds."""
    running = Coverage.current()
    # Coverage's own `stop` and `start` would warn and patch anew each time.
    collector = running._collector if running else None
    # Another core than a trace function costs next to nothing.
    if collector is None or not collector.core.systrace:
        yield
        return
    rests = False

    def rest(*_: object) -> None:
        nonlocal rests
        rests = True
        collector.stop()

    before = signal.signal(signal.SIGVTALRM, rest)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        # By default the signal ends a process, and one may still be on its way.
        signal.signal(signal.SIGVTALRM, before if callable(before) else signal.SIG_IGN)
        if rests:
            collector.start()
