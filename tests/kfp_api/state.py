"""What a KFP installation remembers: experiments, pipelines, runs, recurring runs.

The rules are those of the API server's source at 2.17: names of experiments and
pipelines are unique in a namespace, a version's within its pipeline. Recurring runs
are in `schedules.py`.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import kfp_server_api as kfp
from yaml_texts import documents

from kfp_api.listing import same
from kfp_api.lives import (
    CANCELED,
    CANCELING,
    ENDED,
    EPOCH,
    FAILED,
    RUNNING,
    SUCCEEDED,
    Scene,
    begin,
    now,
    show,
    stopped,
    workflow,
)
from kfp_api.schedules import Schedules
from kfp_api.wire import Rejected, check_parameters, check_spec

__all__ = ["CANCELED", "ENDED", "FAILED", "RUNNING", "SUCCEEDED", "Scene"]
STOPPABLE = ("PENDING", RUNNING, "PAUSED", "")
UNREADABLE = (
    "Failed to convert internal run representation to its API counterpart: Invalid "
    "input error: Failed to parse the pipeline source"
)


@dataclass
class Installation(Schedules):
    """One KFP behind the API.

    Attributes:
        multi_user: whether everything lies in a namespace.
        kubernetes_native: whether pipelines are Kubernetes' objects, with names that
            are DNS names.
        script: the life of each new run; every look at a run shows the next scene.
        again: the life of a run that is retried.
        exit_runs: whether the exit task of a stopped run comes to run (a race).
        deaf: how many of the next stops fail to reach the workflow.
        unreadable: runs that the API shows with ids and `error` alone.
    """

    multi_user: bool = False
    kubernetes_native: bool = False
    script: Sequence[Scene] = (Scene(RUNNING), Scene(SUCCEEDED))
    again: Sequence[Scene] = (Scene(RUNNING), Scene(SUCCEEDED))
    exit_runs: bool = True
    deaf: int = 0
    unreadable: set[str] = field(default_factory=set)
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _scenes: dict[str, list[Scene]] = field(default_factory=dict)
    _last: dict[str, Scene] = field(default_factory=dict)

    def namespace_of(self, item: Any) -> str:
        """Returns the namespace that an object lies in; "" in single-user mode."""
        if getattr(item, "namespace", None):
            return str(item.namespace)
        parent = self.experiments.get(getattr(item, "experiment_id", None) or "")
        return str(parent.namespace or "") if parent else ""

    def add_experiment(self, given: Any) -> Any:
        """Creates an experiment."""
        given.namespace = self._namespace(given.namespace)
        self._unique(self.experiments, given, "experiment")
        given.experiment_id = str(uuid.uuid4())
        given.created_at, given.last_run_created_at = now(), EPOCH
        given.storage_state = "AVAILABLE"
        return self.experiments.setdefault(given.experiment_id, given)

    def store(self, experiment: str, state: str) -> None:
        """Archives an experiment with all that is in it, or takes it out again."""
        found(self.experiments, experiment, "Experiment").storage_state = state
        # Out of the archive comes the experiment alone; its runs stay there.
        if state == "ARCHIVED":
            for run in self.runs.values():
                if run.experiment_id == experiment:
                    run.storage_state = state
            self.switch_off(experiment)

    def add_pipeline(
        self, name: str, namespace: str, note: str = "", shown: str = ""
    ) -> Any:
        """Creates a pipeline without a version."""
        given = kfp.V2beta1Pipeline(
            pipeline_id=str(uuid.uuid4()),
            name=name,
            display_name=shown or name,
            description=note,
            namespace=self._namespace(namespace),
            created_at=now(),
        )
        self._unique(self.pipelines, given, "pipeline")
        return self.pipelines.setdefault(given.pipeline_id, given)

    def add_version(
        self, pipeline: str, text: str, name: str, shown: str = "", note: str = ""
    ) -> Any:
        """Creates a version of a pipeline."""
        spec = parse_yaml(text)
        check_spec(spec)
        siblings = [v for v in self.versions.values() if v.pipeline_id == pipeline]
        if any(same(v.name, name) for v in siblings):
            raise Rejected(409, f"Already exist error: version {name}")
        version = kfp.V2beta1PipelineVersion(
            pipeline_id=pipeline,
            pipeline_version_id=str(uuid.uuid4()),
            name=name,
            display_name=shown or name,
            description=note,
            created_at=now(),
            pipeline_spec=spec,
        )
        return self.versions.setdefault(version.pipeline_version_id, version)

    def add_run(self, given: Any) -> Any:
        """Starts a run of the script."""
        self.check_work(given)
        begin(given)
        if not given.recurring_run_id:
            given.service_account = given.service_account or "pipeline-runner"
        experiment = self.experiments[given.experiment_id]
        experiment.last_run_created_at = given.created_at
        self._scenes[given.run_id] = list(self.script)
        return self.runs.setdefault(given.run_id, given)

    def look_at(self, run_id: str) -> Any:
        """Returns a run as it is now, and lets it go on by one scene."""
        run = found(self.runs, run_id, "Run")
        scenes = self._scenes[run_id]
        if run.state not in ENDED and scenes:
            self._last[run_id] = scenes.pop(0)
            show(run, self._last[run_id])
        return self.readable(run)

    def readable(self, run: Any) -> Any:
        """Returns a run, or the little that is shown of one that cannot be read."""
        if run.run_id not in self.unreadable:
            return run
        error = kfp.GoogleRpcStatus(code=3, message=UNREADABLE)
        ids = {"run_id": run.run_id, "experiment_id": run.experiment_id}
        return kfp.V2beta1Run(**ids, error=error)

    def terminate(self, run_id: str) -> None:
        """Stops a run for good: its row first, then its workflow."""
        run = found(self.runs, run_id, "Run")
        if (run.state or "") not in STOPPABLE:
            # run_store.go:823-843: the row is not one of those that may be stopped.
            said = f"Failed to terminate a run {run_id}. Row not found"
            raise Rejected(400, f"Invalid input error: {said}").inside(
                f"Failed to terminate run {run_id}"
            )
        run.state = CANCELING
        if self.deaf:
            # The agent's next report makes it what the workflow is: running.
            self.deaf -= 1
            name = workflow(run)
            patch = f"Failed to terminate workflow {name} due to patching error"
            raise Rejected(500, 'Patch "https://10.96.0.1:443": i/o timeout').inside(
                patch,
                f"{patch} after multiple retries",
                f"InternalServerError: Failed to terminate run {run_id} due to error "
                "terminating its workflow",
            )
        last = self._last.get(run_id, Scene(RUNNING))
        self._scenes[run_id] = list(stopped(last, self.exit_runs))

    def retry(self, run_id: str) -> None:
        """Lets a run that failed go on; its exit task does not come again."""
        run = found(self.runs, run_id, "Run")
        if run.state != FAILED:
            said = "workflow must be Failed/Error to retry"
            raise Rejected(500, said).inside(
                f"InternalServerError: Failed to retry run {run_id} as it does not "
                "allow retries"
            )
        run.finished_at = EPOCH
        self._scenes[run_id] = list(self.again)
        show(run, Scene(RUNNING, self._last[run_id].tasks))

    def stand_still(self, run_id: str) -> None:
        """Keeps a run as it is, for ever: its workflow is gone."""
        self._scenes[run_id] = []

    def check_work(self, given: Any) -> None:
        """Checks what runs and recurring runs have in common."""
        if not given.display_name:
            raise Rejected(400, "The name is empty. Please specify a valid name")
        if given.experiment_id not in self.experiments:
            found(self.experiments, given.experiment_id or "", "Experiment")
        if bool(given.pipeline_spec) == bool(given.pipeline_version_reference):
            raise Rejected(400, "Invalid input error: one pipeline source is expected")
        if given.pipeline_version_reference:
            named = given.pipeline_version_reference.pipeline_version_id or ""
            found(self.versions, named, "PipelineVersion")
        else:
            config = given.runtime_config
            check_parameters(
                check_spec(given.pipeline_spec), config.parameters if config else {}
            )

    def _namespace(self, given: str | None) -> str | None:
        if not self.multi_user:
            return None
        if not given:
            raise Rejected(400, "Invalid input error: Namespace is empty")
        return given

    def _unique(self, others: Mapping[str, Any], given: Any, what: str) -> None:
        if not given.display_name:
            raise Rejected(400, f"Invalid input error: the {what}'s name is empty")
        name = given.name if what == "pipeline" else given.display_name
        for other in others.values():
            its = other.name if what == "pipeline" else other.display_name
            if same(its, name) and other.namespace == given.namespace:
                raise Rejected(
                    409,
                    f"Already exist error: Failed to create a new {what}. The name "
                    f"{name} already exists. Please specify a new name",
                )


def found(items: Mapping[str, Any], key: str, what: str) -> Any:
    """Returns an object by its id.

    Raises:
        Rejected: there is none.
    """
    if key not in items:
        raise Rejected(404, f"ResourceNotFoundError: {what} {key} not found")
    return items[key]


def parse_yaml(text: str) -> dict[str, Any]:
    """Reads a compiled pipeline's two documents the way the server does."""
    graph, *rest = documents(text)
    return {"pipeline_spec": graph, "platform_spec": rest[0]} if rest else graph
