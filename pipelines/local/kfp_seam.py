"""Every touch of KFP's local runner, so that a KFP upgrade opens one file.

KFP (2.17) offers no callback, keeps neither a stage's sentence nor its exit code, and
takes a container that vanished for one that went well. So two of its names are
replaced: the function that executes a task, and the class that starts its command. What
they are called with is turned into words of our own here, and back.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Outputs = Mapping[str, Any]
"""Output name -> KFP's artifact."""


@dataclass(frozen=True)
class TaskCall:
    """A task that KFP is about to execute.

    Attributes:
        stage: its name.
        executor: its executor's label in the compiled pipeline.
        folder: where its outputs go.
        outputs: their names.
        is_exit: whether it runs however the others end, and is no stage.
        execute: KFP's own execution, cache included; returns the outputs, and
            whether the task succeeded.
    """

    stage: str
    executor: str
    folder: Path
    outputs: tuple[str, ...]
    is_exit: bool
    execute: Callable[[], tuple[Outputs, bool]]


Watch = Callable[[TaskCall], tuple[Outputs, bool]]
"""What is called in the place of KFP's function per task."""
RunTask = Callable[[str, Sequence[str], Mapping[str, str]], bool]
"""Runs a task's command, in a container or not: image, command, environment -> success.
"""


def run_pipeline(
    text: str,
    arguments: Mapping[str, Any],
    *,
    pipeline_root: str,
    cache: bool,
    watch: Watch,
    run_task: RunTask,
    in_containers: bool,
) -> None:
    """Runs a compiled pipeline under KFP's local runner.

    Args:
        text: the pipeline as YAML.
        arguments: values of its parameters.
        pipeline_root: folder that artifacts and cache stay in.
        cache: whether finished tasks are taken from the cache.
        watch: is called for every task, and executes it.
        run_task: runs a task's command.
        in_containers: whether that is in its image, or in this environment.
    """
    from kfp import components, local
    from kfp.local import subprocess_task_handler

    # KFP warns of image names without "python" in them, of display names and of
    # resources: all of them are meant, and none concerns who reads the run's log.
    warnings.filterwarnings("ignore", module=r"kfp\.")
    # It also logs every call and output, pages of JSON; its warnings and errors remain.
    logging.disable(logging.INFO)
    handler = _handler(run_task)
    runner: Any
    if in_containers:
        from kfp.local import docker_task_handler

        runner = local.DockerRunner()
        docker_task_handler.DockerTaskHandler = handler
    else:
        # This very environment: a venv for each task would ask a package index.
        runner = local.SubprocessRunner(use_venv=False)
        subprocess_task_handler.SubprocessTaskHandler = handler
    # A process-wide singleton: one more reason why this runs in a child. An error of
    # KFP's would hold neither sentence nor exit code, and its final state is the same
    # for success and failure: `watch` knows better.
    local.init(
        runner, pipeline_root=pipeline_root, raise_on_error=False, enable_caching=cache
    )
    _replace_task_executor(watch)
    components.load_component_from_text(text)(**arguments)


def _replace_task_executor(watch: Watch) -> None:
    """Calls `watch` where KFP executes a task."""
    from kfp.local.orchestrator import task_executor
    from kfp.local.status import Status

    original = task_executor.execute_single_task

    def execute_single_task(**call: Any) -> tuple[Outputs, Status]:
        def execute() -> tuple[Outputs, bool]:
            outputs, status = original(**call)
            return outputs, status is Status.SUCCESS

        # KFP calls by keyword; a name that it changes is a KeyError at the first task.
        spec = call["task_spec"]
        component = spec.component_ref.name
        description = call["components"][component]
        always = spec.trigger_policy.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
        root = Path(call["pipeline_root"], call["pipeline_resource_name"])
        # KFP's `get_local_task_resource_name` makes the folder of a component's name.
        folder = root / component.removeprefix("comp-")
        task = TaskCall(
            stage=call["task_name"].replace("-", "_"),
            executor=description.executor_label,
            folder=folder,
            outputs=tuple(description.output_definitions.artifacts),
            is_exit=spec.trigger_policy.strategy == always,
            execute=execute,
        )
        outputs, success = watch(task)
        return outputs, Status.SUCCESS if success else Status.FAILURE

    task_executor.execute_single_task = execute_single_task


def _handler(run_task: RunTask) -> type:
    """Returns what KFP starts commands by: it calls `run_task`."""
    from kfp.local.status import Status

    class Handler:
        """What KFP makes for a task and then runs once."""

        def __init__(
            self,
            image: str,
            full_command: list[str],
            env_vars: dict[str, str] | None = None,
            **_: Any,
        ) -> None:
            self._call = (image, full_command, env_vars or {})

        def run(self) -> Status:
            return Status.SUCCESS if run_task(*self._call) else Status.FAILURE

    return Handler
