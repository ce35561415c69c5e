"""`safescale schedule`: one recurring run of a name fires, whatever happens.

KFP cannot change a recurring run, and deleting one kills the runs that it
started. So a new one is created disabled, then enabled, then the older ones of
the same name are disabled; nothing is ever deleted. Of all recurring runs of a
name the newest is the head, and every caller works towards one state: the head
fires, the others do not. So a caller that dies half-way is healed by the next,
and of two at the same time the one that came second wins, for both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.kubeflow import runs
from pipelines.kubeflow.answers import AnotherTry, Unreachable
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.preparation import RunSpec
from pipelines.kubeflow.timing import Timing
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.files.canonical import digest_json

_MARK = "safescale schedule "
# The description is the one free text that the API keeps with a recurring run. A name
# alone would not do: recurring runs of one name may be other people's.
_NOTE = re.compile(
    rf"{_MARK}(?P<name>.+?) no\. (?P<number>\d+), "
    r"spec (?P<digest>sha256:[0-9a-f]{64})"
)
# Looks until the state must have settled; each other caller costs one.
_LOOKS = 8


@dataclass(frozen=True)
class RecurringRun:
    """A recurring run of ours.

    Attributes:
        id: its id.
        name: of the schedule.
        number: its place among those of this name, as its maker saw it, from 1.
        digest: of all that it shall be.
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
    def rank(self) -> tuple[int, datetime, str]:
        """Sorts by creation: number, time, id."""
        # The API's clock has whole seconds, so the number comes first. Callers at the
        # same time draw the same number; then time and id give all of them one order.
        return self.number, self.created, self.id


def roll(
    kubeflow: Kubeflow,
    name: str,
    run_spec: RunSpec,
    timing: Timing,
    *,
    experiment: str = runs.EXPERIMENT,
    account: str = runs.ACCOUNT,
) -> str:
    """Brings a schedule to a spec and its times; returns a sentence.

    Raises:
        InputError: not allowed or not understood.
        Unreachable: the API stayed away; the same call again goes on from there.
        SafescaleError: somebody else rolled it at the same time, and later.
    """
    kubeflow.require_version()
    runs.check_name(name)
    runs.check_name(experiment, "--experiment")
    digest = digest_json(
        {
            "spec": run_spec.pipeline.to_api(),
            "parameters": run_spec.parameters,
            "timing": timing.to_dict(),
            "experiment": experiment,
            "account": account,
        }
    )
    history = list_recurring(kubeflow, name)
    if history and history[-1].digest == digest:
        # Settled even so: the call that created it may have died before it fired.
        changed = settle(kubeflow, name)
        state = "fires again" if changed else "is unchanged"
        return f"Schedule {name!r} {state}: {timing}."
    number = history[-1].number + 1 if history else 1
    body = _body(run_spec, timing, account)
    body.display_name = name
    body.description = f"{_MARK}{name} no. {number}, spec {digest}"
    body.experiment_id = runs.experiment_id(kubeflow, experiment)
    new_id = _create(kubeflow, body, name, {r.id for r in history})
    settle(kubeflow, name)
    head = list_recurring(kubeflow, name)[-1]
    if head.id != new_id and head.digest != digest:
        raise SafescaleError(
            f"Schedule {name!r} was rolled by somebody else at the same time and later "
            f"than here; theirs fires: {head.when}."
        )
    suffix = f", in place of no. {history[-1].number}" if history else ""
    return f"Schedule {name!r} fires{suffix}: {timing}."


def settle(kubeflow: Kubeflow, name: str) -> bool:
    """Makes the head fire and no other; returns whether that changed anything.

    Raises:
        SafescaleError: others kept changing it.
    """
    changed = False
    for _ in range(_LOOKS):
        # Listed anew each time: what another caller did meanwhile is part of the state
        # that both work towards.
        history = list_recurring(kubeflow, name)
        wrong = [r for r in history if r.enabled != (r is history[-1])]
        if not wrong:
            return changed
        # The head first: better two fire for a second than none for a week.
        for recurring_run in reversed(wrong):
            enable(kubeflow, recurring_run, on=recurring_run is history[-1])
        changed = True
    raise SafescaleError(
        f"Schedule {name!r} does not settle: somebody else keeps changing it."
    )


def pause(kubeflow: Kubeflow, name: str) -> str:
    """Keeps a schedule from firing; what runs goes on."""
    for recurring_run in _history(kubeflow, name):
        if recurring_run.enabled:
            enable(kubeflow, recurring_run, on=False)
    return f"Schedule {name!r} is paused; what it started goes on."


def resume(kubeflow: Kubeflow, name: str) -> str:
    """Lets a paused schedule fire again."""
    history = _history(kubeflow, name)
    settle(kubeflow, name)
    return f"Schedule {name!r} fires: {history[-1].when}."


def list_recurring(kubeflow: Kubeflow, name: str = "") -> list[RecurringRun]:
    """Returns our recurring runs, of one name or of all, oldest first."""
    items = kubeflow.pages(
        "listing schedules",
        kubeflow.schedules.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        sort_by="created_at asc",
        **kubeflow.scope,
    )
    history = []
    for item in items:
        note = _NOTE.fullmatch(item.description or "")
        if note is None or name not in ("", note["name"]):
            continue
        trigger = item.trigger
        cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else ""
        periodic = trigger.periodic_schedule if trigger else None
        every = f"every {periodic.interval_second} s" if periodic else ""
        recurring_run = RecurringRun(
            id=str(item.recurring_run_id),
            name=note["name"],
            number=int(note["number"]),
            digest=note["digest"],
            created=item.created_at,
            enabled=item.status == "ENABLED",
            when=every or (f"cron '{cron}'" if cron else ""),
        )
        history.append(recurring_run)
    return sorted(history, key=lambda recurring_run: recurring_run.rank)


def enable(kubeflow: Kubeflow, recurring_run: RecurringRun, *, on: bool) -> None:
    """Enables or disables a recurring run; twice is the same as once."""
    service = kubeflow.schedules
    method = (
        service.recurring_run_service_enable_recurring_run
        if on
        else service.recurring_run_service_disable_recurring_run
    )
    kubeflow.call(
        f"{'enabling' if on else 'disabling'} schedule {recurring_run.name!r}",
        method,
        recurring_run_id=recurring_run.id,
    )


def _create(kubeflow: Kubeflow, body: Any, name: str, before: set[str]) -> str:
    """Creates a recurring run of schedule `name`, disabled; returns its id.

    A lost answer makes no second one: whichever is not among the ids of `before`, with
    the digest of this body, is the one that was created.

    Raises:
        InputError: not allowed or not understood.
        Unreachable: the API stayed away.
    """
    for wait in kubeflow.retry.tries():
        with AnotherTry(wait):
            answer = kubeflow.call_once(
                f"creating schedule {name!r}",
                kubeflow.schedules.recurring_run_service_create_recurring_run,
                recurring_run=body,
            )
            return str(answer.recurring_run_id)
        for recurring_run in list_recurring(kubeflow, name):
            # The description ends in the digest: another caller's of the same spec is
            # as good as ours.
            same = body.description.endswith(recurring_run.digest)
            if same and recurring_run.id not in before:
                return recurring_run.id
    raise Unreachable(f"Schedule {name!r} could not be created.")


def _body(run_spec: RunSpec, timing: Timing, account: str) -> Any:
    """Returns a recurring run that does not fire yet; its caller names it."""
    import kfp_server_api as kfp

    return kfp.V2beta1RecurringRun(
        # Disabled, so that a caller that dies here leaves the older one firing alone.
        mode="DISABLE",
        pipeline_spec=run_spec.pipeline.to_api(),
        runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(run_spec.parameters)),
        service_account=account,
        max_concurrency=str(timing.concurrency),
        no_catchup=not timing.catch_up,
        trigger=timing.trigger(),
    )


def _history(kubeflow: Kubeflow, name: str) -> list[RecurringRun]:
    """Returns the recurring runs of a schedule, oldest first.

    Raises:
        InputError: there is none.
    """
    kubeflow.require_version()
    history = list_recurring(kubeflow, name)
    if not history:
        raise InputError(
            f"No schedule {name!r} in namespace {kubeflow.session.namespace!r}; "
            "`safescale schedule list` names those that are there."
        )
    return history
