"""One run of the compiled pipeline under KFP's local runner, inside the child.

The compiled graph is made to fit this machine, and run with every task watched.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from components import REUSABLE, SPARK, WITH_TORCH, image
from pipelines.ir import BATTERY_HOURS, CompiledPipeline, by_slopes, on_spark
from pipelines.local.compiled import compiled_pipeline
from pipelines.local.job import Job
from pipelines.local.kfp_seam import import_without_client, run_pipeline
from pipelines.local.mirror import Mirror
from pipelines.local.runner import Closing, TaskContext
from pipelines.local.runners import runner_named
from pipelines.local.tasks import Report, TaskWatch
from pipelines.local.warm_process import WarmProcess
from safescale_ammt.errors import SafescaleError, StorageError
from safescale_ammt.releasing.notice import PLACES
from safescale_ammt.releasing.run_outcome import CRASHED, RunOutcome
from safescale_ammt.store.base import Store


def run_here(
    job: Job, report: Report, closing: Closing, warm: WarmProcess | None = None
) -> None:
    """Runs a job to its end.

    Args:
        job: what to run.
        report: takes events.
        closing: gets what has to be called before this process is killed.
        warm: what stages are forked from, if it was begun already.

    Raises:
        SafescaleError: what broke the first stage that broke.
    """
    runner = runner_named(job.runner)
    text = compiled_pipeline()
    import_without_client()
    # The record holds what Kubeflow would get; the edits below are of this machine.
    Path(job.pipeline).write_text(text, encoding="utf-8")
    pipeline = CompiledPipeline.parse(text)
    # On Kubeflow the exit task reports how a run ended; here the command line does,
    # unless the environment names somebody else to tell.
    has_readers = any(os.environ.get(name) for name in PLACES)
    if not has_readers:
        pipeline.drop_exit_tasks()
    # The gate and the exit task find each other's words by the run's id.
    pipeline.set_run_id(job.run)
    pipeline.drop_retries()
    # The code is known here: the folder of the cache bears its digest.
    pipeline.reuse(job.arguments["data"].get("source_digest", ""), REUSABLE)
    if on_spark(job.arguments["data"]):
        pipeline.swap_image(image("prepare_data"), image(SPARK))
    if by_slopes(job.arguments["constitution"]):
        pipeline.swap_image(image("evaluate_safety"), image(WITH_TORCH))
        pipeline.set_hours("exec-evaluate-safety", BATTERY_HOURS)
    limits = pipeline.take_limits(job.arguments)
    mirror = Mirror(job.store, job.prefix)
    deadlines = {
        label: float(job.stage_timeout or settings["activeDeadlineSeconds"])
        for label, settings in pipeline.kubernetes.items()
    }

    def on_failure(error: SafescaleError) -> None:
        if has_readers:
            try:
                record_crash(mirror.store, job.run, error)
            except StorageError:  # the first error counts, this one is for the log
                traceback.print_exc()

    watch = TaskWatch(
        report, mirror, deadlines, stops_group=runner.stops_group, on_failure=on_failure
    )
    context = TaskContext(
        pipeline=pipeline,
        limits=limits,
        run=job.run,
        environ=os.environ,
        report=report,
        closing=closing,
        current=lambda: watch.task,
        warm=warm,
    )
    with runner.tasks(context) as run_task:
        run_pipeline(
            pipeline.to_local_yaml(),
            job.arguments,
            pipeline_root=job.pipeline_root,
            cache=job.cache,
            watch=watch.execute,
            run_task=run_task,
            # Where a stage is no process of our group, it is in a container.
            in_containers=not runner.stops_group,
        )
    # Only now: the exit task has to run after a failure too.
    if watch.error is not None:
        raise watch.error


def record_crash(store: Store, run: str, error: SafescaleError) -> None:
    """Records why a run broke off, unless its gate has recorded how it ended.

    Args:
        store: where the exit task reads it.
        run: the run's id.
        error: what broke it.
    """
    # A gate that refused has recorded why; the red task behind it is no crash.
    if RunOutcome.read(store, run) is None:
        RunOutcome.now(run=run, status=CRASHED, sentence=str(error)).write(store)
