"""One process of a training: `python -m safescale_ammt.launch.worker REQUEST`.

Alone it is the whole training; under `torchrun` (RANK and WORLD_SIZE in the
environment) it is one of several, and rank 0 writes the model. Exit codes are
those of a stage. The sentence of an error is the last line of the log, and part of
the failure report in the request's `report` place, for whoever launched it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.execution import describe, stopping_at_sigterm, traceback_lines
from safescale_ammt.launch.failure import report_failure
from safescale_ammt.launch.request import (
    TrainingRequest,
    deliver,
    load_request,
    local_folder,
    open_place,
)
from safescale_ammt.launch.task import STAGE, TrainingTask, make_model
from safescale_ammt.launch.trainer_status import TrainerStatus
from safescale_ammt.library_logs import quiet_libraries
from safescale_ammt.parent_death import end_with_parent, end_with_run
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
        dataset = local_folder(request.dataset, scratch / "dataset", environ)
        searched = local_folder(request.architecture, scratch / "architecture", environ)
        task = TrainingTask.load(
            dataset,
            searched,
            request.constitution,
            request.training,
            environ=environ,
            beside=scratch / "rows",
        )
        # Inputs first: a bad one ends each process by itself, with nobody waiting.
        with closing(join_processes(task, environ)) as process_group:
            checkpoints = task.checkpoints(environ, request.checkpoints)
            place = request.model
            remote = "://" in place and not place.startswith("file:")
            model = scratch / "model" if remote else local_folder(place, scratch)
            status = TrainerStatus.from_environ(task.config.steps, environ)
            with closing(status):
                make_model(task, model, checkpoints, process_group, status.note)
            if process_group.rank == 0:
                if remote:
                    deliver(model, place, environ)
                # Last: a worker that is killed before the model is delivered goes
                # on from its newest checkpoint.
                checkpoints.clear()


def join_processes(task: TrainingTask, environ: Mapping[str, str]) -> ProcessGroup:
    """Joins the processes that `torchrun` has started.

    Raises:
        ConfigError: they are not as many as the config asks for.
        PeerLost: not all of them came.
    """
    size = int(environ.get("WORLD_SIZE", "1"))
    if size != task.config.processes:
        raise ConfigError(
            f"training.processes is {task.config.processes}, but {size} were started; "
            "start as many as the section says."
        )
    return GlooGroup() if size > 1 else SINGLE_PROCESS


def main(arguments: Sequence[str]) -> int:
    """Runs one worker; returns its exit code."""
    rank = int(os.environ.get("RANK", "0"))
    report = ""
    try:
        end_with_parent()
        end_with_run()
        with quiet_libraries(), stopping_at_sigterm(STAGE):
            if len(arguments) != 1:
                raise ConfigError("Name one request: a path or a URI of a JSON file.")
            request = load_request(arguments[0])
            report = request.report
            run_worker(request)
    # Whatever it is, the launcher is to read it: it sees no more than an exit code.
    except BaseException as error:
        if report:
            # A store that fails now must not hide what ended the training.
            with suppress(SafescaleError):
                report_failure(open_place(report), rank, error)
        code, sentence = describe(STAGE, error)[1:]
        if isinstance(error, SafescaleError):
            print(sentence, file=sys.stderr, flush=True)
        elif isinstance(error, Exception):
            # The traceback without a message that may quote a row.
            print(*traceback_lines(error), sep="", file=sys.stderr, flush=True)
        elif not isinstance(error, KeyboardInterrupt):
            raise
        return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
