"""The child of `safescale run`: KFP's local runner, watched from inside.

It gets a job as one line of JSON on its standard input and answers with one
line of JSON per event on its standard output; whatever KFP and the stages print
goes to standard error, which is the run's log. The open standard input is a
lifeline: when the parent dies, however hard, the kernel closes it, and the
whole process group ends itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipelines.compile import compile_train
from pipelines.mirror import Mirror
from safescale_ammt.artifacts import EXECUTION, read_json
from safescale_ammt.errors import Interrupted, SafescaleError
from safescale_ammt.execution import error_of

Report = Callable[..., None]


def main() -> int:
    """Runs the job that stands on the first line of standard input."""
    job = json.loads(sys.stdin.readline())
    _end_with_parent()
    report = _reporter()
    try:
        _run(job, report)
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


def _end_with_parent() -> None:
    """Kills the own process group once the lifeline is cut."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        while os.read(lifeline, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _reporter() -> Report:
    """Keeps standard output for events; prints go to standard error from here."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def report(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")

    return report


def _run(job: dict[str, Any], report: Report) -> None:
    report("importing")
    from kfp import components, local

    warnings.filterwarnings("ignore", module=r"kfp\.")
    _keep_python3()
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=job["pipeline_root"],
        raise_on_error=True,
        enable_caching=job["cache"],
    )
    _watch_tasks(report, Mirror(job["store"], job["prefix"]))
    compiled = compile_train()
    Path(job["pipeline"]).write_text(compiled, encoding="utf-8")
    pipeline = components.load_component_from_text(_without_retries(compiled))
    pipeline(**job["arguments"])


def _without_retries(compiled: str) -> str:
    """A failed stage is told at once: a second `safescale run` resumes from it."""
    documents = list(yaml.safe_load_all(compiled))
    for task in documents[0]["root"]["dag"]["tasks"].values():
        task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents)


def _keep_python3() -> None:
    """Lets KFP start `python3` from the PATH.

    KFP replaces that word by `sys.executable` wherever it stands in the command
    line, in a data set's path too.
    """
    python3 = Path(sys.executable).with_name("python3")
    if python3.exists() and python3.samefile(sys.executable):
        os.environ["PATH"] = f"{python3.parent}{os.pathsep}{os.environ['PATH']}"
        sys.executable = "python3"


def _watch_tasks(report: Report, mirror: Mirror) -> None:
    """Wraps KFP's one function per task: it offers no callback of its own."""
    from kfp.local.orchestrator import task_executor
    from kfp.local.status import Status

    execute = task_executor.execute_single_task

    def watched(**task: Any) -> Any:
        stage = task["task_name"].replace("-", "_")
        report("started", stage=stage)
        start = time.monotonic()
        with _leaving_sigterm_to(stage):
            outputs, status = execute(**task)
        seconds = time.monotonic() - start
        folder = Path(task["pipeline_root"], task["pipeline_resource_name"])
        task_folder = folder / task["task_name"]
        if status is not Status.SUCCESS:
            raise _what_it_left(stage, task_folder / EXECUTION)
        paths = {name: Path(artifact.uri) for name, artifact in outputs.items()}
        cached = not any(path.is_relative_to(folder) for path in paths.values())
        report(
            "finished",
            stage=stage,
            seconds=round(seconds, 3),
            cached=cached,
            artifacts=mirror.keep(stage, paths),
            summary=_summary(paths),
        )
        return outputs, status

    task_executor.execute_single_task = watched


@contextmanager
def _leaving_sigterm_to(stage: str) -> Iterator[None]:
    """While a stage runs, SIGTERM is for it: KFP would die and leave it behind.

    A plain handler, unlike SIG_IGN, does not outlive the exec of the stage.
    """
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if received.is_set():
        raise Interrupted(f"The run was stopped by SIGTERM in {stage}.")


def _summary(paths: dict[str, Path]) -> dict[str, Any]:
    """Returns what the stage said of itself, in this run or in the cached one."""
    beside = {path.parent / EXECUTION for path in paths.values()}
    return dict(read_json(beside.pop())["summary"])


def _what_it_left(stage: str, file: Path) -> SafescaleError:
    """Returns the error that a failed stage wrote down, with its exit code."""
    if not file.is_file():
        return SafescaleError(
            f"{stage} ended without a word: it was killed or could not start; the "
            "log has its last lines."
        )
    left = read_json(file)
    return error_of(int(left["code"]), left["sentence"])


if __name__ == "__main__":
    sys.exit(main())
