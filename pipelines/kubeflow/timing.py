"""When a schedule fires, and what Kubeflow has to be told so that it does then.

What Kubeflow's controller does with a start (kubeflow/pipelines 2.17.0,
crd/controller/scheduledworkflow/util) is not what people mean by one: an interval
comes for the first time one interval after it, a cron expression only after it, and
one that is past makes up for the newest missed time, catch-up or not. So the start
that is sent is worked out here, and never asks for a time that is past.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.kubeflow.cron import times_of
from safescale_ammt.errors import InputError
from safescale_ammt.execution import utc_now

# No zone is further from UTC; in which one the controller reads a cron expression is
# known to the cluster alone.
_ZONE = timedelta(hours=14)
_FIRST = 1970  # year; catching up begins there at the earliest
_LAST = datetime.max.replace(tzinfo=UTC) - _ZONE


@dataclass(frozen=True)
class Clock:
    """What tells the time, and passes it.

    Attributes:
        now: gives the time, UTC.
        sleep: waits for so many seconds.
    """

    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Timing:
    """When a schedule fires.

    Attributes:
        cron: six fields, as `cron.six_fields` gives them; "" = by interval.
        every: seconds between two runs; 0 = by cron.
        start, end: nothing fires before or after; an interval is counted from its
            start, which fires too.
        concurrency: runs at the same time, 1 to 10.
        catch_up: whether missed times are made up for, one run each.
    """

    cron: str = ""
    every: int = 0
    start: datetime | None = None
    end: datetime | None = None
    concurrency: int = 1
    catch_up: bool = False

    @classmethod
    def of(cls, item: Any) -> Timing:
        """Reads it back from the API's form of a recurring run."""
        trigger = item.trigger
        by_cron = trigger.cron_schedule if trigger else None
        periodic = trigger.periodic_schedule if trigger else None
        either = by_cron or periodic
        timing = cls(
            cron=(by_cron.cron or "") if by_cron else "",
            every=int(periodic.interval_second or 0) if periodic else 0,
            end=either.end_time if either else None,
            concurrency=int(item.max_concurrency or 1),
            catch_up=not item.no_catchup,
        )
        sent = either.start_time if either else None
        if sent is None and timing.every:
            sent = item.created_at  # an older version's
        return replace(timing, start=sent + timing.ahead) if sent else timing

    @property
    def ahead(self) -> timedelta:
        """What the first time comes after the start that the controller is given."""
        return timedelta(seconds=self.every or 1)

    def check(self, now: datetime) -> None:
        """Checks that exactly one kind of time is given, and a span that exists.

        Raises:
            InputError: it is neither or both, or nothing would ever run.
        """
        if bool(self.cron) == bool(self.every):
            raise InputError("A schedule needs either --cron or --every.")
        if self.start and self.start.year < _FIRST:
            raise InputError(f"--start lies before {_FIRST}; give a later one.")
        if self.start and self.end and self.start >= self.end:
            raise InputError("--start comes after --end, so nothing would ever run.")
        if self.end and self.end <= now:
            raise InputError("--end is in the past, so nothing would ever run.")
        if self.end:
            until = min(self.end, _LAST) + (_ZONE if self.cron else timedelta())
            # The start itself is one of the times.
            begins = max(now, self.start or now) - timedelta(seconds=1)
            begins -= until - self.end
            if next(self.resolved(now).times(begins, until), None) is None:
                raise InputError(
                    f"{str(self).capitalize()} does not come before --end, so nothing "
                    "would ever run."
                )

    def resolved(
        self,
        now: datetime,
        grid: datetime | None = None,
        since: datetime | None = None,
    ) -> Timing:
        """Returns the same with the start that it has for who orders it now.

        Args:
            now: the time.
            grid: a time of the interval before, which this one keeps to; None = none.
            since: the last time that was started; what came later is made up for if
                the timing says so.
        """
        now = now.replace(microsecond=0)
        if self.start and (self.start > now or (self.catch_up and since is None)):
            return self
        if self.catch_up and since:
            return replace(self, start=since + self.ahead)
        if self.cron:
            return replace(self, start=None)
        # The newest time of the grid, so that a long interval does not begin anew.
        grid = self.start or grid or now
        newest = grid + (now - grid) // self.ahead * self.ahead
        return replace(self, start=newest + self.ahead)

    def times(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yields the times after a moment, until another one; a cron's as if in UTC."""
        begins = self.start - timedelta(seconds=1) if self.start else after
        if self.cron:
            yield from times_of(self.cron, max(after, begins), until)
        elif self.every and self.start:
            steps = max((after - self.start) // self.ahead + 1, 0)
            moment = self.start + steps * self.ahead
            while moment <= until:
                yield moment
                moment += self.ahead

    def ended(self, now: datetime) -> bool:
        """Whether its end has come; the API goes on to call it enabled."""
        return self.end is not None and self.end < now

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, of which a recurring run's digest is made."""
        return {
            "cron": self.cron,
            "every": self.every,
            "start": self.start.isoformat() if self.start else "",
            "end": self.end.isoformat() if self.end else "",
            "concurrency": self.concurrency,
            "catch_up": self.catch_up,
        }

    def trigger(self) -> Any:
        """Returns the API's form, a `V2beta1Trigger`; the timing is a resolved one."""
        import kfp_server_api as kfp

        start = self.start - self.ahead if self.start else None
        span = {"start_time": start, "end_time": self.end}
        if self.cron:
            return kfp.V2beta1Trigger(
                cron_schedule=kfp.V2beta1CronSchedule(cron=self.cron, **span)
            )
        # As text: so protobuf's JSON writes integers of 64 bits.
        interval = kfp.V2beta1PeriodicSchedule(interval_second=str(self.every), **span)
        return kfp.V2beta1Trigger(periodic_schedule=interval)

    def __str__(self) -> str:
        return f"cron '{self.cron}'" if self.cron else f"every {self.every} s"
