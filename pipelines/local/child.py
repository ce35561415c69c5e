"""The child of `safescale run`: KFP's local runner, watched from inside.

It gets a job as one line of JSON on its standard input and answers with one
line of JSON per event on its standard output; whatever KFP and the stages print
goes to standard error, which is the run's log. The open standard input is a
lifeline: when the parent dies, however hard, the kernel closes it; then the
containers are removed, and the whole process group ends itself. Should the child
die first, the parent sweeps; should both die at once, the next run does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safescale_ammt.errors import SafescaleError

Report = Callable[..., None]
_LAST_RITES = 10.0
"""Seconds that the removal of containers may take once the parent is gone."""


def main() -> int:
    """Runs the job that stands on the first line of standard input."""
    job = json.loads(sys.stdin.readline())
    last_rites = _end_with_parent()
    report = _reporter()
    try:
        report("importing")
        from pipelines.local.run import LocalRun

        _keep_python3()
        LocalRun(job, report).carry_out(last_rites)
    except SafescaleError as error:
        report("failed", code=error.exit_code, sentence=str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  KFP raises whatever it likes
        traceback.print_exc()
        first = " ".join(str(error).split())
        report("failed", code=1, sentence=f"{type(error).__name__}: {first}")
        return 1
    report("done")
    return 0


def _end_with_parent() -> list[Callable[[], None]]:
    """Kills the own process group once the lifeline is cut.

    Returns:
        A list to put functions in that are called first.
    """
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    last_rites: list[Callable[[], None]] = []

    def watch() -> None:
        while os.read(lifeline, 4096):
            pass
        for rite in last_rites:
            bounded = threading.Thread(target=rite, daemon=True)
            bounded.start()
            bounded.join(_LAST_RITES)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return last_rites


def _reporter() -> Report:
    """Keeps standard output for events; prints go to standard error from here."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def report(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")

    return report


def _keep_python3() -> None:
    """Lets KFP start `python3` from the PATH.

    KFP replaces that word by `sys.executable` wherever it stands in the command
    line, in a data set's path too.
    """
    python3 = Path(sys.executable).with_name("python3")
    if python3.exists() and python3.samefile(sys.executable):
        os.environ["PATH"] = f"{python3.parent}{os.pathsep}{os.environ['PATH']}"
        sys.executable = "python3"


if __name__ == "__main__":
    sys.exit(main())
