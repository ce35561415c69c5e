"""Every touch of KFP's local runner, so that a KFP upgrade opens one file.

KFP (2.17) offers no callback, keeps neither a stage's sentence nor its exit code, and
takes a container that vanished for one that went well. So two of its names are
replaced: the function that executes a task, and the class that starts its command. What
they are called with is turned into words of our own here, and back.
"""

from __future__ import annotations

import json
import logging
import os
import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

Outputs = Mapping[str, Any]
"""Output name -> KFP's artifact."""

EXECUTOR = "kfp.dsl.executor_main"
"""KFP's program that runs a component's function inside of a task."""
KFP_RUNTIME = {"_KFP_RUNTIME": "true"}
"""The variable that KFP sets for that program; it spares it the compiler's imports."""
_FUNCTION = "--function_to_execute"
_SCRIPT = re.compile(
    r'\s*program_path=\$\(mktemp -d\)\s+printf "%s" "\$0" > '
    r'"\$program_path/ephemeral_component\.py"\s+_KFP_RUNTIME=true python3 -m '
    rf"{re.escape(EXECUTOR)}\s+--component_module_path\s+"
    r'"\$program_path/ephemeral_component\.py"\s+"\$@"\s*'
)
"""The shell script that KFP (2.17) starts a Python function with."""


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


@dataclass(frozen=True)
class StageCall:
    """What KFP would have started a stage's interpreter with.

    Attributes:
        function: name of the component's function.
        source: its module's text, which travels inside the compiled pipeline.
        arguments: of KFP's executor.
    """

    function: str
    source: str
    arguments: tuple[str, ...]

    def to_line(self) -> bytes:
        """Returns the call as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Reads what `to_line` wrote."""
        found = json.loads(line)
        return cls(**{**found, "arguments": tuple(found["arguments"])})

    def execute(self) -> None:
        """Runs KFP's executor in this process, as `python3 -m` does."""
        # The lines of KFP's command: a folder with the source, whose place comes first.
        file = Path(tempfile.mkdtemp(), "ephemeral_component.py")
        file.write_text(self.source, encoding="utf-8")
        sys.argv = [EXECUTOR, "--component_module_path", str(file), *self.arguments]
        runpy.run_module(EXECUTOR, run_name="__main__", alter_sys=True)


def stage_call(command: Sequence[str]) -> StageCall | None:
    """Reads KFP's command of a Python function; None for any other command."""
    if list(command[:2]) != ["sh", "-ec"] or len(command) < 4:
        return None
    script, source, *arguments = command[2:]
    if not _SCRIPT.fullmatch(script) or _FUNCTION not in arguments[:-1]:
        return None
    function = arguments[arguments.index(_FUNCTION) + 1]
    return StageCall(function, source, tuple(arguments))


Watch = Callable[[TaskCall], tuple[Outputs, bool]]
"""What is called in the place of KFP's function per task."""
RunTask = Callable[[str, Sequence[str], Mapping[str, str]], bool]
"""Runs a task's command, in a container or not: image, command, environment -> success.
"""


def import_without_client() -> None:
    """Imports KFP's package without its API client, and Kubernetes' behind that.

    It does so where it is told that it runs inside of a task; nobody is called here.
    """
    os.environ.update(KFP_RUNTIME)
    import kfp  # noqa: F401

    for name in KFP_RUNTIME:
        del os.environ[name]


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
    import yaml
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
    # libyaml's reader is equally safe; KFP asks PyYAML for the slow one, in Python.
    yaml.__dict__["SafeLoader"] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
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
