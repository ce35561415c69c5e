"""Coverage looks at the first part of a test: what runs on and on is seen by then.

Before Python 3.14 coverage is asked at every call, also in files that it leaves out,
which doubles the CPU seconds of what calls much: properties with a hundred examples,
and the plain answers that ours are compared with. A line that only runs later counts as
not run: what is reported is never more than what ran. So it is with the processes that
tests start: the first of each file of tests are measured, and the others start bare.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import children
from coverage import Coverage

SECONDS = 0.5
"""Of CPU, of all threads of this process."""
OF_CHILDREN = 5.0
"""Of CPU, of all that the tests of a file start."""
_TAKEN: Counter[str] = Counter()


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


@contextmanager
def children_at_first(file: str, seconds: float = OF_CHILDREN) -> Iterator[None]:
    """Lets children be measured until those of a file have taken these CPU seconds."""
    begun = children.taken()
    children.MEASURED_UNTIL[0] = begun + seconds - _TAKEN[file]
    names = [name for name in os.environ if name.startswith(children.COVERAGE)]
    bare = _TAKEN[file] >= seconds
    before = {name: os.environ.pop(name) for name in names if bare}
    try:
        yield
    finally:
        os.environ.update(before)
        children.MEASURED_UNTIL[0] = float("inf")
        _TAKEN[file] += children.taken() - begun


def remove_torn(base: Path) -> list[Path]:
    """Removes what processes left that were killed while they wrote what they saw.

    Nothing is lost by it: coverage itself cannot read such a file, and warns.

    Args:
        base: the data file; those of processes have its name and a suffix.

    Returns:
        The files that were there.
    """
    found = sorted(base.parent.glob(f"{base.name}.*"))
    torn = [file for file in found if not _is_whole(file)]
    for file in torn:
        file.unlink()
    return torn


def _is_whole(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as data:
            data.execute("SELECT version FROM coverage_schema").fetchone()
            return bool(data.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False
