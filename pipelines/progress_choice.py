"""Which form of progress is shown: the live one on a terminal, else the plain one."""

from __future__ import annotations

import os
import sys

from pipelines.progress import Progress


def progress_for(run: str) -> Progress:
    """Returns the live form on a terminal, the plain one in CI or a pipe."""
    # rich, which knows more of terminals, takes a while to come.
    asked = any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
    # A CI may give its jobs a terminal, and keeps each frame of a spinner as a line.
    if os.environ.get("CI") or not (asked or sys.stderr.isatty()):
        return Progress(run)
    from pipelines.live_progress import LiveProgress, terminal

    console = terminal()
    return LiveProgress(run, console) if console.is_terminal else Progress(run)
