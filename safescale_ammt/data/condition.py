"""The form of a condition on one raw column, and its plain words.

    workclass = Private        a frequent text
    age above 45 up to 60      consecutive bins of a number or date
    occupation is missing      rows without a value

Which rows it holds in `data.conditions` says: who reads a verdict needs no table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from safescale_ammt.printable import printable

_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Condition:
    """What a row's value of one column is asked.

    Attributes:
        column: name of the raw column.
        value: the text that it equals; None: a range, or no value at all.
        above: the number that it exceeds; None: no lower end.
        up_to: the number that it does not exceed; None: no upper end.
        date: whether the ends are microseconds since 1970, in UTC.
    """

    column: str
    value: str | None = None
    above: float | None = None
    up_to: float | None = None
    date: bool = False

    @property
    def words(self) -> str:
        """The condition as people read it; what a file holds of it shows as text."""
        name = printable(self.column)
        if self.value is not None:
            return f"{name} = {printable(self.value)}"
        if self.above is None and self.up_to is None:
            return f"{name} is missing"
        low = "" if self.above is None else f" above {self._end(self.above)}"
        high = "" if self.up_to is None else f" up to {self._end(self.up_to)}"
        return f"{name}{low}{high}"

    def _end(self, at: float) -> str:
        if not self.date:
            return f"{at:.6g}"
        when = _START + timedelta(microseconds=at)
        return (
            f"{when:%Y-%m-%d}" if not at % 86_400_000_000 else f"{when:%Y-%m-%d %H:%M}"
        )
