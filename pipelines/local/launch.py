"""One run from the command line: from a workload file to `run.json`.

Whatever happens, the run's folder says so: a workload that cannot be read, a
stage that fails and a signal all end in a `run.json` with a code and a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.interruptions import Interruptions
from pipelines.ir import on_spark
from pipelines.local.job import Job
from pipelines.local.outcome import write_outcome_page
from pipelines.local.parent import run_job, started_child
from pipelines.local.process_runner import SubprocessRunner
from pipelines.local.runfile import LOG, PIPELINE, RunFile
from pipelines.local.runner import Runner
from pipelines.local.state import DOWNLOADS, HOME, log_failure, pipeline_root
from pipelines.local.store import opened_store, store_identity
from pipelines.own_code import with_code
from pipelines.progress import Progress
from pipelines.progress_choice import progress_for
from pipelines.sources import resolve_locally
from pipelines.workload import Workload
from safescale_ammt.code_version import code_digest
from safescale_ammt.constitution.promise_warnings import promise_warnings
from safescale_ammt.data.audit_warnings import AUDIT, in_lines
from safescale_ammt.errors import Interrupted, Refusal, SafescaleError
from safescale_ammt.files.disk import keep_private
from safescale_ammt.spark.address import Address
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE

TIMEOUT = 14400.0
"""Seconds that a run may take by default; the option `--timeout` repeats the number."""


@dataclass(frozen=True)
class RunRequest:
    """What `safescale run` is to do.

    Attributes:
        config: the workload file.
        constitution: a constitution that replaces the workload's own.
        overrides: `section.key=value`.
        store: URI of the object store; None = the embedded one.
        output: folder of runs.
        cache: whether finished stages are taken from the cache.
        timeout: seconds that the run may take.
        command: the command line, for the record.
        runner: runs the stages.
        stage_timeout: seconds that a stage may take; None = as compiled.
        parameters: values of the pipeline's parameters that are no section.
        strict: what is no pass ends with the code of a refusal, registered or not.
    """

    config: Path
    constitution: Path | None = None
    overrides: tuple[str, ...] = ()
    store: str | None = None
    output: Path = Path("runs")
    cache: bool = True
    timeout: float = TIMEOUT
    command: Sequence[str] = ()
    runner: Runner = field(default_factory=SubprocessRunner)
    stage_timeout: float | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False


def launch(request: RunRequest) -> RunFile:
    """Carries out a run and returns its closed file.

    Raises:
        SafescaleError: the run failed; `run.json` holds its sentence and code.
    """
    with Interruptions() as interruptions:
        run = RunFile.create(request.output, request.command)
        with progress_for(run.id) as progress:
            try:
                _run_pipeline(request, run, progress, interruptions)
                # Until the file is closed, a full disk or a signal ends in it as well.
                run.keep_results()
                missed = request.strict and not run.passed
                run.end(Refusal.exit_code if missed else 0, run.last_sentence)
                write_outcome_page(run)
            except SafescaleError as error:
                try:
                    run.keep_results()  # the report of a refused run
                except (OSError, SafescaleError) as half_made:
                    # A half-made verdict must not hide why the run failed.
                    log_failure(half_made, run.folder / LOG)
                run.end(error.exit_code, str(error))
                write_outcome_page(run, stopped=isinstance(error, Interrupted))
                progress.close()
                for line in (*run.lines, f"record and log: {run.folder}"):
                    progress.say(line)
                raise
            except BaseException as error:
                # No sentence of ours is in it: people get its name, the log the rest.
                log_failure(error, run.folder / LOG)
                run.end(1, f"The run broke: {type(error).__name__}.")
                raise
    return run


def _run_pipeline(
    request: RunRequest, run: RunFile, progress: Progress, interruptions: Interruptions
) -> None:
    """Runs the pipeline in a child, and keeps the run's file up to date."""
    run.facts["runner"] = request.runner.name
    if HOME.is_dir():
        keep_private(HOME)  # an earlier version let others in
    workload = Workload.load(
        request.config,
        constitution=request.constitution,
        overrides=request.overrides,
    )
    workload = with_code(workload, request.config.parent)
    # What is wrong with the request is found before an engine or a store is asked.
    if on_spark(workload.arguments()["data"]):
        Address.of(os.environ)
    request.runner.check(
        workload, request.store or os.environ.get(STORE, ""), os.environ
    )
    # Once, and before anything is spent: the author may want to think again.
    for sentence in promise_warnings(workload.constitution):
        progress.say(f"Warning: {sentence}")
    # What all who work for this run need, before they are forked: the sources' digests,
    # and the client of a store that is no folder.
    code_digest()
    if (request.store or os.environ.get(STORE) or "s3:").startswith("s3:"):
        import_module("safescale_ammt.store.s3")
    # Now, as a spinner has a thread.
    with started_child(run.folder / LOG) as child, ExitStack() as stack:
        progress.begin("store and data ...")
        store = stack.enter_context(opened_store(request.store))
        workload = resolve_locally(workload, store, request.config.parent, DOWNLOADS)
        run.facts |= _facts(workload, store)
        job = Job(
            pipeline=str(run.folder / PIPELINE),
            arguments={**workload.arguments(), **request.parameters},
            pipeline_root=str(pipeline_root(store_identity(store))),
            cache=request.cache,
            store=store.uri,
            prefix=f"runs/{run.id}",
            run=run.id,
            runner=request.runner.name,
            stage_timeout=request.stage_timeout,
        )

        def watch(event: dict[str, Any]) -> None:
            run.apply(event)
            progress.event(event)
            if event["event"] == "finished" and event["stage"] == "prepare_data":
                place = run.artifacts["dataset"]["path"]
                for line in in_lines(run.warnings, f"{place}/{AUDIT}"):
                    progress.say(line)

        # Last, as it may ask a container engine: what can be refused without one is.
        with request.runner.hold(run.id):
            run_job(
                job,
                child,
                environ=os.environ,
                watch=watch,
                interruptions=interruptions,
                timeout=request.timeout,
            )


def _facts(workload: Workload, store: Store) -> dict[str, object]:
    """Returns what `run.json` holds of the request, before anything runs."""
    data = workload.data
    return {
        "store": store.uri,
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
