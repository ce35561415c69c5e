"""Table threats: which cells of a row an attacker may change, and into what.

threat:
  changes: 2                                     at most so many columns of a row
  columns:
    age: {by: 2, step: 1, range: [17, 90]}       -2, -1, +1 or +2, inside the range
    capital_gain: {share: 0.1, step: 0.05}       -10, -5, +5 or +10 % of its own value
    education: [Bachelors, Masters]              one of these
    workclass: any                               any value that the model knows
  sensitive: [sex]                               those that the data declare sensitive

Every other column is immutable, and a cell that is missing stays missing. Relations
such as "never negative" are ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safescale_ammt.constitution.entries import number, section, whole
from safescale_ammt.constitution.threats import read_range
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.files.canonical import digest_json
from safescale_ammt.printable import unseen_in

ANY = "any"
"""Stands for each value that the model knows of a column."""
ENUMERATED = 2
"""Changes up to which each permitted row is tried."""
MOST_STEPS = 10_000
"""Most steps of a number to either side."""


@dataclass(frozen=True)
class NumberChange:
    """How far a number may move.

    Attributes:
        by: at most so far, to either side; a share of the row's own value if `share`.
        step: apart from each other; the moves are whole multiples of it.
        share: whether both are shares of the row's own value.
        range: least and greatest value that a moved number can have, if declared.
    """

    by: float
    step: float
    share: bool = False
    range: tuple[float, float] | None = None

    @property
    def steps(self) -> int:
        """Moves to either side."""
        # A tenth of .3 is not a whole number of times .1 in binary.
        return int(self.by / self.step * (1 + 1e-9))

    @property
    def name(self) -> str:
        """The change in words, such as `±2 by 1 in [17, 90]`."""
        unit = " of itself" if self.share else ""
        inside = f" in [{self.range[0]:g}, {self.range[1]:g}]" if self.range else ""
        return f"±{self.by:g}{unit} by {self.step:g}{inside}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the mapping form, a range that is not declared left out."""
        found = {"share" if self.share else "by": self.by, "step": self.step}
        return found | ({"range": list(self.range)} if self.range else {})


@dataclass(frozen=True)
class ValueChange:
    """Which values a category may take: named ones, or any that the model knows.

    Attributes:
        values: sorted; () = any.
    """

    values: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The change in words, such as `to Bachelors or Masters`."""
        return f"to {' or '.join(self.values)}" if self.values else "to any value"

    def to_dict(self) -> list[str] | str:
        """Returns the form of a file."""
        return list(self.values) or ANY


Change = NumberChange | ValueChange


@dataclass(frozen=True)
class TableThreat:
    """What may be changed in a row of a table.

    Attributes:
        changes: columns of one row that may be changed at once.
        columns: name and change of each column that may be, sorted by name.
        sensitive: those of them that the data declare sensitive.
    """

    changes: int
    columns: tuple[tuple[str, Change], ...]
    sensitive: tuple[str, ...] = ()

    @property
    def enumerated(self) -> bool:
        """Whether each permitted row is tried, so that survivors are exact."""
        return self.changes <= ENUMERATED

    @property
    def name(self) -> str:
        """The threat in words, such as `1 change of age ±2 by 1`."""
        each = ", ".join(f"{name} {change.name}" for name, change in self.columns)
        return f"{self.changes} change{'s' * (self.changes > 1)} of {each}"

    @property
    def key(self) -> str:
        """By which evidence names it: the same changes have the same one."""
        return digest_json(self.to_dict()).removeprefix("sha256:")[:16]

    def to_dict(self) -> dict[str, Any]:
        """Returns the mapping form, with no sensitive columns where there are none."""
        columns = {name: change.to_dict() for name, change in self.columns}
        found = {"changes": self.changes, "columns": columns}
        return found | ({"sensitive": list(self.sensitive)} if self.sensitive else {})


def read_table_threat(raw: Any, where: str) -> TableThreat:
    """Parses the mapping form.

    Raises:
        ConstitutionError: an unknown key, a change that changes nothing, or more
            changes than columns.
    """
    entry = section(raw, where, ("changes", "columns", "sensitive"))
    columns = entry.get("columns")
    if not isinstance(columns, Mapping) or not columns:
        raise ConstitutionError(
            f"{where}.columns names no column that may be changed, so that nothing is "
            "withstood; name one at least, as {age: {by: 2, step: 1}}."
        )
    for name in columns:
        if not isinstance(name, str) or not name.strip() or unseen_in(name):
            raise ConstitutionError(f"{where}.columns has {name!r}, no column's name.")
    changes = whole(entry, "changes", where, 1, 1)
    if changes > len(columns):
        raise ConstitutionError(
            f"{where}.changes is {changes}, but {len(columns)} of the columns may be "
            f"changed; say at most {len(columns)}, or name more columns."
        )
    sensitive = entry.get("sensitive", [])
    if not isinstance(sensitive, list | tuple) or set(map(repr, sensitive)) - set(
        map(repr, columns)
    ):
        raise ConstitutionError(
            f"{where}.sensitive is {sensitive!r}; it lists those of the columns that "
            "may be changed although the data declare them sensitive."
        )
    found = [
        (name, read_change(change, f"{where}.columns.{name}"))
        for name, change in sorted(columns.items())
    ]
    return TableThreat(changes, tuple(found), tuple(sorted(set(sensitive))))


def read_change(raw: Any, where: str) -> Change:
    """Parses what one column may become.

    Raises:
        ConstitutionError: it is neither a number's change nor a category's.
    """
    if raw == ANY:
        return ValueChange()
    if isinstance(raw, list | tuple):
        # Codes of a category are often whole numbers to YAML, and text to the schema.
        whole_or_text = all(
            isinstance(v, str | int) and not isinstance(v, bool) for v in raw
        )
        values = sorted({str(v) for v in raw})
        if not values or not whole_or_text or any(map(unseen_in, values)):
            raise ConstitutionError(
                f"{where} is {raw!r}; a category may become one of a list of texts, or "
                f"{ANY}."
            )
        return ValueChange(tuple(values))
    if not isinstance(raw, Mapping):
        raise ConstitutionError(
            f"{where} is {raw!r}; a number may move, as {{by: 2, step: 1}}, and a "
            f"category become one of a list of texts, or {ANY}."
        )
    entry = section(raw, where, ("by", "share", "step", "range"))
    if ("by" in entry) == ("share" in entry):
        raise ConstitutionError(
            f"{where} must say either by, the furthest move in the column's units, or "
            "share, the furthest move as a share of the row's own value."
        )
    share = "share" in entry
    by, step = (
        number(entry, "share" if share else "by", where),
        number(entry, "step", where),
    )
    if step is None or step <= 0 or by is None or by < step:
        raise ConstitutionError(
            f"{where} moves by nothing: {'share' if share else 'by'} is {by} and step "
            f"is {step}; say a step > 0, and at least one of it."
        )
    change = NumberChange(
        by, step, share, read_range(entry.get("range"), f"{where}.range")
    )
    if change.steps > MOST_STEPS:
        raise ConstitutionError(
            f"{where} moves by {change.steps:,} steps to either side, at most "
            f"{MOST_STEPS:,} are tried; make step larger."
        )
    return change
