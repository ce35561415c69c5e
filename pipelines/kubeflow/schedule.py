"""`safescale schedule`: one recurring run of a name fires, whatever happens.

KFP cannot change a recurring run, and deleting one leaves the runs that it started
without an end. So whatever is asked for, a pause too, is a new one, and nothing is ever
deleted. Of all recurring runs of a name the newest is the head, and every caller works
towards one state: the head fires unless it says *paused*, the others do not. So a
caller that dies half-way is healed by the next, and of two at the same time the one
that came second wins, for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow import recurring, runs
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.preparation import RunSpec
from pipelines.kubeflow.recurring import (
    RecurringRun,
    Settled,
    list_recurring,
    settle,
)
from pipelines.kubeflow.takeover import WAIT, Takeover
from pipelines.kubeflow.timing import Clock, Timing
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.files.canonical import digest_json

_CLOCK = Clock()


@dataclass(frozen=True)
class Order:
    """What the next recurring run of a schedule shall be.

    Attributes:
        name: of the schedule.
        digest: of all of it.
        timing: its times.
        content: pipeline, parameters, account and experiment, in the API's form.
    """

    name: str
    digest: str
    timing: Timing
    content: Mapping[str, Any]

    @classmethod
    def new(cls, name: str, run_spec: RunSpec, timing: Timing, **more: str) -> Order:
        """Returns what was asked for; `more` is account, experiment and its id."""
        import kfp_server_api as kfp

        spec, parameters = run_spec.pipeline.to_api(), dict(run_spec.parameters)
        asked = {
            "spec": spec,
            "parameters": parameters,
            "timing": timing.to_dict(),
            "experiment": more["experiment"],
            "account": more["account"],
        }
        content = {
            "pipeline_spec": spec,
            "runtime_config": kfp.V2beta1RuntimeConfig(parameters=parameters),
            "service_account": more["account"],
            "experiment_id": more["experiment_id"],
        }
        return cls(name, digest_json(asked), timing, content)

    @classmethod
    def of(cls, head: RecurringRun) -> Order:
        """Returns the order that a recurring run was made by."""
        keys = ("pipeline_spec", "runtime_config", "service_account", "experiment_id")
        content = {key: getattr(head.item, key) for key in keys}
        return cls(head.name, head.digest, head.timing, content)

    @property
    def spends(self) -> bool:
        """Whether its runs use up sealed rows."""
        values = self.content["runtime_config"].parameters or {}
        return not (values.get("safety") or {}).get("rehearse")

    def keep(
        self,
        kubeflow: Kubeflow,
        history: list[RecurringRun],
        clock: Clock,
        *,
        paused: bool,
    ) -> tuple[str, Settled]:
        """Brings a head that was made by this order to what is wanted of it.

        Returns:
            A sentence, "" if there is no such head any more; and what is there.
        """
        if paused and not history[-1].paused:
            why = "somebody switched it off in Kubeflow"
            sentence = f"Schedule {self.name!r} {_stays(self.name)} ({why})."
            return sentence, Settled(history, [], changed=False)
        # Settled even so: the call that created it may have died before it fired.
        settled = settle(kubeflow, self.name, clock)
        if not settled.stands or settled.history[-1].digest != self.digest:
            return "", settled
        state = "fires again" if settled.changed else "is unchanged"
        state = _stays(self.name) if paused else f"{state}: {self.timing}"
        return f"Schedule {self.name!r} {state}.{settled.lost}", settled

    def place(
        self,
        kubeflow: Kubeflow,
        history: list[RecurringRun],
        clock: Clock,
        *,
        paused: bool,
        wait: float,
    ) -> Placed:
        """Makes it the newest of a history, which `settle` then makes fire alone.

        Raises:
            InputError: not allowed or not understood.
            Unreachable: the API stayed away; the same call again goes on from there.
            SafescaleError: a run goes on whose sealed rows the next would judge again.
        """
        import kfp_server_api as kfp

        head = history[-1] if history else None
        grid = head.timing.start if head and head.timing.every else None
        since, goes_on = None, ""
        if head and not paused:
            timing = self.timing.resolved(clock.now(), grid)
            takeover = Takeover(history, timing, self.spends)
            since, goes_on = takeover.await_quiet(kubeflow, self.name, wait, clock)
        timing = self.timing.resolved(clock.now(), grid, since)
        number = head.number + 1 if head else 1
        body = kfp.V2beta1RecurringRun(
            display_name=self.name,
            description=recurring.note(self.name, number, self.digest, paused=paused),
            # Disabled, so that a caller that dies here leaves the older one firing
            # alone. Where there is none, it could not be told from a paused one.
            mode="DISABLE" if head or paused else "ENABLE",
            max_concurrency=str(timing.concurrency),
            no_catchup=not timing.catch_up,
            trigger=timing.trigger(),
            **self.content,
        )
        before = {recurring_run.id for recurring_run in history}
        made = recurring.create(kubeflow, body, self.name, before)
        return Placed(made, timing, goes_on)


@dataclass(frozen=True)
class Placed:
    """A recurring run that was just made.

    Attributes:
        id: its id.
        timing: its times.
        goes_on: which run of an older one goes on, as a sentence; "" = none.
    """

    id: str
    timing: Timing
    goes_on: str

    @property
    def when(self) -> str:
        """Its times, for people."""
        first = self.timing.start
        # A cron expression is read in the controller's zone, which is not known here.
        shown = f", next at {first:%Y-%m-%d %H:%M:%S} UTC" if first else ""
        return f"{self.timing}{shown}" if self.timing.every else str(self.timing)


def roll(
    kubeflow: Kubeflow,
    name: str,
    run_spec: RunSpec,
    timing: Timing,
    *,
    experiment: str = runs.EXPERIMENT,
    account: str = runs.ACCOUNT,
    wait: float = WAIT,
    clock: Clock = _CLOCK,
) -> str:
    """Brings a schedule to a spec and its times; returns sentences.

    One that somebody paused takes the order and stays paused.

    Raises:
        InputError: not allowed or not understood.
        Unreachable: the API stayed away; the same call again goes on from there.
        SafescaleError: somebody else rolled it at the same time, and later; or a run
            goes on whose sealed rows the next would judge again.
    """
    kubeflow.require_version()
    runs.check_name(name)
    runs.check_name(experiment, "--experiment")
    where = runs.experiment_id(kubeflow, experiment)
    recurring.require_experiment(kubeflow, where, name)
    order = Order.new(
        *(name, run_spec, timing),
        account=account,
        experiment=experiment,
        experiment_id=where,
    )
    history = list_recurring(kubeflow, name)
    paused = _is_paused(kubeflow, history, clock)
    lost = ""
    if history and history[-1].digest == order.digest:
        sentence, settled = order.keep(kubeflow, history, clock, paused=paused)
        if sentence:
            return sentence
        history, lost = settled.history, settled.lost
    placed = order.place(kubeflow, history, clock, paused=paused, wait=wait)
    settled = settle(kubeflow, name, clock)
    head = settled.head
    if head is None or (head.id != placed.id and head.digest != order.digest):
        raise SafescaleError(
            f"Schedule {name!r} was rolled by somebody else at the same time and later "
            f"than here; theirs is {head.timing if head else 'deleted'}."
        )
    suffix = f", in place of no. {history[-1].number}" if history else ""
    state = f"is rolled{suffix}, and {_stays(name)}" if paused else f"fires{suffix}"
    lost = settled.lost or lost
    return f"Schedule {name!r} {state}: {placed.when}.{placed.goes_on}{lost}"


def pause(kubeflow: Kubeflow, name: str, clock: Clock = _CLOCK) -> str:
    """Keeps a schedule from firing, whoever rolls it; what runs goes on."""
    history = _history(kubeflow, name)
    # Before anything else, and whatever the API says of them.
    for recurring_run in reversed(history):
        recurring.order(kubeflow, recurring_run, on=False)
    head = history[-1]
    if head.timing.ended(clock.now()):
        return f"Schedule {name!r} has ended, and fires no more."
    if not head.paused:
        Order.of(head).place(kubeflow, history, clock, paused=True, wait=0.0)
    settled = settle(kubeflow, name, clock)
    if settled.head is None or not settled.head.paused:
        raise SafescaleError(
            f"Schedule {name!r} was rolled, resumed or deleted by somebody else at "
            "the same time and later than here."
        )
    return f"Schedule {name!r} is paused; what it started goes on.{settled.lost}"


def resume(
    kubeflow: Kubeflow, name: str, wait: float = WAIT, clock: Clock = _CLOCK
) -> str:
    """Lets a paused schedule fire again, from its next time on.

    Raises:
        InputError: there is none, it has ended, or its experiment is gone.
        SafescaleError: a run goes on whose sealed rows the next would judge again.
    """
    history = _history(kubeflow, name)
    head = history[-1]
    if head.timing.ended(clock.now()):
        raise InputError(
            f"Schedule {name!r} has ended ({head.timing.end:%Y-%m-%d %H:%M} UTC); "
            "`safescale schedule` with a later --end rolls it."
        )
    recurring.require_experiment(kubeflow, head.item.experiment_id, name)
    if head.enabled and not head.paused:
        settled = settle(kubeflow, name, clock)
        if settled.stands:
            return f"Schedule {name!r} fires: {head.timing}.{settled.lost}"
        history = settled.history
    # Not the old one again: Kubeflow makes up for a time that it missed while it was
    # off, catch-up or not.
    order = Order.of(history[-1] if history else head)
    placed = order.place(kubeflow, history, clock, paused=False, wait=wait)
    settled = settle(kubeflow, name, clock)
    return f"Schedule {name!r} fires: {placed.when}.{placed.goes_on}{settled.lost}"


def states(kubeflow: Kubeflow, clock: Clock = _CLOCK) -> list[tuple[RecurringRun, str]]:
    """Returns our recurring runs by time, each with a word for what it does."""
    known: dict[str, str] = {}
    heads: dict[str, RecurringRun] = {}
    history = list_recurring(kubeflow)
    for recurring_run in history:
        heads[recurring_run.name] = recurring_run  # the last by rank
    shown = []
    for item in sorted(history, key=lambda r: (r.created, r.rank)):
        experiment = item.item.experiment_id or ""
        if experiment and experiment not in known:
            known[experiment] = recurring.experiment_state(kubeflow, experiment)
        state = "fires" if item.enabled else "off"
        if item.timing.ended(clock.now()):
            state = "ended"
        elif known.get(experiment):
            state = known[experiment]
        elif item.paused and item is heads[item.name]:
            state = "paused"
        shown.append((item, state))
    return shown


def _stays(name: str) -> str:
    return f"stays paused; `safescale schedule resume {name}` lets it fire"


def _is_paused(kubeflow: Kubeflow, history: list[RecurringRun], clock: Clock) -> bool:
    """Whether somebody switched a schedule off, here or in Kubeflow's pages."""
    if not history or history[-1].paused:
        return bool(history)
    head = history[-1]
    if head.timing.ended(clock.now()) or any(r.enabled for r in history):
        return False
    # The API's word may be old, so it is asked again.
    clock.sleep(recurring.SETTLE)
    now = list_recurring(kubeflow, head.name)
    if [r.id for r in now] != [r.id for r in history] or any(r.enabled for r in now):
        return False
    # What was archived was not paused.
    return not recurring.experiment_state(kubeflow, head.item.experiment_id)


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
