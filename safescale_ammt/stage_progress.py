"""How far a stage is: a line of its output, which whoever listens to it takes out.

A process and a container have an output in common, and no other way out. Lines are
written only where `PROGRESS` in the environment asks for them: nobody would take them
out of a pod's log.
"""

from __future__ import annotations

import json
import os
import sys

PROGRESS = "SAFESCALE_PROGRESS"
"""Variable that asks the stages below for lines of progress."""
_MARK = "safescale-progress "


def say_progress(done: float, whole: float, text: str) -> None:
    """Says how much of a stage's work is done, if anybody listens.

    Args:
        done: the part of it that is done.
        whole: all of it, in the same unit.
        text: the same in words, such as `3 of 12 candidates`; no row's value.
    """
    if not os.environ.get(PROGRESS):
        return
    share = min(1.0, done / whole) if whole > 0 else 0.0
    line = _MARK + json.dumps({"share": round(share, 4), "text": text})
    # One write: the processes of a distributed training share this output.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def progress_of(line: str) -> tuple[float, str] | None:
    """Returns share and text of a line of progress, None of any other line."""
    mark, _, rest = line.strip().partition(_MARK)
    if mark or not rest:
        return None
    try:
        found = json.loads(rest)
        return float(found["share"]), str(found["text"])
    except (KeyError, TypeError, ValueError):
        return None
