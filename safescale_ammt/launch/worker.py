"""One process of a training: `python -m safescale_ammt.launch.worker REQUEST`.

Alone it is the whole training; under `torchrun` (RANK and WORLD_SIZE in the
environment) it is one of several, and rank 0 writes the model. Exit codes are
those of a stage; the sentence of what went wrong is the last line of its log, and
lies in the request's `report` place for whoever launched it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.execution import describe, stopping_at_sigterm, traceback_lines
from safescale_ammt.launch.failure import place, report_failure
from safescale_ammt.launch.lifeline import end_with_parent
from safescale_ammt.launch.request import (
    TrainingRequest,
    delivered,
    fetched,
    load_request,
)
from safescale_ammt.launch.task import STAGE, TrainingTask, make_model
from safescale_ammt.launch.trainer_status import TrainerStatus
from safescale_ammt.training.placement import SINGLE_PROCESS, GlooGroup, ProcessGroup


def run_worker(
    request: TrainingRequest, environ: Mapping[str, str] = os.environ
) -> None:
    """Trains as one of the processes that the environment speaks of.

    Raises:
        ConfigError: there are more or fewer processes than the config asks for.
        SafescaleError: what `make_model` raises.
    """
    with tempfile.TemporaryDirectory(prefix="safescale-") as name:
        scratch = Path(name)
        work = TrainingTask.load(
            fetched(request.dataset, scratch / "dataset", environ),
            fetched(request.architecture, scratch / "architecture", environ),
            request.constitution,
            request.training,
        )
        process_group = joined(work, environ)
        try:
            checkpoints = work.checkpoints(request.checkpoints, environ)
            remote = "://" in request.model and not request.model.startswith("file:")
            model = scratch / "model" if remote else fetched(request.model, scratch)
            progress = TrainerStatus.from_environ(work.config.steps, environ)
            make_model(work, model, checkpoints, process_group, progress.note)
            if process_group.rank == 0:
                if remote:
                    delivered(model, request.model, environ)
                checkpoints.clear()
        finally:
            process_group.close()


def joined(work: TrainingTask, environ: Mapping[str, str]) -> ProcessGroup:
    """Joins the processes that `torchrun` has started.

    Raises:
        ConfigError: they are not as many as the config asks for.
        PeerLost: not all of them came.
    """
    size = int(environ.get("WORLD_SIZE", "1"))
    if size != work.config.processes:
        raise ConfigError(
            f"training.processes is {work.config.processes}, but {size} were started; "
            "start as many as the section says."
        )
    return GlooGroup() if size > 1 else SINGLE_PROCESS


def main(arguments: Sequence[str]) -> int:
    """Runs one worker; returns its exit code."""
    rank = int(os.environ.get("RANK", "0"))
    report = ""
    try:
        end_with_parent()
        with stopping_at_sigterm(STAGE):
            if len(arguments) != 1:
                raise ConfigError("Name one request: a path or a URI of a JSON file.")
            request = load_request(arguments[0])
            report = request.report
            run_worker(request)
    except BaseException as error:
        _tell(rank, report, error)
        # Its traceback is told already, without a message that may quote a row.
        if not isinstance(error, Exception | KeyboardInterrupt):
            raise
        return describe(STAGE, error)[1]
    return 0


def _tell(rank: int, report: str, error: BaseException) -> None:
    """Leaves word of what went wrong, where the request asks for it and in the log."""
    if report:
        with suppress(SafescaleError):
            report_failure(place(report), rank, error)
    if isinstance(error, SafescaleError):
        print(describe(STAGE, error)[2], file=sys.stderr, flush=True)
    elif isinstance(error, Exception):
        print(*traceback_lines(error), sep="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
