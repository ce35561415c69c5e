"""The child of `safescale run`: KFP's local runner, watched from inside.

It gets a job as one line of JSON on its standard input and answers with one
line of JSON per event on its standard output; whatever KFP and the stages print
goes to standard error, which is the run's log. The open standard input is a
lifeline: when the parent dies, however hard, the kernel closes it; then the
containers are removed, and the whole process group ends itself. Should the child
die first, the parent sweeps; should both die at once, the next run does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipelines import exit_task
from pipelines.compile import compile_train
from pipelines.mirror import Mirror
from pipelines.watched import Report, Watch
from safescale_ammt.errors import SafescaleError, StorageError
from safescale_ammt.releasing.notice import PLACES

_LAST_RITES = 10.0
"""Seconds that the removal of containers may take once the parent is gone."""


def main() -> int:
    """Runs the job that stands on the first line of standard input."""
    job = json.loads(sys.stdin.readline())
    last_rites = _end_with_parent()
    report = _reporter()
    try:
        _run(job, report, last_rites)
    except SafescaleError as error:
        report("failed", code=error.exit_code, sentence=str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  KFP raises whatever it likes
        traceback.print_exc()
        first = " ".join(str(error).split())
        report("failed", code=1, sentence=f"{type(error).__name__}: {first}")
        return 1
    report("done")
    return 0


def _end_with_parent() -> list[Callable[[], None]]:
    """Kills the own process group once the lifeline is cut.

    Returns:
        A list to put functions in that are called first.
    """
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    last_rites: list[Callable[[], None]] = []

    def watch() -> None:
        while os.read(lifeline, 4096):
            pass
        for rite in last_rites:
            bounded = threading.Thread(target=rite, daemon=True)
            bounded.start()
            bounded.join(_LAST_RITES)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return last_rites


def _reporter() -> Report:
    """Keeps standard output for events; prints go to standard error from here."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def report(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")

    return report


def _run(
    job: Mapping[str, Any], report: Report, last_rites: list[Callable[[], None]]
) -> None:
    report("importing")
    from kfp import components, local

    warnings.filterwarnings("ignore", module=r"kfp\.")
    in_containers = job["runner"] == "docker"
    compiled = compile_train()
    Path(job["pipeline"]).write_text(compiled, encoding="utf-8")
    documents = spec, platform = tuple(yaml.safe_load_all(compiled))
    exit_task.for_this_machine(spec, os.environ, job["run"])
    _drop_retries(spec)
    watch = _watch(job, report, platform)
    with _runner(job, report, watch, documents, last_rites):
        local.init(
            local.DockerRunner()
            if in_containers
            else local.SubprocessRunner(use_venv=False),
            pipeline_root=job["pipeline_root"],
            raise_on_error=False,
            enable_caching=job["cache"],
        )
        watch.install()
        text = yaml.safe_dump_all(documents)
        components.load_component_from_text(text)(**job["arguments"])
    if watch.error is not None:
        raise watch.error


@contextmanager
def _runner(
    job: Mapping[str, Any],
    report: Report,
    watch: Watch,
    documents: tuple[dict[str, Any], ...],
    last_rites: list[Callable[[], None]],
) -> Iterator[None]:
    """Prepares what runs the tasks; `documents` are graph and platform."""
    if job["runner"] != "docker":
        _keep_python3()
        yield
        return
    from pipelines.container_engine import engine, stage_images
    from pipelines.container_runner import ContainerRunner
    from pipelines.containers import Containers

    spec, platform = documents
    executors = spec["deploymentSpec"]["executors"].values()
    with engine() as client:
        images = stage_images(client, (e["container"]["image"] for e in executors))
        report("images", images=images)
        for executor in executors:
            # KFP's cache key holds the image: another image is another stage.
            image = executor["container"]["image"]
            executor["container"]["image"] = images[image]
        containers = Containers(client)
        last_rites.append(containers.close)
        ContainerRunner(containers, platform, job["run"], os.environ, watch).install()
        yield


def _watch(
    job: Mapping[str, Any], report: Report, platform: Mapping[str, Any]
) -> Watch:
    """Makes the wrapper of each task, with the time that each may take."""
    mirror = Mirror(job["store"], job["prefix"])
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    seconds = {
        label: job["stage_timeout"] or float(settings["activeDeadlineSeconds"])
        for label, settings in executors.items()
    }

    def tell(error: SafescaleError) -> None:
        """Leaves the reason where the exit task, if there is one, reads it."""
        if not any(os.environ.get(name) for name in PLACES):
            return
        try:
            exit_task.leave_word(mirror.store, job["run"], error)
        except StorageError:
            traceback.print_exc()

    in_group = job["runner"] != "docker"
    return Watch(report, mirror, seconds, stop_group=in_group, on_failure=tell)


def _drop_retries(spec: Mapping[str, Any]) -> None:
    """A failed stage is told at once: a second `safescale run` resumes from it."""
    for component in (spec["root"], *spec["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)


def _keep_python3() -> None:
    """Lets KFP start `python3` from the PATH.

    KFP replaces that word by `sys.executable` wherever it stands in the command
    line, in a data set's path too.
    """
    python3 = Path(sys.executable).with_name("python3")
    if python3.exists() and python3.samefile(sys.executable):
        os.environ["PATH"] = f"{python3.parent}{os.pathsep}{os.environ['PATH']}"
        sys.executable = "python3"


if __name__ == "__main__":
    sys.exit(main())
