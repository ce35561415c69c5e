"""One run from the command line: from a workload file to `run.json`.

Whatever happens, the run's folder says so: a workload that cannot be read, a
stage that fails and a signal all end in a `run.json` with a code and a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.local import Interruptions, Job, run_job
from pipelines.progress import Progress, progress_for
from pipelines.runfile import LOG, PIPELINE, RunFile
from pipelines.source import resolved
from pipelines.state import log_failure, pipeline_root
from pipelines.store import Place, opened
from pipelines.workload import Workload
from safescale_ammt.code_version import code_digest
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.releasing.notice import FILE
from safescale_ammt.storage import STORE

TIMEOUT = 14400.0
"""Seconds that a run may take unless it is given more."""


@dataclass(frozen=True)
class Request:
    """What `safescale run` was asked for.

    Attributes:
        config: the workload file.
        constitution: a constitution that replaces the workload's own.
        overrides: `section.key=value`.
        store: URI of the object store; None = the embedded one.
        output: folder of runs.
        cache: whether finished stages are taken from the cache.
        timeout: seconds that the run may take.
        command: the command line, for the record.
        runner: `subprocess`, or `docker` for containers.
        stage_timeout: seconds that a stage may take; None = as compiled.
        parameters: values of the pipeline's parameters that are no section.
    """

    config: Path
    constitution: Path | None = None
    overrides: tuple[str, ...] = ()
    store: str | None = None
    output: Path = Path("runs")
    cache: bool = True
    timeout: float = TIMEOUT
    command: Sequence[str] = ()
    runner: str = "subprocess"
    stage_timeout: float | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


def launch(request: Request) -> RunFile:
    """Carries out a run and returns its closed file.

    Raises:
        SafescaleError: the run failed; `run.json` holds its sentence and code.
    """
    with Interruptions() as interruptions:
        run = RunFile.create(request.output, request.command)
        with progress_for(run.id) as progress:
            try:
                _carry_out(request, run, progress, interruptions)
            except SafescaleError as error:
                _results_so_far(run)
                run.end(error.exit_code, str(error))
                progress.close()
                progress.say(f"record and log: {run.folder}")
                raise
            except BaseException as error:
                log_failure(error, run.folder / LOG)
                run.end(1, f"The run broke: {type(error).__name__}.")
                raise
            run.keep_results()
            run.end(0, _sentence(run))
    return run


def _carry_out(
    request: Request, run: RunFile, progress: Progress, interruptions: Interruptions
) -> None:
    run.facts["runner"] = request.runner
    workload = Workload.load(
        request.config,
        constitution=request.constitution,
        overrides=request.overrides,
    )
    _check_containers(request, workload)
    progress.begin("store and data ...")
    with opened(request.store) as place:
        workload = resolved(workload, place, request.config.parent)
        run.facts |= _facts(workload, place)
        job = Job(
            pipeline=str(run.folder / PIPELINE),
            arguments={**workload.arguments(), **request.parameters},
            pipeline_root=str(pipeline_root(place.identity())),
            cache=request.cache,
            store=place.uri,
            prefix=f"runs/{run.id}",
            run=run.id,
            runner=request.runner,
            stage_timeout=request.stage_timeout,
        )

        def watch(event: dict[str, object]) -> None:
            run.apply(event)
            progress.event(event)

        # The engine comes last: what can be refused without one has been.
        with _engine_for(request, run):
            run_job(
                job,
                environ=os.environ,
                log=run.folder / LOG,
                watch=watch,
                interruptions=interruptions,
                timeout=request.timeout,
            )


def _engine_for(request: Request, run: RunFile) -> AbstractContextManager[None]:
    """Asks for the container engine, if one is needed."""
    if request.runner != "docker":
        return nullcontext()
    from pipelines.container_engine import swept

    return swept(run.id)


def _check_containers(request: Request, workload: Workload) -> None:
    """Refuses what a container cannot reach, before anything is spent.

    Raises:
        ConfigError: stages in containers, and a store that is a folder here, or
            checkpoints or a TrainJob, for which training would need keys.
    """
    if request.runner != "docker":
        return
    if every := workload.training.checkpoint_every:
        raise ConfigError(
            f"training.checkpoint_every is {every}, but in a container training has "
            "neither keys nor a network to keep a checkpoint; set it to 0, or take "
            "--runner subprocess."
        )
    if workload.training.backend == "trainjob":
        raise ConfigError(
            "training.backend is trainjob, but in a container training has neither "
            "keys nor a network to ask a cluster; set it to local or torchrun, or "
            "take --runner subprocess."
        )
    places = {
        "The store": request.store or os.environ.get(STORE, ""),
        FILE: os.environ.get(FILE, ""),
    }
    for name, uri in places.items():
        if uri.startswith("file:"):
            raise ConfigError(
                f"{name} is {uri}, but a container writes to no folder of this machine "
                "except its stage's own; name an s3:// place, or take --runner "
                "subprocess."
            )


def _facts(workload: Workload, place: Place) -> dict[str, object]:
    data = workload.data
    return {
        "store": place.uri,
        "source": data.source,
        "sealed_source": data.sealed_source,
        "source_digest": data.source_digest,
        "config": {n: s.to_params() for n, s in workload.sections.items()},
        "config_digest": workload.digest,
        "constitution": {
            "id": workload.constitution.id,
            "version": workload.constitution.version,
            "digest": workload.constitution.digest,
        },
        "code_digest": code_digest(),
    }


def _results_so_far(run: RunFile) -> None:
    """Keeps the report of a refused run; a half-made verdict must not hide why."""
    try:
        run.keep_results()
    except (OSError, SafescaleError) as error:
        log_failure(error, run.folder / LOG)


def _sentence(run: RunFile) -> str:
    verdict = run.results["verdict"]
    version = run.results["version"]
    if verdict["mode"] == "rehearsal":
        return f"Rehearsal: {verdict['decision']}; nothing was registered."
    name, number, status = (version[k] for k in ("registry", "version", "status"))
    return f"{name} version {number} is {status.replace('_', ' ')}."
