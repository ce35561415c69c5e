"""The sampling model: what the judged rows are independent draws of.

Every test of the gate counts independent draws. They are rows; distinct records, where
the config says that equal rows are copies of one; or entities, of each of which one row
drawn at random is judged. A guarantee speaks of the law of these draws and of no other:
for entities it is that of a random row of a random entity, in which a person with fifty
rows weighs as much as one with a single row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from safescale_ammt.data.schema import ENTITIES, RECORDS, ROWS
from safescale_ammt.errors import InputError, one_of

UNITS = (ROWS, RECORDS, ENTITIES)


@dataclass(frozen=True)
class SamplingModel:
    """What a verdict's rows are draws of, and how many draws there are.

    Attributes:
        unit: one of `UNITS`.
        rows: rows of the split before one of each entity was drawn.
        units: independent draws judged: the effective sample size.
        distinct: distinct raw rows among them.
    """

    unit: str
    rows: int
    units: int
    distinct: int

    def __post_init__(self) -> None:
        """Checks that the counts can be those of such a sample.

        Raises:
            InputError: they cannot.
        """
        if self.unit not in UNITS:
            raise InputError(f"No sampling unit is {self.unit!r}, {one_of(UNITS)}.")
        if not 0 < self.distinct <= self.units <= self.rows:
            raise InputError(
                f"{self.rows} rows cannot hold {self.units} independent draws, "
                f"{self.distinct} of them distinct."
            )
        # Equal rows may be people where rows are drawn, and nowhere else.
        if self.unit != ROWS and self.distinct < self.units:
            raise InputError(
                f"{self.units - self.distinct} of {self.units} judged rows repeat "
                f"another, but they should be {self.unit}; prepare the data again."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


def units_in_words(unit: str, number: int) -> str:
    """Writes a number of independent draws, such as `5,421 rows`."""
    one_each = ", one row of each" if unit == ENTITIES else ""
    return f"{number:,} {unit}{one_each}"
