"""Recurring runs as KFP 2.17 keeps them: rows, ScheduledWorkflows, their controller.

A row of the database and a ScheduledWorkflow are two things, and three programs write
them (kubeflow/pipelines 2.17.0): the API server both of them
(apiserver/resource/resource_manager.go, ChangeJobMode), the controller starts what is
due whenever it looks (crd/controller/scheduledworkflow), and the persistence agent
writes its cached copy of the second over the first (apiserver/storage/job_store.go,
UpdateJob), so that a row can say the opposite of what is so.
"""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import kfp_server_api as kfp

from kfp_api.cron_times import cron_times
from kfp_api.wire import Rejected

_OVER = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_MODES = {True: ("ENABLE", "ENABLED"), False: ("DISABLE", "DISABLED")}


@dataclass
class ScheduledWorkflow:
    """What Kubernetes keeps of a recurring run.

    Attributes:
        enabled: whether the controller starts runs of it.
        created: when.
        last, index: the time and the number of the last run, as its status says.
        seen: the runs that its status tells of.
        ordered: when it was last switched, on the monotonic clock.
    """

    enabled: bool
    created: datetime
    last: datetime | None = None
    index: int = 0
    seen: Any = None
    ordered: float = float("-inf")


@dataclass
class Schedules:
    """The recurring runs of one installation.

    Attributes:
        recurring: the database's rows.
        workflows: the ScheduledWorkflows, by the ids of their rows.
        killed: runs whose workflow went away while they ran.
        history: what became of recurring runs: what, id; orders that change nothing
            are none.
        stale: between which seconds after an order a row says what was so before it:
            the agent's copy comes some time after the order.
        clock: tells the time to the controller.
        forgotten: names of runs whose Workflow was cleaned away.
    """

    runs: dict[str, Any] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    recurring: dict[str, Any] = field(default_factory=dict)
    workflows: dict[str, ScheduledWorkflow] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    history: list[tuple[str, str]] = field(default_factory=list)
    stale: tuple[float, float] = (0.0, 0.0)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    forgotten: set[str] = field(default_factory=set)

    def add_recurring(self, given: Any) -> Any:
        """Creates a recurring run, enabled or not as its mode says."""
        self.check_work(given)
        if not 1 <= int(given.max_concurrency or 0) <= 10:
            raise Rejected(
                400,
                "Invalid input error: Max concurrency of a recurring run must be at "
                f"least 1 and at most 10. Received {int(given.max_concurrency or 0)}",
            ).inside("Failed to create a recurring run due to conversion error")
        if given.mode not in ("ENABLE", "DISABLE"):
            raise Rejected(400, f"Invalid mode {given.mode}")
        _check_trigger(given.trigger)
        given.recurring_run_id = str(uuid.uuid4())
        given.created_at = self.clock().replace(microsecond=0)
        given.updated_at = given.created_at
        given.namespace = self.namespace_of(given)
        given.status = f"{given.mode}D"
        key = given.recurring_run_id
        on = given.mode == "ENABLE"
        self.workflows[key] = ScheduledWorkflow(on, given.created_at)
        self.history.append((f"created {given.status}", key))
        return self.recurring.setdefault(key, given)

    def show_recurring(self, key: str) -> Any:
        """Returns a row as it is seen now."""
        row, workflow = self._row(key), self.workflows.get(key)
        if workflow is None:
            return row
        least, most = self.stale
        if not least <= time.monotonic() - workflow.ordered < most:
            return row
        late = copy.copy(row)
        late.mode, late.status = _MODES[not workflow.enabled]
        return late

    def switch(self, key: str, mode: str) -> None:
        """Enables or disables a recurring run; its runs go on."""
        row, on = self._row(key), mode == "ENABLE"
        if key not in self.workflows:
            name = self.workflow_name(key)
            why = f"recurring run's {key} mode to enable:{str(on).lower()}"
            raise Rejected(
                500, f'scheduledworkflows.kubeflow.org "{name}" not found'
            ).inside(f"InternalServerError: Failed to change {why}")
        workflow = self.workflows[key]
        if workflow.enabled != on:
            workflow.ordered = time.monotonic()
            self.history.append((_MODES[on][1], key))
        workflow.enabled = on
        row.mode, row.status = _MODES[on]
        row.updated_at = self.clock().replace(microsecond=0)

    def delete_recurring(self, key: str, policy: str) -> None:
        """Deletes a recurring run, and what it started unless orphaned.

        A run whose workflow is gone ends for nobody: the API says RUNNING for ever.
        """
        self._row(key)
        del self.recurring[key]
        self.vanish(key, keep=policy == "ORPHAN")

    def vanish(self, key: str, *, keep: bool = False) -> None:
        """Takes a ScheduledWorkflow away under the API, and its workflows with it."""
        self.workflows.pop(key, None)
        for run in self.runs.values():
            if not keep and run.recurring_run_id == key and run.state not in _OVER:
                self.stand_still(run.run_id)
                self.killed.append(run.run_id)

    def switch_off(self, experiment: str) -> None:
        """Switches off all that an experiment schedules, as its archiving does."""
        for row in self.recurring.values():
            if row.experiment_id == experiment:
                self.switch(row.recurring_run_id, "DISABLE")

    def look(self, now: datetime) -> list[Any]:
        """Starts what is due, as the controller does whenever it looks."""
        started = (self._sync(key, now) for key in list(self.workflows))
        return [run for run in started if run is not None]

    def fire(self, key: str) -> Any | None:
        """Starts the next run of a schedule, whether it is time or not."""
        row, workflow = self._row(key), self.workflows[key]
        full = len(self._going_on(key)) >= int(row.max_concurrency)
        return None if full or not workflow.enabled else self._start(key, self.clock())

    def enabled(self) -> list[str]:
        """Returns the ids of the schedules that really fire."""
        return [key for key, workflow in self.workflows.items() if workflow.enabled]

    def workflow_name(self, key: str) -> str:
        """Returns the name of a ScheduledWorkflow."""
        return f"sch-{key}"

    def namespace_of(self, item: Any) -> str:
        """Returns the namespace that an object lies in."""
        raise NotImplementedError

    def add_run(self, given: Any) -> Any:
        """Starts a run."""
        raise NotImplementedError

    def check_work(self, given: Any) -> None:
        """Checks what runs and recurring runs have in common."""
        raise NotImplementedError

    def stand_still(self, run_id: str) -> None:
        """Keeps a run as it is, for ever."""
        raise NotImplementedError

    def _row(self, key: str) -> Any:
        if key not in self.recurring:
            raise Rejected(404, f"ResourceNotFoundError: Job {key} not found")
        return self.recurring[key]

    def _going_on(self, key: str) -> list[Any]:
        mine = (r for r in self.runs.values() if r.recurring_run_id == key)
        return [run for run in mine if run.state not in _OVER]

    def _sync(self, key: str, now: datetime) -> Any | None:
        """One look at one schedule: syncHandler and updateStatus."""
        row, workflow = self.recurring.get(key), self.workflows[key]
        if row is None:
            return None
        going_on = self._going_on(key)
        due = _next_due(row, workflow, now)
        submit = workflow.enabled and len(going_on) < int(row.max_concurrency)
        submit = submit and due is not None and due <= now
        run = None
        if submit and due and not self._is_there(key, workflow.index + 1):
            run = self._start(key, due)
        # The lists were made before: a run that has just been started is in neither,
        # so that a fire at a quiet moment leaves no trace in the status.
        mine = [r.display_name for r in self.runs.values() if r.recurring_run_id == key]
        seen = (
            workflow.enabled,
            tuple(sorted(r.display_name for r in going_on)),
            tuple(sorted(n for n in mine if run is None or n != run.display_name)),
        )
        if seen != workflow.seen:
            workflow.seen = seen
            if submit:
                workflow.last, workflow.index = due, workflow.index + 1
        return run

    def _is_there(self, key: str, number: int) -> bool:
        name = self._run_name(key, number)
        names = {run.display_name for run in self.runs.values()}
        return name in names and name not in self.forgotten

    def _run_name(self, key: str, number: int) -> str:
        stem, digest = f"{self.workflow_name(key)}-{number}", 0x811C9DC5
        for byte in stem.encode():  # FNV-1a, 32 bits
            digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
        return f"{stem}-{digest}"

    def _start(self, key: str, due: datetime) -> Any:
        row, workflow = self.recurring[key], self.workflows[key]
        run = self.add_run(
            kfp.V2beta1Run(
                display_name=self._run_name(key, workflow.index + 1),
                experiment_id=row.experiment_id,
                pipeline_spec=row.pipeline_spec,
                runtime_config=row.runtime_config,
                recurring_run_id=key,
            )
        )
        run.scheduled_at, run.service_account = due, None
        return run


def _next_due(row: Any, workflow: ScheduledWorkflow, now: datetime) -> datetime | None:
    """Returns when the next run is due, `now` where missed ones are folded into one."""
    cron, periodic = row.trigger.cron_schedule, row.trigger.periodic_schedule
    either = cron or periodic
    start, end = either.start_time, either.end_time
    last = workflow.last or start or workflow.created
    if cron:
        return _due_by_cron(row, cron.cron, max(last, start or last), now)
    length = timedelta(seconds=int(periodic.interval_second))
    due = start if start and start > last else last + length
    if end and end < due:
        return None
    if not row.no_catchup or now < due + length:
        return due
    return end if end and end < now else now


def _due_by_cron(row: Any, cron: str, after: datetime, now: datetime) -> datetime:
    end = row.trigger.cron_schedule.end_time
    times: Iterator[datetime] = cron_times(cron, after)
    due = next(times)
    if end and end < due:
        return datetime.max.replace(tzinfo=UTC)
    if row.no_catchup:
        for later in times:
            if later > now or (end and later > end):
                break
            due = later
    return due


def _check_trigger(trigger: Any) -> None:
    cron = trigger and trigger.cron_schedule
    periodic = trigger and trigger.periodic_schedule
    if bool(cron) == bool(periodic):
        raise Rejected(400, "Either a cron or a periodic schedule is required")
    if cron and len(cron.cron.split()) not in (5, 6):
        raise Rejected(400, "Schedule cron is not a supported format")
    if periodic and int(periodic.interval_second) < 1:
        raise Rejected(400, "Found invalid period schedule interval")
