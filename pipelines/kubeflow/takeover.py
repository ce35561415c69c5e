"""The moment at which one recurring run of a schedule may take over from another.

Kubeflow counts runs at the same time by recurring run, and each one knows its own times
alone. So a time is lost if the older one is switched off before it has fired, is
doubled if both fire, and a run of the older one goes on beside the first of the newer.
The controller looks every 30 s and queues for 10 s (kubeflow/pipelines 2.17.0,
crd/controller/scheduledworkflow/main.go:213, controller.go:465).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.recurring import RecurringRun, fires, order
from pipelines.kubeflow.run_state import ENDED
from pipelines.kubeflow.timing import Clock, Timing
from pipelines.output import say
from safescale_ammt.errors import SafescaleError

WAIT = 600.0
"""Seconds for which a run of the older recurring run is waited for."""
# A time that is older than this without its run is not coming: the controller has
# looked twice, or the run would be one too many.
_LATE = timedelta(seconds=75)
_SOON = timedelta(seconds=15)  # longer than rolling takes
# After this a schedule that comes every minute or two is rolled all the same.
_PATIENT = timedelta(seconds=180)
_POLL = 5.0  # seconds
_LONGEST_RUN = timedelta(days=1)  # as long as `submit` follows one
_KNOWN = 20  # recurring runs whose runs are looked for: the newest


@dataclass(frozen=True)
class Takeover:
    """A new recurring run that takes the place of older ones.

    Attributes:
        history: the recurring runs before it, oldest first; not empty.
        timing: its times.
        spends: whether its runs, where it fires at all, use up sealed rows.
    """

    history: Sequence[RecurringRun]
    timing: Timing
    spends: bool

    def await_quiet(
        self, kubeflow: Kubeflow, name: str, wait: float, clock: Clock
    ) -> tuple[datetime | None, str]:
        """Waits until nothing is lost, doubled or spent twice by taking over now.

        Returns:
            The last time for which the older ones started a run, None if none did;
            and a sentence about one that goes on, "" if none does.

        Raises:
            SafescaleError: a run of an older one goes on, on rows that the next run
                would judge again beside it.
        """
        began, told = clock.now(), ""
        while True:
            runs, now = runs_of(kubeflow, [r.id for r in self.history]), clock.now()
            due = self.due(runs, now) if now < began + _PATIENT else ""
            goes_on = self.going_on(kubeflow, runs, clock)
            beside = self.beside(goes_on, now)
            if not (due or beside):
                times = (run.scheduled_at for run in runs if run.scheduled_at)
                counts = "and does not count among the new one's --concurrency"
                sentence = f" {goes_on} goes on, {counts}." if goes_on else ""
                return max(times, default=None), sentence
            if not due and now >= began + timedelta(seconds=wait):
                raise SafescaleError(
                    f"Schedule {name!r} is as it was: {beside}; both would judge the "
                    "same sealed rows, whose guarantee is spent by the first; roll it "
                    "again when that run has ended, or with a longer --wait."
                )
            if told != (told := due or beside):
                say(f"Waiting: {told}.", err=True)
            clock.sleep(_POLL)

    def due(self, runs: Sequence[Any], now: datetime) -> str:
        """Says which time the head has not fired yet, or is about to; "" = none."""
        head = self.history[-1]
        if not head.enabled or head.paused or head.timing.ended(now):
            return ""
        fired = {r.scheduled_at for r in runs if r.recurring_run_id == head.id}
        begins = max(head.created, now - _LATE)
        for moment in head.timing.times(begins, now + _SOON):
            if moment not in fired:
                return f"no. {head.number} is to fire for {moment:%H:%M:%S} UTC first"
        return ""

    def going_on(self, kubeflow: Kubeflow, runs: Sequence[Any], clock: Clock) -> str:
        """Names a run of an older one that has not ended; "" = none."""
        made = {recurring_run.id: recurring_run for recurring_run in self.history}
        for run in runs:
            of = made[run.recurring_run_id]
            old = clock.now() - run.scheduled_at > _LONGEST_RUN
            # A run whose recurring run was deleted in Kubernetes went with it, and is
            # called RUNNING for ever. Only an order finds that out; it changes nothing.
            if (
                run.state not in ENDED
                and not old
                and order(kubeflow, of, on=fires(of, self.history, clock))
            ):
                return f"Run {run.run_id} of no. {of.number}"
        return ""

    def beside(self, goes_on: str, now: datetime) -> str:
        """Says that a run would go on beside the next one; "" = none that matters."""
        following = next(self.timing.times(now, now + _LONGEST_RUN), None)
        if not goes_on or not self.spends or following is None:
            return ""
        return f"{goes_on} goes on, and the next is to start at {following:%H:%M} UTC"


def runs_of(kubeflow: Kubeflow, ids: Sequence[str]) -> list[Any]:
    """Returns the newest runs of some recurring runs, newest first."""
    known = {"values": list(ids[-_KNOWN:])}
    predicate = {"operation": "IN", "key": "recurring_run_id", "stringValues": known}
    page = kubeflow.call(
        "looking for runs of the schedule",
        kubeflow.runs.run_service_list_runs,
        filter=json.dumps({"predicates": [predicate]}),
        sort_by="created_at desc",
        page_size=20,
        **kubeflow.scope,
    )
    # One that the API cannot show has its id alone, and is nobody's here.
    return [run for run in page.runs or () if run.recurring_run_id and run.scheduled_at]
