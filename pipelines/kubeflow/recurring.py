"""The recurring runs of a schedule: read, made, and brought to what is wanted.

Kubeflow's word for whether one fires cannot be trusted: its persistence agent writes
an older copy over a newer order (kubeflow/pipelines 2.17.0, job_store.go:437). So what
is wanted is ordered, whatever is said, and looked at again some seconds later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.kubeflow.answers import AnotherTry, Rejection, Unreachable
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.timing import Clock, Timing
from safescale_ammt.errors import InputError, SafescaleError

_MARK = "safescale schedule "
_PAUSED = ", paused"
# The description is the one free text that the API keeps with a recurring run. A name
# alone would not do: recurring runs of one name may be other people's.
_NOTE = re.compile(
    rf"{_MARK}(?P<name>.+?) no\. (?P<number>\d+), "
    rf"spec (?P<digest>sha256:[0-9a-f]{{64}})(?P<paused>{_PAUSED})?"
)
SETTLE = 4.0
"""Seconds after which an order has reached everybody: the agent waits for one."""
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
        enabled: whether it fires, as the API says; that may be out of date.
        paused: whether it was made to keep the schedule from firing.
        timing: its times, its start as `Timing.resolved` gave it.
        item: the API's own form.
    """

    id: str
    name: str
    number: int
    digest: str
    created: datetime
    enabled: bool
    paused: bool
    timing: Timing
    item: Any = field(repr=False, compare=False)

    @property
    def rank(self) -> tuple[int, datetime, str]:
        """Sorts by creation: number, time, id."""
        # The API's clock has whole seconds, so the number comes first. Callers at the
        # same time draw the same number; then time and id give all of them one order.
        return self.number, self.created, self.id


def note(name: str, number: int, digest: str, *, paused: bool) -> str:
    """Returns the description by which a recurring run is known to be ours."""
    return f"{_MARK}{name} no. {number}, spec {digest}{_PAUSED if paused else ''}"


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
        found = _NOTE.fullmatch(item.description or "")
        if found is None or name not in ("", found["name"]):
            continue
        recurring_run = RecurringRun(
            id=str(item.recurring_run_id),
            name=found["name"],
            number=int(found["number"]),
            digest=found["digest"],
            created=item.created_at,
            enabled=item.status == "ENABLED",
            paused=bool(found["paused"]),
            timing=Timing.of(item),
            item=item,
        )
        history.append(recurring_run)
    return sorted(history, key=lambda recurring_run: recurring_run.rank)


def order(kubeflow: Kubeflow, recurring_run: RecurringRun, *, on: bool) -> bool:
    """Orders a recurring run to fire or not; False if it can do neither any more.

    Twice is the same as once.
    """
    service = kubeflow.schedules
    method = (
        service.recurring_run_service_enable_recurring_run
        if on
        else service.recurring_run_service_disable_recurring_run
    )
    try:
        kubeflow.call(
            f"{'enabling' if on else 'disabling'} schedule {recurring_run.name!r}",
            method,
            recurring_run_id=recurring_run.id,
        )
    except Rejection as error:
        # 404: deleted. 500: its ScheduledWorkflow was, and the API would say so for
        # ever (resource_manager.go, ChangeJobMode); neither fires.
        if error.status not in (404, 500):
            raise
        return False
    return True


@dataclass(frozen=True)
class Settled:
    """What a schedule has come to.

    Attributes:
        history: its recurring runs, oldest first; the last one is the head.
        gone: those that fire no more, since Kubernetes has nothing of them.
        changed: whether the API had said something else before.
    """

    history: list[RecurringRun]
    gone: list[RecurringRun]
    changed: bool

    @property
    def head(self) -> RecurringRun | None:
        """The newest; None if somebody deleted all of them."""
        return self.history[-1] if self.history else None

    @property
    def stands(self) -> bool:
        """Whether there is a head, in Kubernetes too."""
        return self.head is not None and self.head not in self.gone

    @property
    def lost(self) -> str:
        """Names what is gone, as a sentence; "" = nothing."""
        if not self.gone:
            return ""
        numbers = ", ".join(f"no. {r.number} (id {r.id})" for r in self.gone)
        return f" Deleted in Kubernetes, still listed, counted as off: {numbers}."


def settle(kubeflow: Kubeflow, name: str, clock: Clock) -> Settled:
    """Makes the head fire and no other, or none if the head is paused or at its end.

    Raises:
        SafescaleError: others kept changing it.
    """
    gone: set[str] = set()
    changed = False
    history = list_recurring(kubeflow, name)
    for _ in range(_LOOKS):
        # The head first: better two fire for a second than none for a week.
        for recurring_run in reversed(history):
            on = fires(recurring_run, history, clock)
            if recurring_run.id in gone:
                continue
            if not order(kubeflow, recurring_run, on=on):
                gone.add(recurring_run.id)
            changed |= recurring_run.enabled != on
        clock.sleep(SETTLE)
        # Listed anew each time: what another caller did meanwhile is part of the state
        # that both work towards.
        ordered, history = history, list_recurring(kubeflow, name)
        same = [r.id for r in ordered] == [r.id for r in history]
        if same and all(
            r.id in gone or r.enabled == fires(r, history, clock) for r in history
        ):
            return Settled(history, [r for r in history if r.id in gone], changed)
    raise SafescaleError(
        f"Schedule {name!r} does not settle: somebody else keeps changing it, or "
        "Kubeflow keeps saying what was so before."
    )


def create(kubeflow: Kubeflow, body: Any, name: str, before: set[str]) -> str:
    """Creates a recurring run of schedule `name`; returns its id.

    A lost answer makes no second one: whichever is not among the ids of `before`, with
    the description of this body, is the one that was created.

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
            # Another caller's of the same spec is as good as ours, whatever its number.
            _, _, spec = recurring_run.item.description.rpartition(" no. ")
            same = body.description.endswith(spec.partition(", ")[2])
            if same and recurring_run.id not in before:
                return recurring_run.id
    raise Unreachable(f"Schedule {name!r} could not be created.")


def experiment_state(kubeflow: Kubeflow, experiment: str) -> str:
    """Returns "" for an experiment by id in which runs start, else what it is."""
    try:
        answer = kubeflow.call(
            "looking for an experiment",
            kubeflow.experiments.experiment_service_get_experiment,
            experiment_id=experiment,
        )
    except Rejection as error:
        if error.status != 404:
            raise
        return "deleted"
    return "archived" if answer.storage_state == "ARCHIVED" else ""


def require_experiment(kubeflow: Kubeflow, experiment: str, name: str) -> None:
    """Refuses an experiment that was archived or deleted.

    Raises:
        InputError: it was.
    """
    state = experiment_state(kubeflow, experiment)
    if state:
        raise InputError(
            f"The experiment of schedule {name!r} is {state}, which switches off all "
            "that it schedules: restore it in Kubeflow's pages, or roll the schedule "
            "into another one with --experiment."
        )


def is_paused(kubeflow: Kubeflow, history: list[RecurringRun], clock: Clock) -> bool:
    """Whether somebody switched a schedule off, here or in Kubeflow's pages.

    Args:
        kubeflow: is asked again where its word alone says so.
        history: recurring runs of one name, oldest first.
        clock: tells the time.
    """
    if not history or history[-1].paused:
        return bool(history)
    head = history[-1]
    if head.timing.ended(clock.now()) or any(r.enabled for r in history):
        return False
    # The API's word may be old, so it is asked again, and once more.
    for _ in range(2):
        clock.sleep(SETTLE)
        now = list_recurring(kubeflow, head.name)
        if [r.id for r in now] != [r.id for r in history]:
            return False
        if any(r.enabled for r in now):
            return False
    # What was archived was not paused.
    return not experiment_state(kubeflow, head.item.experiment_id)


def fires(
    recurring_run: RecurringRun, history: Sequence[RecurringRun], clock: Clock
) -> bool:
    """Whether one of a history is wanted to fire."""
    ended = recurring_run.timing.ended(clock.now())
    return recurring_run is history[-1] and not recurring_run.paused and not ended
