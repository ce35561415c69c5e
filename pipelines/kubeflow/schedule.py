"""`safescale schedule`: one schedule of a name fires, whatever happens on the way.

KFP cannot change a recurring run, and deleting one kills the runs that it
started. So a new one is created disabled, then enabled, then the older ones of
the same name are disabled; nothing is ever deleted. Of all recurring runs of a
name the newest is the head, and every caller works towards one state: the head
fires, the others do not. So a caller that dies half-way is healed by the next,
and of two at the same time the one that came second wins, for both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.kubeflow import runs
from pipelines.kubeflow.answers import Unreachable
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.preparation import RunSpec
from pipelines.kubeflow.timing import Timing
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.files.canonical import digest_json

_MARK = "safescale schedule "
_NOTE = re.compile(
    rf"{_MARK}(?P<name>.+?) no\. (?P<number>\d+), "
    r"spec (?P<digest>sha256:[0-9a-f]{64})"
)
_ROUNDS = 8
"""Looks until the state must have settled; each other caller costs one."""


@dataclass(frozen=True)
class RecurringRun:
    """A recurring run of ours.

    Attributes:
        id: its id.
        name: of the schedule.
        number: how many were made before it under this name, as its maker saw it.
        digest: of all that it was asked to be.
        created: when.
        enabled: whether it fires.
        when: its times, for people.
    """

    id: str
    name: str
    number: int
    digest: str
    created: datetime
    enabled: bool
    when: str

    @property
    def age(self) -> tuple[int, datetime, str]:
        """Sorts by creation; the API's clock alone has whole seconds."""
        return self.number, self.created, self.id


def roll(
    kubeflow: Kubeflow,
    name: str,
    prepared: RunSpec,
    timing: Timing,
    *,
    experiment: str = runs.EXPERIMENT,
    account: str = runs.ACCOUNT,
) -> str:
    """Brings a schedule to what was asked; returns a sentence.

    Raises:
        InputError: not allowed or not understood.
        Unreachable: the API stayed away; the same call again goes on from there.
    """
    kubeflow.require_version()
    runs.check_name(name)
    runs.check_name(experiment, "--experiment")
    digest = _digest(prepared, timing, experiment, account)
    entries = listed(kubeflow, name)
    if entries and entries[-1].digest == digest:
        changed = settle(kubeflow, name)
        state = "fires again" if changed else "is unchanged"
        return f"Schedule {name!r} {state}: {timing}."
    number = entries[-1].number + 1 if entries else 1
    body = _body(prepared, timing, account)
    body.display_name = name
    body.description = f"{_MARK}{name} no. {number}, spec {digest}"
    body.experiment_id = runs.experiment_id(kubeflow, experiment)
    made = _create(kubeflow, body, name, {e.id for e in entries})
    settle(kubeflow, name)
    head = listed(kubeflow, name)[-1]
    if head.id != made and head.digest != digest:
        raise SafescaleError(
            f"Schedule {name!r} was rolled by somebody else at the same time and later "
            f"than here; theirs fires: {head.when}."
        )
    replaced = f", in place of no. {entries[-1].number}" if entries else ""
    return f"Schedule {name!r} fires{replaced}: {timing}."


def settle(kubeflow: Kubeflow, name: str) -> bool:
    """Makes the head fire and no other; returns whether that changed anything.

    Raises:
        SafescaleError: others kept changing it.
    """
    changed = False
    for _ in range(_ROUNDS):
        entries = listed(kubeflow, name)
        wrong = [e for e in entries if e.enabled != (e is entries[-1])]
        if not wrong:
            return changed
        # The head first: better two fire for a second than none for a week.
        for entry in reversed(wrong):
            switch(kubeflow, entry, on=entry is entries[-1])
        changed = True
    raise SafescaleError(
        f"Schedule {name!r} does not settle: somebody else keeps changing it."
    )


def pause(kubeflow: Kubeflow, name: str) -> str:
    """Keeps a schedule from firing; what runs goes on."""
    entries = _known(kubeflow, name)
    for entry in entries:
        if entry.enabled:
            switch(kubeflow, entry, on=False)
    return f"Schedule {name!r} is paused; what it started goes on."


def resume(kubeflow: Kubeflow, name: str) -> str:
    """Lets a paused schedule fire again."""
    entries = _known(kubeflow, name)
    settle(kubeflow, name)
    return f"Schedule {name!r} fires: {entries[-1].when}."


def listed(kubeflow: Kubeflow, name: str = "") -> list[RecurringRun]:
    """Returns our recurring runs, of one name or of all, oldest first."""
    where = {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
    found = kubeflow.pages(
        "listing schedules",
        kubeflow.schedules.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        sort_by="created_at asc",
        **where,
    )
    entries = [entry for item in found if (entry := _entry(item))]
    return sorted(
        (e for e in entries if name in ("", e.name)), key=lambda entry: entry.age
    )


def switch(kubeflow: Kubeflow, entry: RecurringRun, *, on: bool) -> None:
    """Enables or disables a recurring run; twice is the same as once."""
    service = kubeflow.schedules
    call = (
        service.recurring_run_service_enable_recurring_run
        if on
        else service.recurring_run_service_disable_recurring_run
    )
    word = "enabling" if on else "disabling"
    kubeflow.ask(f"{word} schedule {entry.name!r}", call, recurring_run_id=entry.id)


def _create(kubeflow: Kubeflow, body: Any, name: str, before: set[str]) -> str:
    """Creates a recurring run, disabled; a lost answer makes no second one."""
    for wait in kubeflow.retry.tries():
        try:
            made = kubeflow.order(
                f"creating schedule {name!r}",
                kubeflow.schedules.recurring_run_service_create_recurring_run,
                recurring_run=body,
            )
        except Unreachable:
            if not wait:
                raise
            time.sleep(wait)
            for entry in listed(kubeflow, name):
                if entry.id not in before and body.description.endswith(entry.digest):
                    return entry.id
        else:
            return str(made.recurring_run_id)
    raise Unreachable(f"Schedule {name!r} could not be created.")


def _body(prepared: RunSpec, timing: Timing, account: str) -> Any:
    """Returns a recurring run that does not fire yet; its caller names it."""
    import kfp_server_api as kfp

    return kfp.V2beta1RecurringRun(
        mode="DISABLE",
        pipeline_spec=prepared.pipeline.to_api(),
        runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(prepared.parameters)),
        service_account=account,
        max_concurrency=str(timing.concurrency),
        no_catchup=not timing.catch_up,
        trigger=timing.trigger(),
    )


def _digest(prepared: RunSpec, timing: Timing, experiment: str, account: str) -> str:
    asked: Mapping[str, Any] = {
        "spec": prepared.pipeline.to_api(),
        "parameters": prepared.parameters,
        "timing": timing.to_dict(),
        "experiment": experiment,
        "account": account,
    }
    return digest_json(asked)


def _entry(item: Any) -> RecurringRun | None:
    """Reads a recurring run; None if it is not one of ours."""
    note = _NOTE.fullmatch(item.description or "")
    if note is None:
        return None
    trigger = item.trigger
    cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else ""
    periodic = trigger.periodic_schedule if trigger else None
    when = f"cron '{cron}'" if cron else ""
    if periodic:
        when = f"every {periodic.interval_second} s"
    return RecurringRun(
        id=str(item.recurring_run_id),
        name=note["name"],
        number=int(note["number"]),
        digest=note["digest"],
        created=item.created_at,
        enabled=item.status == "ENABLED",
        when=when,
    )


def _known(kubeflow: Kubeflow, name: str) -> list[RecurringRun]:
    kubeflow.require_version()
    entries = listed(kubeflow, name)
    if not entries:
        raise InputError(
            f"No schedule {name!r} in namespace {kubeflow.session.namespace!r}; "
            "`safescale schedule list` names those that are there."
        )
    return entries
