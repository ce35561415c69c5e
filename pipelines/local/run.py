"""One run of the compiled pipeline under KFP's local runner.

The graph is compiled, made to fit this machine, and run with every task watched,
in processes of the own group or in containers of the stage images.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from pipelines.compile import compile_train
from pipelines.local import exit_task
from pipelines.local.graph import drop_retries, take_limits
from pipelines.local.mirror import Mirror
from pipelines.local.tasks import Report, TaskWatch
from safescale_ammt.errors import SafescaleError, StorageError
from safescale_ammt.releasing.notice import PLACES

Closing = list[Callable[[], None]]
"""What has to be called before this process is killed."""


class LocalRun:
    """A job, compiled and ready.

    Args:
        job: the fields of `local.Job`.
        report: takes events.
    """

    def __init__(self, job: Mapping[str, Any], report: Report) -> None:
        compiled = compile_train()
        Path(job["pipeline"]).write_text(compiled, encoding="utf-8")
        self.graph, self.platform = yaml.safe_load_all(compiled)
        exit_task.for_this_machine(self.graph, os.environ, job["run"])
        drop_retries(self.graph)
        self._job = job
        self._report = report
        self._limits = take_limits(self.graph, job["arguments"])
        self._settings = self.platform["platforms"]["kubernetes"]["deploymentSpec"][
            "executors"
        ]
        self._mirror = Mirror(job["store"], job["prefix"])
        self._watch = TaskWatch(
            report,
            self._mirror,
            {label: self._seconds(label) for label in self._settings},
            stop_group=job["runner"] != "docker",
            on_failure=self._leave_word,
        )

    def carry_out(self, closing: Closing) -> None:
        """Runs the pipeline to its end.

        Raises:
            SafescaleError: what broke the first stage that broke.
        """
        from kfp import components, local

        warnings.filterwarnings("ignore", module=r"kfp\.")
        in_containers = self._job["runner"] == "docker"
        with ExitStack() as stack:
            if in_containers:
                self._take_containers(stack, closing)
            local.init(
                local.DockerRunner()
                if in_containers
                else local.SubprocessRunner(use_venv=False),
                pipeline_root=self._job["pipeline_root"],
                raise_on_error=False,
                enable_caching=self._job["cache"],
            )
            self._watch.install()
            text = yaml.safe_dump_all([self.graph, self.platform])
            components.load_component_from_text(text)(**self._job["arguments"])
        if self._watch.error is not None:
            raise self._watch.error

    def _take_containers(self, stack: ExitStack, closing: Closing) -> None:
        """Has KFP run tasks in containers, of the images that the engine holds."""
        from pipelines.local.container_runner import ContainerRunner
        from pipelines.local.containers import Containers
        from pipelines.local.engine import engine, stage_images

        client = stack.enter_context(engine())
        executors = self.graph["deploymentSpec"]["executors"].values()
        images = stage_images(client, (e["container"]["image"] for e in executors))
        self._report("images", images=images)
        for executor in executors:
            # KFP's cache key holds the image: another image is another stage.
            image = executor["container"]["image"]
            executor["container"]["image"] = images[image]
        containers = Containers(client)
        closing.append(containers.close)
        ContainerRunner(
            containers,
            self._watch,
            settings=self._settings,
            limits=self._limits,
            run=self._job["run"],
            environ=os.environ,
        ).install()

    def _seconds(self, label: str) -> float:
        compiled = self._settings[label]["activeDeadlineSeconds"]
        return float(self._job["stage_timeout"] or compiled)

    def _leave_word(self, error: SafescaleError) -> None:
        """Leaves the reason where the exit task, if there is one, reads it."""
        if not any(os.environ.get(name) for name in PLACES):
            return
        try:
            exit_task.leave_word(self._mirror.store, self._job["run"], error)
        except StorageError:
            traceback.print_exc()
