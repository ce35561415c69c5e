"""Texts that are days or instants: `31/12/2020`, `Dec 31, 2020 1:45 PM`, ISO 8601.

An order of day, month and year is learnt from all distinct development texts of a
column, and only where no other order reads one of them as another day. Years of two
digits are read where the config declares the order: 69 to 99 are of the last century,
as POSIX has it. Names of months are English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, takewhile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.reading.spelling import instant

ORDERS = {"ymd": "year first", "dmy": "day first", "mdy": "month first"}
"""Orders of a date's parts, and their names for sentences."""
_FIRST_SHORT = 69
_MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
_CLOCK = (
    r"(?:(?:[T ]|, )(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d+))?)? ?([AaPp]\.?[Mm]\.?)?"
    r" ?(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?"
)
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?"
_NAME = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|"
    r"aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_FLAGS = re.ASCII | re.IGNORECASE
_NUMBERS = re.compile(rf"(\d{{1,4}})([-/.])(\d{{1,2}})\2(\d{{1,4}}){_CLOCK}", _FLAGS)
_DAY_NAME = re.compile(
    rf"{_WEEKDAY}(\d{{1,4}})(?:st|nd|rd|th|\.)?[- /]({_NAME})\.?[- /,]+"
    rf"(\d{{1,4}}){_CLOCK}",
    _FLAGS,
)
_NAME_DAY = re.compile(
    rf"{_WEEKDAY}({_NAME})\.?[- /](\d{{1,2}})(?:st|nd|rd|th)?,? ?[- /]?"
    rf"(\d{{4}}){_CLOCK}",
    _FLAGS,
)
_ISO = r"\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d(?:\.\d+)?)?"
_COMPACT = re.compile(rf"(\d{{4}})(\d\d)(\d\d){_CLOCK}", _FLAGS)
# A column that is no date shows it soon.
_FIRST_LOOK = 20


def instants(texts: pa.StringArray) -> pa.TimestampArray:
    """Returns canonical times as microseconds, a Z left out; null stays null.

    Raises:
        pa.ArrowInvalid: a text is no time.
    """
    plain = pc.replace_substring_regex(texts, r"Z$", "")
    plain = pc.replace_substring_regex(plain, r"(\.\d{6})\d+$", r"\1")
    return pc.cast(plain, pa.timestamp("us"))


@dataclass(frozen=True)
class DateForm:
    """How the dates of a column are written.

    Attributes:
        order: of the parts, `ymd`, `dmy` or `mdy`.
        zoned: whether they name a zone, and so are instants.
        short: whether their years may have two digits.
    """

    order: str = "ymd"
    zoned: bool = False
    short: bool = False

    @property
    def is_iso(self) -> bool:
        """Says whether programs write dates so: no schema has to remember it."""
        return self.order == "ymd" and not self.short

    def parse(self, texts: pa.StringArray) -> pa.StringArray:
        """Spells texts as ISO 8601; null where they have another form."""
        # Most columns of dates are spelled so already, and Arrow sees it a column at a
        # time; it also knows whether each of these days exists.
        zone = "Z" if self.zoned else ""
        done = pc.match_substring_regex(texts, f"^(?:{_ISO}{zone})$")
        try:
            instants(texts.filter(done))
        except pa.ArrowInvalid:
            done = pa.array(np.zeros(len(texts), bool))
        rest = map(self.day, texts.filter(pc.invert(done)).to_pylist())
        return pc.replace_with_mask(
            texts, pc.invert(done), pa.array(list(rest), pa.string())
        )

    def day(self, text: str) -> str | None:
        """Spells one text as ISO 8601 in UTC, or None if it has another form."""
        numbers = _NUMBERS.fullmatch(text)
        if numbers:
            first, _, second, third, *clock = numbers.groups()
            # Four digits in front are a year in any order: programs write it so.
            order = "ymd" if len(first) > 2 else self.order
            parts = dict(zip(order, (first, second, third), strict=True))
        elif named := _DAY_NAME.fullmatch(text):
            first, month, third, *clock = named.groups()
            order = "ymd" if len(first) > 2 or self.order == "ymd" else "dmy"
            parts = dict(zip(order, (first, month, third), strict=True))
        elif named := _NAME_DAY.fullmatch(text):
            month, first, third, *clock = named.groups()
            parts = {"m": month, "d": first, "y": third}
        elif compact := _COMPACT.fullmatch(text):
            first, second, third, *clock = compact.groups()
            parts = {"y": first, "m": second, "d": third}
        else:
            return None
        if parts["m"].isalpha():
            parts["m"] = str(_MONTHS.index(parts["m"][:3].lower()) // 3 + 1)
        return self.iso(parts, clock)

    def iso(self, parts: Mapping[str, str], clock: Sequence[str | None]) -> str | None:
        """Joins the parts of one text in ISO 8601, or says that it has another form.

        Args:
            parts: digits of the year `y`, month `m` and day `d`.
            clock: hours, minutes, seconds, fraction, AM or PM, zone; None = none.
        """
        year, (hours, minutes, seconds, fraction, half, zone) = parts["y"], clock
        if len(year) == 2 and self.short:
            year = f"{'19' if int(year) >= _FIRST_SHORT else '20'}{year}"
        if len(year) != 4 or bool(zone) != self.zoned:
            return None
        hour = int(hours or 0)
        if half:
            # 12 AM is midnight, and 13 PM is nothing.
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + (12 if half[0] in "pP" else 0)
        text = f"{year}-{int(parts['m']):02}-{int(parts['d']):02}"
        if hours:
            text += f" {hour:02}:{minutes}:{seconds or '00'}.{fraction or '0'}"
        if zone:
            text += "Z" if zone.upper() in ("Z", "UTC", "GMT") else zone
        return instant(text)

    def __str__(self) -> str:
        """Says what was assumed, for a sentence."""
        short = (
            f", 00 to {_FIRST_SHORT - 1} being of this century" if self.short else ""
        )
        return f"dates, {ORDERS[self.order]}{short}{', in UTC' if self.zoned else ''}"


def date_form(texts: Iterable[str], declared: str = "") -> DateForm | str | None:
    """Finds the one form in which all distinct texts of a column are dates.

    Args:
        texts: distinct, without missing ones.
        declared: the order if the config says it.

    Returns:
        The form; or why it is not certain, as the end of a sentence; None if some text
        is no date.
    """
    every = list(texts)
    orders = [declared] if declared else list(ORDERS)
    for short in (False, True):
        # Short years are for texts that no form with long ones reads.
        forms = product(orders, (False, True), (short,))
        read: dict[DateForm, list[str | None]] = {DateForm(*f): [] for f in forms}
        for some in (every[:_FIRST_LOOK], every):
            # The first text that an order cannot read ends it.
            days = {form: list(takewhile(bool, map(form.day, some))) for form in read}
            read = {form: d for form, d in days.items() if 0 < len(d) == len(some)}
        if read:
            break
    first = next(iter(read), None)
    if first is None or (first.short and not declared):
        return "its years have two digits" if read else None
    if all(days == read[first] for days in read.values()):
        return first
    return "day and month may stand in either order"


def date_share(texts: pa.StringArray) -> pa.BooleanArray:
    """Says which texts are dates in some form; of the first few, most have to be."""
    forms = [DateForm(*f) for f in product(ORDERS, (False, True), (False, True))]
    likely: list[bool] = []
    for some in (texts[:_FIRST_LOOK], texts[_FIRST_LOOK:]):
        likely += [any(form.day(text) for form in forms) for text in some.to_pylist()]
        if 2 * sum(likely) <= len(likely):
            break
    return pa.array([*likely, *[False] * (len(texts) - len(likely))], pa.bool_())
