"""Runs one job of the pipeline, and prints its events: a process of the executor.

    python worker.py < job.json

A stop (SIGTERM) goes to the stages, as Argo's does; a kill leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pipelines.interruptions import Interruptions
from pipelines.local.job import Job
from pipelines.local.parent import run_job, started_child
from safescale_ammt.errors import SafescaleError


def main() -> int:
    """Runs the job on standard input."""
    job = Job.from_json(sys.stdin.readline())

    def watch(event: dict[str, object]) -> None:
        if event["event"] != "tick":
            print(json.dumps(event), flush=True)

    log = Path(job.pipeline).with_suffix(".log")
    with Interruptions() as interruptions, started_child(log) as child:
        try:
            run_job(
                job,
                child,
                environ=os.environ,
                watch=watch,
                interruptions=interruptions,
                timeout=3600,
            )
        except SafescaleError as error:
            print(json.dumps({"event": "end", "sentence": str(error)}), flush=True)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
