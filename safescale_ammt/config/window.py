"""Days of data: which of a folder's dated files a run works on.

    ""                        all of them
    2026-11-09/2026-11-16     from the first day, up to but without the second
    7d  (or 2w)               the newest seven days that the folder has
    7d/2026-11-16             the seven days before a day

Each run of a schedule brings a window of its own, and so sealed rows that no
earlier run has seen. "The newest days" counts back from the newest dated file
and not from a clock: the same files give the same window, at a retry after
midnight too, and two windows that share their end share no day.

A file's day is the one date in its name below the folder: `2026-11-16.csv`,
`dt=2026-11-16/part-0.parquet`, `2026/11/16/rows.csv`. Put a day's file there when
the day is whole: a window is read once, and what comes later is not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Self

from safescale_ammt.errors import ConfigError, DataError

_SPAN = re.compile(r"(?P<count>[1-9][0-9]{0,3})(?P<unit>[dw])")
_DAYS = {"d": 1, "w": 7}
# One separator throughout, and no digit around it: a part number is no date.
_DATE = re.compile(r"(?<!\d)(\d{4})([-/])(\d{2})\2(\d{2})(?!\d)")
_FORMS = "7d, 7d/2026-11-16 or 2026-11-09/2026-11-16"


@dataclass(frozen=True)
class Window:
    """Days as a config names them; `between` says which ones these are.

    Attributes:
        start: first day; None = counted back from the end, or all.
        end: the day after the last; None = after the newest file, or all.
        days: how many days are counted back; 0 = none are.
    """

    start: date | None = None
    end: date | None = None
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a window as people write it.

        Raises:
            ConfigError: this is none of the forms above.
        """
        if not text:
            return cls()
        first, slash, last = text.partition("/")
        span = _SPAN.fullmatch(first)
        end = _day(last)
        if span and (end or not slash):
            return cls(end=end, days=int(span["count"]) * _DAYS[span["unit"]])
        start = _day(first)
        if start and end and start < end:
            return cls(start, end)
        # KFP leaves "[[ScheduledTime]]" as it is where it expands no macros.
        if "[[" in text:
            raise ConfigError(
                f"data.window is {text!r}: this Kubeflow does not fill in what stands "
                f"in brackets; give {_FORMS}."
            )
        raise ConfigError(
            f"data.window is {text!r}, expected days such as {_FORMS}, the later day "
            "last, or nothing for all days."
        )

    def __bool__(self) -> bool:
        """Says whether the window leaves any day out: the empty one does not."""
        return self != Window()

    def __str__(self) -> str:
        """Spells it as `parse` reads it."""
        end = f"/{self.end}" if self.end else ""
        return f"{self.start or f'{self.days}d'}{end}" if self else ""

    def between(self, newest: date) -> tuple[date, date]:
        """Returns the first day and the day after the last.

        Args:
            newest: day of the newest file.
        """
        # From the newest file and not from a clock: a retry after midnight and a feed
        # that stands still have the same days (docs/decisions.md, 21).
        end = self.end or newest + timedelta(days=1)
        return self.start or end - timedelta(days=self.days), end


@dataclass(frozen=True)
class Days:
    """The days of a folder that a window comes to, for the dataset's record.

    Attributes:
        spelling: the window as the config has it.
        start, end: first day and the day after the last.
        files: names of the files in it, sorted.
        before, after: number of files outside it.
        gaps: days in it that no file has.
    """

    spelling: str
    start: date
    end: date
    files: tuple[str, ...]
    before: int
    after: int
    gaps: tuple[str, ...]

    @property
    def window(self) -> Window:
        """The same days, spelled out: new files do not move them."""
        return Window(self.start, self.end)

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form."""
        return {
            "asked": self.spelling,
            "start": str(self.start),
            "end": str(self.end),
            "files": len(self.files),
            "files_before": self.before,
            "files_after": self.after,
            "absent_days": list(self.gaps),
        }


def choose(window: Window, names: Iterable[str], origin: str) -> Days:
    """Chooses the files below the folder `origin` (its URI) by their day.

    The window is not the empty one.

    Raises:
        DataError: a file without one clear day, or no file in the window.
    """
    days = {name: day_of(name, origin) for name in sorted(names)}
    start, end = window.between(max(days.values()))
    inside = tuple(name for name, day in days.items() if start <= day < end)
    if not inside:
        raise DataError(
            f"{origin} has no rows from {start} up to {end} (data.window "
            f"{str(window)!r}): its files go from {min(days.values())} to "
            f"{max(days.values())}."
        )
    # Gaps are no error (shops close on Sundays): the record names them.
    every_day = (start + timedelta(days=i) for i in range((end - start).days))
    days_with_files = set(days.values())
    return Days(
        spelling=str(window),
        start=start,
        end=end,
        files=inside,
        before=sum(day < start for day in days.values()),
        after=sum(day >= end for day in days.values()),
        gaps=tuple(str(day) for day in every_day if day not in days_with_files),
    )


def has_date(text: str) -> bool:
    """Says whether a part of a file's name spells a day."""
    return bool(_DATE.search(text))


def day_of(name: str, origin: str) -> date:
    """Returns the day in a file's name.

    Raises:
        DataError: it names none, several, or one that does not exist.
    """
    # A set: a folder and a file that name the same day agree.
    dates = {"-".join(match.group(1, 3, 4)) for match in _DATE.finditer(name)}
    if len(dates) != 1:
        raise DataError(
            f"{name} in {origin} has {'several dates' if dates else 'no date'} in "
            "its name; with data.window every file has one, such as "
            "dt=2026-11-16/part-0.csv."
        )
    day = _day(dates.pop())
    if day is None:
        raise DataError(f"{name} in {origin} is named after no real day.")
    return day


def _day(text: str) -> date | None:
    """Reads YYYY-MM-DD; None if it is no day of the years 1900 to 2199."""
    # Another century is a typing error; and a span from the year 1 would list a
    # million days without a file.
    if not re.fullmatch(r"(19|20|21)\d\d-\d\d-\d\d", text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
