"""Torchrun: the same worker in several processes on this machine.

The stage starts this module as a process of its own, which is `torchrun` with two
things more: it ends with the stage, and it prints no traceback of an error that its
workers have reported already.

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
from pathlib import Path

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import SafescaleError
from safescale_ammt.execution import error_of
from safescale_ammt.files.canonical import write_json
from safescale_ammt.launch.failure import CONSEQUENCES, first_failure
from safescale_ammt.launch.request import TrainingRequest, checkpoint_place
from safescale_ammt.parent_death import PARENT, end_with_parent

GRACE = 40.0
"""Seconds between SIGTERM and SIGKILL; `torchrun` gives its workers 30."""


def train_in_processes(
    dataset: Path,
    architecture: Path,
    constitution: Constitution,
    config: TrainingConfig,
    *,
    model: Path,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Trains in as many processes as the config names and writes the model artifact.

    Whatever happens, no process is left when this returns.

    Args:
        dataset: the dataset artifact.
        architecture: the architecture artifact.
        constitution: the promises.
        config: the training section.
        model: where the model artifact is written.
        environ: of the workers; names the place for checkpoints.

    Raises:
        ConfigError: the config asks for checkpoints, but nothing names a place.
        SafescaleError: what the first process to fail has reported, with its exit
            code.
    """
    with tempfile.TemporaryDirectory(prefix="safescale-") as scratch:
        folder = Path(scratch)
        request = TrainingRequest(
            dataset=str(dataset.absolute()),
            architecture=str(architecture.absolute()),
            constitution=constitution.to_dict(),
            training=config.to_params(),
            model=str(model.absolute()),
            checkpoints=checkpoint_place(config, environ),
            report=str(folder / "report"),
        )
        write_json(folder / "request.json", request.to_dict())
        command = [
            *(sys.executable, "-m", "safescale_ammt.launch.torchrun"),
            *(str(config.processes), str(folder / "request.json")),
        ]
        # Gloo would take the address of the host's name; all traffic stays inside.
        loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
        # torchrun logs a report of its own on every worker that failed.
        quiet = {"LOGLEVEL": "CRITICAL", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        threads = {"OMP_NUM_THREADS": "1"}
        code = _run(command, {**environ, **threads, **quiet, **loopback})
        if code:
            # Nobody was stopped from here (see `_run`): a process that was stopped or
            # lost touch was so because another vanished and could report nothing.
            failure = first_failure(request.report)
            if failure is not None and failure["class"] not in CONSEQUENCES:
                raise error_of(int(failure["code"]), str(failure["sentence"]))
            raise SafescaleError(
                f"One of {config.processes} training processes ended without a word "
                f"(killed, or out of memory); torchrun ended with code {code}. Give "
                "more memory or fewer training.processes."
            )


def _run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs a command to its end; stops it if this process is stopped."""
    child = subprocess.Popen(command, env={**environ, PARENT: str(os.getpid())})
    try:
        return child.wait()
    finally:
        # An exception is on its way: the stage is being stopped.
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def main(arguments: Sequence[str]) -> int:
    """Runs `torchrun` on this machine: 0 if all is well, else 1."""
    # Before torch: its import takes seconds, in which the stage may be killed.
    end_with_parent()
    os.environ[PARENT] = str(os.getpid())  # of the workers
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    count, request = arguments
    options = [
        *("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", count),
        *("--module", "safescale_ammt.launch.worker", request),
    ]
    try:
        run(get_args_parser().parse_args(options))  # type: ignore[no-untyped-call]
    except (ChildFailedError, SignalException):
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
