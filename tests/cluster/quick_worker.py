"""Stands in for the training worker where a test is about a TrainJob's life.

It reads the request as the worker does, says a few lines, and delivers a model
that was trained before. What it does is told by the environment of its runtime:
QUICK_MODEL (that model), QUICK_LINES, QUICK_HOLD (a file: it waits until that
exists), QUICK_FAIL (a sentence: it writes a failure report and exits; "silently":
it only exits), QUICK_CLASS (the error's class), QUICK_FAILS (how often; by default
always), QUICK_DEAF (goes on after SIGTERM, as what ends within its grace period).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from safescale_ammt import errors
from safescale_ammt.launch.failure import report_failure
from safescale_ammt.launch.request import deliver, load_request, open_place


def main(where: str) -> int:
    """Does what the environment says; returns the exit code."""
    request = load_request(where)
    rank = int(os.environ["PET_NODE_RANK"])
    if os.environ.get("QUICK_DEAF"):
        signal.signal(signal.SIGTERM, lambda *_: print("asked to end", flush=True))
    lines = int(os.environ.get("QUICK_LINES", "3"))
    for number in range(lines):
        print(f"line {number} of node {rank}", flush=True)
    if hold := os.environ.get("QUICK_HOLD"):
        print("holding", flush=True)
        while not Path(hold).exists():
            time.sleep(0.02)
    if (sentence := os.environ.get("QUICK_FAIL")) and fails_again(request.checkpoints):
        if sentence != "silently":
            kind = getattr(errors, os.environ.get("QUICK_CLASS", "IntegrityError"))
            report_failure(open_place(request.report), rank, kind(sentence))
        print(sentence, file=sys.stderr, flush=True)
        return 1
    if rank == 0:
        open_place(request.checkpoints).put("state.bin", b"a checkpoint")
        deliver(Path(os.environ["QUICK_MODEL"]), request.model)
    print(f"last line of node {rank}", flush=True)
    return 0


def fails_again(checkpoints: str) -> bool:
    """Counts the failures where checkpoints lie: what a job after this one finds."""
    place, most = open_place(checkpoints), int(os.environ.get("QUICK_FAILS", "0"))
    failed = len(list(place.list("failed-")))
    if most and failed >= most:
        return False
    place.put(f"failed-{failed}", b"")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
