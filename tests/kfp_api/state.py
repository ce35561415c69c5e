"""What a KFP installation remembers: experiments, pipelines, runs, recurring runs.

The rules are those of the API server's source at 2.17: names of experiments and
pipelines are unique in a namespace, a version's within its pipeline; recurring
runs may share a name; `max_concurrency` is 1 to 10; deleting a recurring run
deletes its workflows too (the garbage collector follows the owner reference),
unless the propagation policy is ORPHAN.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import kfp_server_api as kfp
import yaml

from kfp_api.wire import Rejected, check_parameters, check_spec

RUNNING, SUCCEEDED, FAILED, CANCELED = "RUNNING", "SUCCEEDED", "FAILED", "CANCELED"
ENDED = (SUCCEEDED, FAILED, CANCELED, "SKIPPED")


@dataclass(frozen=True)
class Scene:
    """One moment of a run's script.

    Attributes:
        state: of the run.
        tasks: task name -> state; tasks that are not named have not begun.
    """

    state: str
    tasks: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Installation:
    """One KFP behind the API.

    Attributes:
        multi_user: whether everything lies in a namespace.
        script: the life of each new run; every look at a run shows the next scene.
        killed: runs whose workflow went away while they ran.
        history: what became of recurring runs: what, id.
    """

    multi_user: bool = False
    script: Sequence[Scene] = (Scene(RUNNING), Scene(SUCCEEDED))
    experiments: dict[str, Any] = field(default_factory=dict)
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    recurring: dict[str, Any] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    history: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _scenes: dict[str, list[Scene]] = field(default_factory=dict)

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
        given.created_at = now()
        given.storage_state = "AVAILABLE"
        return self.experiments.setdefault(given.experiment_id, given)

    def add_pipeline(self, name: str, namespace: str, text: str) -> Any:
        """Creates a pipeline and its first version, which bears the same name."""
        check_spec(parse_yaml(text))
        given = kfp.V2beta1Pipeline(
            pipeline_id=str(uuid.uuid4()),
            name=name,
            display_name=name,
            namespace=self._namespace(namespace),
            created_at=now(),
        )
        self._unique(self.pipelines, given, "pipeline")
        self.pipelines[given.pipeline_id] = given
        self.add_version(given.pipeline_id, name, text, "")
        return given

    def add_version(self, pipeline: str, name: str, text: str, note: str) -> Any:
        """Creates a version of a pipeline."""
        if pipeline not in self.pipelines:
            raise Rejected(400, "Failed to create a pipeline version")
        spec = parse_yaml(text)
        check_spec(spec)
        if any(
            v.display_name == name and v.pipeline_id == pipeline
            for v in self.versions.values()
        ):
            raise Rejected(409, "Failed to create a pipeline version", code=6)
        version = kfp.V2beta1PipelineVersion(
            pipeline_id=pipeline,
            pipeline_version_id=str(uuid.uuid4()),
            name=name,
            display_name=name,
            description=note,
            created_at=now(),
            pipeline_spec=spec,
        )
        return self.versions.setdefault(version.pipeline_version_id, version)

    def add_run(self, given: Any) -> Any:
        """Starts a run of the script."""
        self._check_work(given)
        given.run_id = str(uuid.uuid4())
        given.created_at = now()
        given.storage_state = "AVAILABLE"
        given.state = "PENDING"
        given.service_account = given.service_account or "pipeline-runner"
        self._scenes[given.run_id] = list(self.script)
        return self.runs.setdefault(given.run_id, given)

    def look_at(self, run_id: str) -> Any:
        """Returns a run as it is now, and lets it go on by one scene."""
        run = found(self.runs, run_id, "Run")
        scenes = self._scenes[run_id]
        if run.state not in ENDED and scenes:
            scene = scenes.pop(0)
            self._show(run, scene)
        return run

    def terminate(self, run_id: str) -> None:
        """Stops a run for good."""
        run = found(self.runs, run_id, "Run")
        if run.state in ENDED:
            raise Rejected(400, f"Run {run_id} cannot be terminated: it has ended", 9)
        run.state = "CANCELING"
        self._scenes[run_id] = [Scene(CANCELED)]

    def add_recurring(self, given: Any) -> Any:
        """Creates a recurring run, enabled or not as its mode says."""
        self._check_work(given)
        if not 1 <= int(given.max_concurrency or 0) <= 10:
            raise Rejected(400, "Max concurrency must be at least 1 and at most 10")
        if given.mode not in ("ENABLE", "DISABLE"):
            raise Rejected(400, f"Invalid mode {given.mode}")
        _check_trigger(given.trigger)
        given.recurring_run_id = str(uuid.uuid4())
        given.created_at = now()
        given.status = "ENABLED" if given.mode == "ENABLE" else "DISABLED"
        self.history.append((f"created {given.status}", given.recurring_run_id))
        return self.recurring.setdefault(given.recurring_run_id, given)

    def switch(self, recurring_id: str, mode: str) -> None:
        """Enables or disables a recurring run; its runs go on."""
        item = found(self.recurring, recurring_id, "Job")
        item.mode, item.status, item.updated_at = mode, f"{mode}D", now()
        self.history.append((item.status, recurring_id))

    def delete_recurring(self, recurring_id: str, policy: str) -> None:
        """Deletes a recurring run, and kills what it started unless orphaned."""
        found(self.recurring, recurring_id, "Job")
        del self.recurring[recurring_id]
        if policy == "ORPHAN":
            return
        for run in self.runs.values():
            if run.recurring_run_id == recurring_id and run.state not in ENDED:
                run.state = FAILED
                self.killed.append(run.run_id)

    def fire(self, recurring_id: str) -> Any | None:
        """Starts the next run of a schedule, as its controller does."""
        item = found(self.recurring, recurring_id, "Job")
        active = [
            r
            for r in self.runs.values()
            if r.recurring_run_id == recurring_id and r.state not in ENDED
        ]
        if item.status != "ENABLED" or len(active) >= int(item.max_concurrency):
            return None
        return self.add_run(
            kfp.V2beta1Run(
                display_name=f"{item.display_name}-{len(self.runs)}",
                experiment_id=item.experiment_id,
                pipeline_spec=item.pipeline_spec,
                runtime_config=item.runtime_config,
                recurring_run_id=recurring_id,
            )
        )

    def enabled(self) -> list[str]:
        """Returns the display names of the schedules that fire."""
        items = self.recurring.values()
        return [item.display_name for item in items if item.status == "ENABLED"]

    def _show(self, run: Any, scene: Scene) -> None:
        tasks = {f"{name}-driver": SUCCEEDED for name in scene.tasks} | dict(
            scene.tasks
        )
        run.state = scene.state
        run.run_details = kfp.V2beta1RunDetails(
            task_details=[
                kfp.V2beta1PipelineTaskDetail(
                    run_id=run.run_id,
                    task_id=str(uuid.uuid5(uuid.UUID(run.run_id), name)),
                    display_name=name,
                    create_time=run.created_at,
                    start_time=run.created_at,
                    end_time=now() if state in ENDED else None,
                    state=state,
                )
                for name, state in tasks.items()
            ]
        )
        if scene.state in ENDED:
            run.finished_at = now()

    def _check_work(self, given: Any) -> None:
        """Checks what runs and recurring runs have in common."""
        if not given.display_name:
            raise Rejected(400, "The name is empty. Please specify a valid name")
        if given.experiment_id not in self.experiments:
            raise Rejected(404, f"Experiment {given.experiment_id} not found", 5)
        if not given.pipeline_spec and not given.pipeline_version_reference:
            raise Rejected(400, "Unable to find a pipeline source")
        if given.pipeline_spec:
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
            raise Rejected(400, f"The {what}'s name is empty")
        for other in others.values():
            same = other.display_name == given.display_name
            if same and other.namespace == given.namespace:
                raise Rejected(409, f"Already exist error: {what} of this name", 6)


def now() -> datetime:
    """Returns the time as the database keeps it: whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def found(items: Mapping[str, Any], key: str, what: str) -> Any:
    """Returns an object by its id.

    Raises:
        Rejected: there is none.
    """
    if key not in items:
        raise Rejected(404, f"ResourceNotFoundError: {what} {key} not found.", 5)
    return items[key]


def parse_yaml(text: str) -> dict[str, Any]:
    """Reads a compiled pipeline's two documents the way the server does."""
    graph, *rest = yaml.safe_load_all(text)
    return {"pipeline_spec": graph, "platform_spec": rest[0]} if rest else graph


def _check_trigger(trigger: Any) -> None:
    cron = trigger and trigger.cron_schedule
    periodic = trigger and trigger.periodic_schedule
    if bool(cron) == bool(periodic):
        raise Rejected(400, "Either a cron or a periodic schedule is required")
    if cron and len(cron.cron.split()) not in (5, 6):
        raise Rejected(400, "Schedule cron is not a supported format")
    if periodic and int(periodic.interval_second) < 1:
        raise Rejected(400, "Found invalid period schedule interval")
