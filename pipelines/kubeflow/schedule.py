"""`safescale schedule`: one recurring run of a name fires, whatever happens.

KFP cannot change a recurring run, and deleting one leaves the runs that it started
without an end. So whatever is asked for, a pause too, is a new one, and nothing is ever
deleted. Of all recurring runs of a name the newest is the head, and every caller works
towards one state: the head fires unless it says *paused*, the others do not. So a
caller that dies half-way is healed by the next, and of two at the same time the one
that came second wins, for both.
"""

from __future__ import annotations

from pipelines.kubeflow import recurring, runs
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.names import check_name
from pipelines.kubeflow.preparation import RunSpec
from pipelines.kubeflow.recurring import RecurringRun, list_recurring, settle
from pipelines.kubeflow.recurring_order import Order, stays_paused
from pipelines.kubeflow.takeover import WAIT
from pipelines.kubeflow.timing import Clock, Timing
from safescale_ammt.errors import InputError, SafescaleError

_CLOCK = Clock()


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
    check_name(name)
    check_name(experiment, "--experiment")
    where = runs.experiment_id(kubeflow, experiment)
    order = Order.new(
        *(name, run_spec, timing),
        account=account,
        experiment=experiment,
        experiment_id=where,
    )
    history = list_recurring(kubeflow, name)
    paused = recurring.is_paused(kubeflow, history, clock)
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
        theirs = f"theirs fires: {head.timing}" if head else "it is deleted now"
        raise SafescaleError(
            f"Schedule {name!r} was rolled by somebody else at the same time and later "
            f"than here; {theirs}."
        )
    suffix = f", in place of no. {history[-1].number}" if history else ""
    stays = f"is rolled{suffix}, and {stays_paused(name)}"
    state = stays if paused else f"fires{suffix}"
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
