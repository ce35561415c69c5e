"""Torchrun: the same worker in several processes on this machine.

The stage starts this module as a process of its own, which is `torchrun` with two
things more: it ends with the stage, and it does not print a traceback of what its
workers have said already.

    stage -> python -m safescale_ammt.launch.torchrun N REQUEST
                -> N x python -m safescale_ammt.launch.worker REQUEST
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safescale_ammt.errors import SafescaleError
from safescale_ammt.execution import error_of
from safescale_ammt.files.canonical import write_json
from safescale_ammt.launch.failure import CONSEQUENCES, first_failure
from safescale_ammt.launch.lifeline import end_with_parent
from safescale_ammt.launch.request import TrainingRequest

GRACE = 40.0
"""Seconds between SIGTERM and SIGKILL; `torchrun` gives its workers 30."""


def train_in_processes(
    request: TrainingRequest, environ: Mapping[str, str] = os.environ
) -> None:
    """Trains in as many processes as the request's config asks for.

    Whatever happens, no process is left when this returns.

    Raises:
        SafescaleError: what the first process to fail has said, with its exit code.
    """
    count = int(request.training["processes"])
    with tempfile.TemporaryDirectory(prefix="safescale-") as scratch:
        folder = Path(scratch)
        asked = replace(request, report=str(folder / "report"))
        write_json(folder / "request.json", asked.to_dict())
        command = [
            *(sys.executable, "-m", "safescale_ammt.launch.torchrun"),
            *(str(count), str(folder / "request.json")),
        ]
        code = _waited(command, _environment(environ))
        if code:
            # We asked nobody to stop (see `_waited`): who was stopped or lost
            # touch was so because another vanished, and that one could say nothing.
            failure = first_failure(asked.report)
            if failure is not None and failure["class"] not in CONSEQUENCES:
                raise error_of(int(failure["code"]), str(failure["sentence"]))
            raise SafescaleError(
                f"One of {count} training processes ended without a word (killed, or "
                f"out of memory); torchrun ended with code {code}. Give more memory "
                "or fewer training.processes."
            )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the workers' environment: loopback only, no noise in the log."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    quiet = {"LOGLEVEL": "CRITICAL", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return {**environ, "OMP_NUM_THREADS": "1", **quiet, **loopback}


def _waited(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs a command to its end; takes it down if this process is stopped."""
    child = subprocess.Popen(command, env=dict(environ))
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def main(arguments: Sequence[str]) -> int:
    """Runs `torchrun` on this machine: 0 if all is well, else 1."""
    end_with_parent()
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    count, request = arguments
    given = [
        *("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", count),
        *("--module", "safescale_ammt.launch.worker", request),
    ]
    try:
        run(get_args_parser().parse_args(given))  # type: ignore[no-untyped-call]
    except (ChildFailedError, SignalException):
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
