"""What stands below the API in place of Argo: it really runs the pipeline.

Each new run is carried out by a process of this machine, under KFP's local runner and
with the store of the test, so that its gate registers, refuses and records. Each stage
has a pod in the test's cluster as long as it runs: who deletes it loses the stage, and
it is begun again, as Argo does with a pod that is lost. A run whose image cannot be
pulled, or whose stage no node can take, waits for ever, and its pod says why.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from children import Child
from cluster.api import ClusterApi
from cluster.objects import Failure
from cluster.run_pods import ended

from kfp_api.lives import (
    CANCELING,
    ENDED,
    FAILED,
    RUNNING,
    SUCCEEDED,
    Scene,
    node,
    show,
    workflow,
)
from kfp_api.server import KfpApi
from pipelines.ir import CompiledPipeline
from pipelines.local.job import Job
from pipelines.quantities import quantity

WORKER = Path(__file__).with_name("worker.py")
NODE_MEMORY = 16 * 2**30
"""Bytes that the one node can give."""
NOWHERE = "registry.invalid"
"""A registry that no image can be pulled from."""
_BEAT = 0.05


class Executor:
    """Carries out the runs of an API, each in a thread and a process of its own.

    Args:
        api: whose runs.
        cluster: gets their pods.
        environ: of the stages: place and keys of the store.
        folder: for pipelines, logs, artifacts and cache.
    """

    def __init__(
        self, api: KfpApi, cluster: ClusterApi, environ: Mapping[str, str], folder: Path
    ) -> None:
        self.api, self.cluster = api, cluster
        self.environ, self.folder = environ, folder
        self._closing = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._watch = threading.Thread(target=self._look, daemon=True)
        api.world.script = ()

    def __enter__(self) -> Executor:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in (self._watch, *self._threads.values()):
            thread.join()

    def _look(self) -> None:
        while not self._closing.wait(_BEAT):
            with self.api.world.lock:
                runs = [r for r in self.api.world.runs.values() if r.state not in ENDED]
            for run in runs:
                if run.run_id not in self._threads:
                    thread = threading.Thread(target=self._carry_out, args=(run,))
                    self._threads[run.run_id] = thread
                    thread.start()

    def _carry_out(self, run: Any) -> None:
        """Runs a run to its end, its stages anew as often as their pods are lost."""
        life = _Life(self, run)
        # KFP's label is on the Workflow, too; the client asks whether it is there.
        self.cluster.add(
            "workflows", run.run_id[:8], labels={"pipeline/runid": run.run_id}
        )
        reason = life.waits_for()
        if reason:
            life.wait(reason)
            return
        try:
            while not life.attempt():
                pass
        finally:
            # What breaks here ends the run, or who follows it would wait in vain.
            life.fail()


class _Life:
    """One run: its tasks, its pods, its process."""

    def __init__(self, executor: Executor, run: Any) -> None:
        self.executor, self.run = executor, run
        self.tasks: dict[str, str] = {}
        self.cached: list[str] = []
        self.attempts = 0
        self.pod = self.last_words = ""
        world = executor.api.world
        spec = run.pipeline_spec
        if reference := run.pipeline_version_reference:
            spec = world.versions[reference.pipeline_version_id].pipeline_spec
        self.pipeline = CompiledPipeline.from_api(spec)
        given = run.runtime_config.parameters if run.runtime_config else {}
        defaults = {
            name: parameter["defaultValue"]
            for name, parameter in self.pipeline.parameters.items()
            if "defaultValue" in parameter
        }
        self.arguments = {**defaults, **(given or {})}

    @property
    def stopped(self) -> bool:
        """Whether somebody ended the run, or the test is over."""
        ended = self.run.state in (CANCELING, *ENDED)
        return ended or self.executor._closing.is_set()

    def waits_for(self) -> str:
        """Returns the condition that keeps the first pod from running; "" = none."""
        images = [e["container"]["image"] for e in self.pipeline.executors.values()]
        if any(image.startswith(NOWHERE) for image in images):
            return "ImagePullBackOff"
        memory = str(self.arguments.get("resources_train_memory", "1Gi"))
        return "Unschedulable" if quantity(memory, "memory") > NODE_MEMORY else ""

    def wait(self, reason: str) -> None:
        """Shows a run whose first pod cannot run, until somebody stops it."""
        self.tasks["prepare-data"] = "PENDING"
        pod = self._pod("prepare-data", "Pending")
        message = f'Back-off pulling image "{NOWHERE}/prepare_data:1"'
        if reason == "Unschedulable":
            message = "0/1 nodes are available: 1 Insufficient memory."
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": message,
            }
            status: dict[str, Any] = {"conditions": [condition]}
        else:
            waiting = {"reason": reason, "message": message}
            status = {
                "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]
            }
        self.executor.cluster.patch("pods", pod, {"status": status})
        self._show(RUNNING)
        while not self.stopped:
            time.sleep(_BEAT)
        self._forget(pod)

    def attempt(self) -> bool:
        """Runs the pipeline once; False if a pod was lost on the way."""
        self.attempts += 1
        executor = self.executor
        file = executor.folder / f"{self.run.run_id}.yaml"
        # A lost pod alone is begun again: what was finished before it stays.
        cached = self.attempts > 1 or '"enableCache": true' in json.dumps(
            _task(self.pipeline.graph, "prepare-data")
        )
        job = Job(
            pipeline=str(file),
            arguments=self.arguments,
            pipeline_root=str(executor.folder / "root"),
            cache=cached,
            store=executor.environ["SAFESCALE_STORE"],
            prefix=f"kfp/{self.run.run_id}",
            run=self.run.run_id,
            runner="subprocess",
        )
        with Child(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**executor.environ},
            cwd=executor.folder,
        ) as worker:
            worker.stdin.write(job.to_json() + "\n")
            worker.stdin.flush()
            events: list[dict[str, Any]] = []
            reader = threading.Thread(
                target=lambda: events.extend(map(json.loads, worker.stdout))
            )
            reader.start()
            return self._follow(worker, reader, events)

    def _follow(
        self, worker: Any, reader: threading.Thread, events: list[dict[str, Any]]
    ) -> bool:
        """Shows what a worker does until it ends, is stopped, or loses a pod."""
        seen = 0
        while reader.is_alive() or seen < len(events):
            if self.stopped and worker.poll() is None:
                worker.terminate()
            elif self.pod and not self._exists(self.pod):
                self.pod = ""
                worker.kill()
                reader.join()
                worker.wait()
                return False
            if seen < len(events):
                self._take(events[seen])
                seen += 1
            else:
                time.sleep(_BEAT)
        self._end(worker.wait())
        return True

    def _take(self, event: Mapping[str, Any]) -> None:
        """Shows one event of a worker: a stage begins, ends well, or breaks."""
        stage = str(event.get("stage", "")).replace("_", "-")
        if self.tasks.get(stage) == SUCCEEDED:
            return  # before the pod of a later one was lost
        if event["event"] == "failed":
            code, sentence = event["code"], event["sentence"]
            kind = {2: "InputError", 3: "Refusal"}.get(code, "SafescaleError")
            self.last_words = f"{sentence} ({kind}, exit code {code})\n"
        elif event["event"] == "started":
            self.tasks[stage] = RUNNING
            self.pod = self._pod(stage, "Running")
        elif event["event"] == "finished":
            self.tasks[stage] = SUCCEEDED
            if event.get("cached"):
                self.cached.append(stage)
                self._forget(self.pod)
            else:
                self._phase(self.pod, "Succeeded")
            self.pod = ""
        self._show(RUNNING)

    def _end(self, code: int) -> None:
        """Shows the end of a run that nobody stopped."""
        if self.pod:
            status = ended(code, self.last_words)
            self.executor.cluster.patch("pods", self.pod, {"status": status})
        if self.stopped:
            return
        state = FAILED if code else SUCCEEDED
        for stage in [s for s, now in self.tasks.items() if now == RUNNING]:
            self.tasks[stage] = state
        self._pod("notify", "Succeeded")
        self._show(state)

    def fail(self) -> None:
        """Shows the end of a run that nothing carries out any more."""
        self._show(FAILED)

    def _show(self, state: str) -> None:
        world = self.executor.api.world
        with world.lock:
            if self.run.state in (CANCELING, *ENDED):
                return
            scene = Scene(state, dict(self.tasks), tuple(self.cached))
            world._last[self.run.run_id] = scene
            show(self.run, scene)

    def _pod(self, stage: str, phase: str) -> str:
        # As Argo names it: by the number of the node that KFP's API shows.
        number = node(self.run, f"{stage}/executor(0)").rpartition("-")[2]
        name = f"{workflow(self.run)}-{stage}-{self.attempts}-{number}"
        labels = {
            "pipeline/runid": self.run.run_id,
            "app.kubernetes.io/component": stage,
            "pipelines.kubeflow.org/v2_component": "true",
        }
        self.executor.cluster.add(
            "pods",
            name,
            labels=labels,
            spec={"containers": [{"name": "main"}]},
            status={"phase": phase},
        )
        return name

    def _exists(self, pod: str) -> bool:
        try:
            self.executor.cluster.get("pods", pod)
        except KeyError:
            return False
        return True

    def _phase(self, pod: str, phase: str) -> None:
        with suppress(Failure):
            self.executor.cluster.patch("pods", pod, {"status": {"phase": phase}})

    def _forget(self, pod: str) -> None:
        with suppress(Failure):
            self.executor.cluster.delete("pods", pod)


def _task(node: Any, name: str) -> Any:
    """Finds a task of a name, however deep its graph lies; None if there is none."""
    if not isinstance(node, Mapping):
        return None
    tasks = node.get("tasks", {})
    if name in tasks:
        return tasks[name]
    found = (_task(child, name) for child in node.values())
    return next(filter(None, found), None)
