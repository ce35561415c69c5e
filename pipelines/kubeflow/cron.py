"""Cron expressions: from the five fields that people write to KFP's six.

KFP's server reads `second minute hour day month weekday` (robfig/cron) and takes
five fields for the first five of these: `0 3 * * 1`, Monday at three for every
crontab, would be the third minute of each hour in January. So five fields get a
second in front, Sunday is 0 and never 7, and what cannot be meant is refused
here, where a step of 0 would hang the server's parser.

What the server's controller does with it is robfig/cron 1.2.0 (go.mod of
kubeflow/pipelines 2.17.0): a day or weekday that holds a star, steps too, is a second
condition, and only where neither does one of the two suffice. A search ends after five
years with a time of the year 1, from which the controller (2.17.0,
crd/controller/scheduledworkflow/util/cron_schedule.go) searches on and never returns.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from safescale_ammt.errors import InputError, one_of

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
_DAYS = "sun mon tue wed thu fri sat".split()  # noqa: SIM905
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PART = re.compile(r"(\*|\?|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/(\d+))?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SHORTEST = 60  # seconds; a cron expression comes once a minute at most, too
_LONGEST = 366 * 86400  # seconds
_SEARCHED = 5  # years, by the controller, after the one that it begins in
# Years that are looked at here. The calendar repeats itself after 28, leap days and
# weekdays together, until the year 2100.
_HORIZON = 40


@dataclass(frozen=True)
class Field:
    """One field of an expression.

    Attributes:
        name: for sentences.
        low, high: the numbers that it takes.
        names: words for them, beginning with `low`.
    """

    name: str
    low: int
    high: int
    names: Sequence[str] = ()

    def normal(self, text: str) -> str:
        """Returns the field as the server reads it.

        Raises:
            InputError: it means nothing.
        """
        parts: list[str] = []
        for part in text.lower().split(","):
            match = _PART.fullmatch(part)
            if not match:
                expected = "*, a value, a-b or a step such as */2 is expected"
                raise self._error(part, expected)
            first, last, step = match.groups()
            if first in "*?" and last:
                raise self._error(part, "* takes no range")
            if step is not None and not 1 <= int(step) <= self.high:
                raise self._error(part, f"a step is 1 to {self.high}")
            tail = f"/{int(step)}" if step is not None else ""
            if first in "*?":
                parts.append(f"*{tail}")
                continue
            start = self._value(first, part)
            end = start if last is None else self._value(last, part)
            if start > end:
                raise self._error(part, f"{first} comes after {last}")
            if last is None:
                parts.append(f"{start % 7 if self.weekday else start}{tail}")
            elif not self.weekday or end < 7:
                parts.append(f"{start}-{end}{tail}")
            else:
                # The server takes 0 to 6: a range that ends on the Sunday called 7 is
                # spelled out.
                days = range(start, end + 1, int(step or 1))
                parts += [str(day % 7) for day in days]
        # Without doubles, so that two ways to write a schedule have one digest.
        return ",".join(dict.fromkeys(parts))

    def numbers(self, text: str) -> set[int]:
        """Returns the numbers that a normal field stands for."""
        numbers: set[int] = set()
        for part in text.split(","):
            span, _, step = part.partition("/")
            low, _, high = span.partition("-")
            first = self.low if low == "*" else int(low)
            # robfig/cron reads a/n as a-high/n, where crontabs differ.
            end = first if low != "*" and not step else self.high
            last = int(high) if high else end
            numbers |= set(range(first, last + 1, int(step or 1)))
        return numbers

    @property
    def weekday(self) -> bool:
        """Whether 7 is another word for 0."""
        return self.high == 6

    def _value(self, text: str, part: str) -> int:
        if text in self.names:
            return self.low + self.names.index(text)
        high = 7 if self.weekday else self.high
        if not text.isdigit() or not self.low <= int(text) <= high:
            words = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
            raise self._error(part, f"{self.low} to {high}{words} is expected")
        return int(text)

    def _error(self, part: str, expected: str) -> InputError:
        return InputError(
            f"{part!r} is no {self.name} of a cron expression: {expected}."
        )


_FIELDS = (
    Field("second", 0, 59),
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, _MONTHS),
    Field("day of the week", 0, 6, _DAYS),
)


def six_fields(text: str) -> str:
    """Returns an expression as KFP's server reads it: "0 3 * * mon" as "0 0 3 * * 1".

    Args:
        text: five fields, six with seconds first, or a word such as @daily.

    Raises:
        InputError: it means nothing, or a day that never comes.
    """
    fields = _NAMED.get(text.strip().lower(), text).split()
    if text.strip().startswith("@") and len(fields) != 5:
        raise InputError(
            f"Cron word {text.strip()!r} is unknown; {one_of(_NAMED, text.strip())}, "
            "or --every 7d for a fixed interval."
        )
    if len(fields) not in (5, 6):
        raise InputError(
            f"Cron expression {text!r} has {len(fields)} fields; five (minute hour day "
            "month weekday) or six (seconds first) are expected."
        )
    fields = ["0", *fields][-6:]  # at second 0, unless the first of six says another
    normal = [f.normal(part) for f, part in zip(_FIELDS, fields, strict=True)]
    # A list, a range or * here would start several runs in one minute.
    if not normal[0].isdigit():
        raise InputError(
            f"Cron expression {text!r} comes more than once a minute: one second is "
            "expected in its first field."
        )
    expression = " ".join(normal)
    refuse_rare(expression, text, datetime.now(UTC).date())
    return expression


def refuse_rare(expression: str, text: str, today: date) -> None:
    """Refuses six normal fields at which the controller would search for ever.

    Args:
        expression: the fields.
        text: as somebody wrote them, for the sentence.
        today: where the search begins.

    Raises:
        InputError: they come on no day of five years, now or after one that they have.
    """
    last = today
    for day in days_of(expression, today, today.year + _HORIZON):
        if day.year > last.year + _SEARCHED:
            break
        last = day
    if last.year >= today.year + _HORIZON - _SEARCHED:
        return
    rarely = "never comes: no day of the next five years fits"
    if last > today:
        rarely = f"comes too seldom: after {last} not for more than five years"
    days, _, weekdays = expression.split()[3:]
    if "*/" in days + weekdays:
        rarely += " (beside a step after * both day and weekday must fit)"
    raise InputError(
        f"Cron expression {text!r} {rarely}, and Kubeflow's controller would search "
        "for ever."
    )


def days_of(expression: str, first: date, year: int) -> Iterator[date]:
    """Yields the days of six normal fields, from one on to the end of a year."""
    days, months, weekdays = expression.split()[3:]
    by_number, by_name = _FIELDS[3].numbers(days), _FIELDS[5].numbers(weekdays)
    # Crontabs ask for a star that stands alone: here `*/2` makes both count, too.
    fits = all if "*" in days or "*" in weekdays else any
    for month in range(first.year * 12 + first.month - 1, year * 12 + 12):
        year_of, month_of = month // 12, month % 12 + 1
        if month_of not in _FIELDS[4].numbers(months):
            continue
        for number in range(1, monthrange(year_of, month_of)[1] + 1):
            day = date(year_of, month_of, number)
            found = (number in by_number, day.isoweekday() % 7 in by_name)
            if day >= first and fits(found):
                yield day


def times_of(expression: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yields the times of six normal fields after a moment, until another one.

    Both have a zone, which is that of the expression too.
    """
    second, minutes, hours = expression.split()[:3]
    moments = [
        (hour, minute, int(second))
        for hour in sorted(_FIELDS[2].numbers(hours))
        for minute in sorted(_FIELDS[1].numbers(minutes))
    ]
    for day in days_of(expression, after.date(), until.year):
        if day > until.date():
            return
        for hour, minute, of_minute in moments:
            moment = datetime(
                *(day.year, day.month, day.day, hour, minute, of_minute),
                tzinfo=after.tzinfo,
            )
            if after < moment <= until:
                yield moment


def seconds(text: str) -> int:
    """Returns an interval such as 90m, 12h, 7d or 2w in seconds.

    Raises:
        InputError: it is none, shorter than a minute or longer than a year.
    """
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip().lower())
    if not match:
        raise InputError(
            f"--every {text!r} is no interval: a number with s, m, h, d or w is "
            "expected, such as 12h or 7d."
        )
    length = int(match[1]) * _UNITS[match[2]]
    if length < _SHORTEST:
        raise InputError(f"--every {text} is too short: at least {_SHORTEST}s.")
    if length > _LONGEST:
        # The server counts nanoseconds in 63 bits.
        raise InputError(f"--every {text} is too long: at most 366d.")
    return length
