"""When a schedule fires."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from safescale_ammt.errors import InputError


@dataclass(frozen=True)
class Timing:
    """When a schedule fires.

    Attributes:
        cron: six fields, as `cron.six_fields` gives them; "" = by interval.
        every: seconds between two runs; 0 = by cron.
        start, end: nothing fires before or after.
        concurrency: runs at the same time, 1 to 10.
        catch_up: whether missed times are made up for, one run each.
    """

    cron: str = ""
    every: int = 0
    start: datetime | None = None
    end: datetime | None = None
    concurrency: int = 1
    catch_up: bool = False

    def __post_init__(self) -> None:
        """Checks that exactly one kind of time is given, and a span that exists."""
        if bool(self.cron) == bool(self.every):
            raise InputError("A schedule needs either --cron or --every.")
        if self.start and self.end and self.start >= self.end:
            raise InputError("--start comes after --end, so nothing would ever run.")
        if self.end and self.end <= datetime.now(UTC):
            raise InputError("--end is in the past, so nothing would ever run.")

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
        """Returns the API's form, a `V2beta1Trigger`."""
        import kfp_server_api as kfp

        span = {"start_time": self.start, "end_time": self.end}
        if self.cron:
            return kfp.V2beta1Trigger(
                cron_schedule=kfp.V2beta1CronSchedule(cron=self.cron, **span)
            )
        # As text: so protobuf's JSON writes integers of 64 bits.
        interval = kfp.V2beta1PeriodicSchedule(interval_second=str(self.every), **span)
        return kfp.V2beta1Trigger(periodic_schedule=interval)

    def __str__(self) -> str:
        return f"cron '{self.cron}'" if self.cron else f"every {self.every} s"
