"""The times of a cron expression, found by trying every day: slow, and plainly right.

The rules are those of robfig/cron 1.2.0, which KFP 2.17.0 builds on (its go.mod): six
fields with seconds first, a field that holds a star anywhere (steps too) is starred;
where day or weekday is starred, both must fit, else either; and a search gives up
after the fifth year that follows the one it began in.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import cache
from itertools import product

_SPANS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_YEARS = 5


class NeverComesBack(Exception):
    """The controller would search for ever."""


def cron_times(expression: str, after: datetime) -> Iterator[datetime]:
    """Yields the times after a moment; the controller asks for one after another.

    Raises:
        NeverComesBack: there is none in the years that are searched.
    """
    fields = [
        _values(text, *span)
        for text, span in zip(expression.split(), _SPANS, strict=True)
    ]
    times = sorted(product(*(sorted(f) for f in fields[2::-1])))
    last, day = after, after.date()
    while day.year <= (last + timedelta(seconds=1)).year + _YEARS:
        if day_fits(expression, day):
            for hour, minute, second in times:
                moment = datetime(
                    *(day.year, day.month, day.day),
                    *(hour, minute, second),
                    tzinfo=after.tzinfo,
                )
                if moment > last:
                    yield moment
                    last = moment
        day += timedelta(days=1)
    raise NeverComesBack(expression)


def day_fits(expression: str, day: date) -> bool:
    """Says whether a day is one of an expression's."""
    days, months, weekdays = expression.split()[3:]
    if day.month not in _values(months, 1, 12):
        return False
    by_number = day.day in _values(days, 1, 31)
    by_name = (day.weekday() + 1) % 7 in _values(weekdays, 0, 6)
    if "*" in days + weekdays:
        return by_number and by_name
    return by_number or by_name


@cache
def _values(text: str, least: int, greatest: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        for value in range(least, greatest + 1):
            if span == "*":
                low, high = least, greatest
            else:
                low, high = int(span.split("-")[0]), int(span.split("-")[-1])
                high = greatest if slash and "-" not in span else high
            if low <= value <= high and (value - low) % int(step or 1) == 0:
                found.add(value)
    return frozenset(found)
