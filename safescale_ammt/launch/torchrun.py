"""Torchrun: the same worker in several processes on this machine.

The stage starts this module as a process of its own, which is `torchrun` with some
things more: it ends with the stage, it prints no traceback of an error that its workers
have reported already, it forks them from one process that has imported torch, and if
one of them is lost all begin again from their checkpoint, `training.restarts` times.

    stage -> python -m safescale_ammt.launch.torchrun REQUEST
                -> a fork server -> N workers (`safescale_ammt.launch.worker`)
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.execution import error_of
from safescale_ammt.files.artifacts import MANIFEST
from safescale_ammt.files.canonical import write_json
from safescale_ammt.launch.failure import (
    CONSEQUENCES,
    clear_failures,
    first_failure,
    may_pass,
)
from safescale_ammt.launch.request import (
    TrainingRequest,
    checkpoint_place,
    load_request,
    open_place,
)
from safescale_ammt.parent_death import PARENT, end_with_parent

PRELOADED = (
    "safescale_ammt.launch.worker",
    "safescale_ammt.training.genome_nets",
    "safescale_ammt.training.merge",
    "torch.distributed",
)
"""Modules that the fork server imports, once for all processes."""
LOST = 1
"""Exit code of the launcher if processes were lost as often as they may be."""
# Python makes a folder of its own in there, which nobody else may enter.
SHORT, SHORT_FOLDERS = 70, ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
"""Bytes of a temporary folder in which the fork server's socket may lie, and others.

An address has 103 bytes on macOS and 107 on Linux, and Python's names take 32.
"""
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

    Whatever happens, no process is left when this returns; where the launcher itself
    was killed, none after `GRACE`.

    Args:
        dataset: the dataset artifact.
        architecture: the architecture artifact.
        constitution: the promises.
        config: the training section.
        model: where the model artifact is written.
        environ: of the workers; names the place for checkpoints.

    Raises:
        ConfigError: the config asks for checkpoints, but nothing names a place; or no
            folder has a name short enough for a socket.
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
            # Without a place of the user's they live as long as the stage: long enough
            # for a process that is lost.
            checkpoints=checkpoint_place(config, environ)
            or str(folder / "checkpoints"),
            report=str(folder / "report"),
        )
        write_json(folder / "request.json", request.to_dict())
        command = [
            *(sys.executable, "-m", "safescale_ammt.launch.torchrun"),
            str(folder / "request.json"),
        ]
        # Gloo would take the address of the host's name; all traffic stays inside.
        loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
        # torchrun logs a report of its own on every worker that failed.
        quiet = {"LOGLEVEL": "CRITICAL", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        threads = {"OMP_NUM_THREADS": "1"}
        place = {"TMPDIR": socket_folder(tempfile.gettempdir())}
        code = _run(command, {**environ, **threads, **quiet, **loopback, **place})
        if code:
            # Nobody was stopped from here (see `_run`): a process that was stopped or
            # lost touch was so because another vanished and could report nothing.
            failure = first_failure(request.report)
            if failure is not None and failure["class"] not in CONSEQUENCES:
                raise error_of(int(failure["code"]), str(failure["sentence"]))
            often = f", {config.restarts + 1} times with training.restarts = "
            often += str(config.restarts)
            raise SafescaleError(
                f"One of {config.processes} training processes ended without a word "
                f"(killed, or out of memory){often * (code == LOST)}; torchrun ended "
                f"with code {code}. Give more memory or fewer training.processes."
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
    """Runs the processes, again if they were lost: 0 if all is well, else `LOST`.

    After a signal it is what a shell has for it.
    """
    # Before torch: its import takes seconds, in which the stage may be killed.
    end_with_parent()
    where = arguments[0]
    request = load_request(where)
    config = TrainingConfig.from_params(request.training)
    # Each process is a fork of one that has imported torch once: eight are there in the
    # time of one, again and again.
    get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The workers report what there is to say of them, in a sentence each.
    logging.disable()
    for left in range(config.restarts, -1, -1):
        # As `torchrun --standalone` has it: a store of its own on a free port.
        layout = LaunchConfig(
            *(1, 1, config.processes),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="forkserver",
            local_addr="127.0.0.1",
        )
        try:
            elastic_launch(layout, work)(where)
        except SignalException as error:
            return 128 + error.sigval
        except ChildFailedError as error:
            # What the program itself found fault with, it would find again.
            if not left or not may_pass(first_failure(request.report), ""):
                return LOST
            codes = {rank: f.exitcode for rank, f in error.failures.items()}
            say_again(codes, config, left, request.checkpoints)
            clear_failures(request.report)
        else:
            break
    return 0


def socket_folder(temporary: str) -> str:
    """Finds a folder whose name leaves room for a socket's.

    Args:
        temporary: the folder that the user's `TMPDIR` names.

    Returns:
        That folder, or where its name is too long one of the machine's own.

    Raises:
        ConfigError: none of those can be written to.
    """
    if len(os.fsencode(temporary)) <= SHORT:
        return temporary
    for folder in SHORT_FOLDERS:
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ConfigError(
        f"TMPDIR has {len(os.fsencode(temporary))} bytes, and the socket of the "
        f"training processes has room for {SHORT}; none of "
        f"{', '.join(SHORT_FOLDERS)} can be written to. Name a shorter TMPDIR."
    )


def work(where: str) -> None:
    """Runs one worker, in a fork.

    Raises:
        SystemExit: with the worker's exit code, if it is not 0.
    """
    # The fork server is its parent, and it ends with the launcher.
    os.environ.pop(PARENT, None)
    end_with_parent()
    launcher = parent_process()
    if launcher is not None:
        if not launcher.is_alive():
            raise SystemExit(1)
        # The fork server ends when its forks have, and would wait for them.
        Thread(target=end_after, args=(launcher,), daemon=True).start()
    # What a process that is killed leaves goes with the stage's own folder.
    tempfile.tempdir = str(Path(where).parent)
    from safescale_ammt.launch import worker

    if code := worker.main([where]):
        raise SystemExit(code)


def end_after(launcher: BaseProcess) -> None:
    """Waits for the launcher's end, then stops this process; after a grace it kills it.

    A launcher that is stopped stops its workers itself, one that is killed cannot.
    """
    launcher.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def say_again(
    codes: Mapping[int, int], config: TrainingConfig, left: int, checkpoints: str
) -> None:
    """Says which process was lost, and how much is done anew.

    Args:
        codes: rank -> exit code of those that were seen to fail; < 0 = a signal.
        config: the training section.
        left: how often it may begin again.
        checkpoints: where they are kept.
    """
    # Of those seen at once, the others ended because one was gone.
    rank, code = min(codes.items(), key=lambda item: (item[1] >= 0, item[0]))
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    anew, times = "from its beginning", []
    # A store that fails just now is the workers' affair.
    with suppress(SafescaleError):
        kept = open_place(checkpoints).list("step-")
        times = [i.modified for i in kept if i.key.endswith(f"/{MANIFEST}")]
    if times:
        seconds = (datetime.now(UTC) - max(times)).total_seconds()
        anew = f"from the checkpoint of {seconds:.1f} s ago"
    print(
        f"Process {rank + 1} of {config.processes} was lost ({how}); training goes on "
        f"{anew}, {left} of {config.restarts} times left.",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
