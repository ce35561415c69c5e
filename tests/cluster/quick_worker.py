"""Stands in for the training worker where a test is about a TrainJob's life.

It reads the request as the worker does, says a few lines, and delivers a model
that was trained before. What it does is told by the environment of its runtime:
QUICK_MODEL (that model), QUICK_LINES, QUICK_HOLD (a file: it waits until that
exists), QUICK_FAIL (a sentence: it writes a failure report and exits).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from safescale_ammt.errors import IntegrityError
from safescale_ammt.launch.failure import report_failure
from safescale_ammt.launch.request import deliver, load_request, open_place


def main(where: str) -> int:
    """Does what the environment says; returns the exit code."""
    request = load_request(where)
    rank = int(os.environ["PET_NODE_RANK"])
    lines = int(os.environ.get("QUICK_LINES", "3"))
    for number in range(lines):
        print(f"line {number} of node {rank}", flush=True)
    if hold := os.environ.get("QUICK_HOLD"):
        print("holding", flush=True)
        while not Path(hold).exists():
            time.sleep(0.02)
    if sentence := os.environ.get("QUICK_FAIL"):
        if sentence != "silently":
            report_failure(open_place(request.report), rank, IntegrityError(sentence))
        print(sentence, file=sys.stderr, flush=True)
        return 1
    if rank == 0:
        open_place(request.checkpoints).put("state.bin", b"a checkpoint")
        deliver(Path(os.environ["QUICK_MODEL"]), request.model)
    print(f"last line of node {rank}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
