"""Counts: all that the development side may know of the sealed split.

`counts.json` holds, for every split, its rows, the rows of every group value and
of every group value x class. Cells under 10 of the sealed split are written as
`"<10"`, and cells from which these could be computed as `"hidden"` (`disclosure`):
they may be of any size.

    {"schema": 1, "classes": ["<=50K", ">50K"], "positive": ">50K",
     "splits": {"sealed": {"rows": 16281, "groups": {"sex": {"Female":
        {"rows": 5421, "labels": {"<=50K": 4831, ">50K": 590}}, ...}}}}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.count_bounds import Range, narrowed
from safescale_ammt.errors import InputError, one_of
from safescale_ammt.files.canonical import read_json

SCHEMAS = (1, 2)
CROSSED = " & "
"""Stands between the values that a cross' value is made of."""
LEAST_SHOWN = 10
"""Least count of the sealed split that is shown."""

IntArray = NDArray[np.int64]


class Withheld(StrEnum):
    """Why a count is not told. A text, so that no reader adds it up as a number."""

    SMALL = f"<{LEAST_SHOWN}"
    HIDDEN = "hidden"


def told_part(part: int, whole: int) -> int | str:
    """Returns a count of sealed rows as it may be told.

    A count under 10 is not, 0 neither, nor one whose complement is one.

    Args:
        part: the count.
        whole: rows of which it is a part.
    """
    if part < LEAST_SHOWN:
        return Withheld.SMALL.value
    if whole - part < LEAST_SHOWN:
        return f"all but {Withheld.SMALL.value}"
    return part


class GroupCount(NamedTuple):
    """Rows and positives of one group value; a withheld count as its least."""

    value: str
    rows: int
    positives: int


@dataclass(frozen=True)
class LabelCounts:
    """Counts of one group value: its rows, in all and per class.

    Attributes:
        rows: of the group value, whatever their class.
        labels: rows per class, in code order.
    """

    rows: int | Withheld
    labels: tuple[int | Withheld, ...]


@dataclass(frozen=True)
class SplitCounts:
    """Counts of one split.

    Attributes:
        rows: of the split; never hidden.
        groups: label counts by group name and group value.
    """

    rows: int
    groups: Mapping[str, Mapping[str, LabelCounts]]

    @cached_property
    def least(self) -> Mapping[str, IntArray]:
        """Least possible counts by group: values x classes, rows at the right."""
        tables: dict[str, Range] = {}
        for name, values in self.groups.items():
            lines: list[list[int | Withheld]] = [
                [*counts.labels, counts.rows] for counts in values.values()
            ]
            if lines:
                # Rows per class are told by no column: they come last, unknown.
                lines.append([Withheld.HIDDEN] * (len(lines[0]) - 1) + [self.rows])
                # What each says by itself; a hidden one only that it is a part of all.
                most = {Withheld.SMALL: LEAST_SHOWN - 1, Withheld.HIDDEN: self.rows}
                ranges = [
                    [(n, n) if isinstance(n, int) else (0, most[n]) for n in line]
                    for line in lines
                ]
                table = np.array(ranges, dtype=np.int64)
                tables[name] = (table[..., 0], table[..., 1])
        # Within what each says of itself: of counts of schema 1, "<10" may stand for
        # a larger one too, and then they do not add up.
        return {
            name: np.clip(low, *tables[name])[:-1]
            for name, (low, _) in narrowed(tables).items()
        }

    def withheld(self, kind: Withheld) -> dict[str, tuple[str, ...]]:
        """Returns, by group, the values with a count of this kind."""
        found = {
            name: tuple(v for v, c in values.items() if kind in (c.rows, *c.labels))
            for name, values in self.groups.items()
        }
        return {name: values for name, values in found.items() if values}


@dataclass(frozen=True)
class Counts:
    """Group x label counts of every split.

    Attributes:
        classes: class names in code order (binary: code 1 is the positive one).
        positive: the positive class, or "" if there is none (multi-class).
        splits: counts by split name, `sealed` among them.
    """

    classes: tuple[str, ...]
    positive: str
    splits: Mapping[str, SplitCounts]

    def group(self, split: str, name: str) -> list[GroupCount]:
        """Returns rows and positives per value of a group column.

        Positives are the rows of `positive`; without a positive class, of the
        class code 1. A withheld count reads as the least that it can be.

        Raises:
            InputError: no such split or group.
        """
        code = self.classes.index(self.positive) if self.positive else 1
        values, rows, labels = self.table(split, name)
        return [
            GroupCount(v, int(rows[i]), int(labels[i, code]))
            for i, v in enumerate(values)
        ]

    def table(
        self, split: str, name: str
    ) -> tuple[tuple[str, ...], IntArray, IntArray]:
        """Returns values, rows (g,) and rows per class (g, C) of a group column.

        A withheld count reads as the least that it can be; the classes of a group
        may then be fewer than its rows.

        Raises:
            InputError: no such split or group.
        """
        groups = self.split(split).groups
        if name not in groups:
            raise InputError(
                f"The counts of {split} have no group {name!r}, {one_of(groups, name)}."
            )
        values = groups[name]
        if not values:
            # Without a group value numpy cannot know the second axis.
            none = np.zeros((0, len(self.classes)), dtype=np.int64)
            return (), none.sum(axis=1), none
        least = self.split(split).least[name]
        return tuple(values), least[:, -1], least[:, :-1]

    def crossed(
        self, split: str, name: str, given: str
    ) -> tuple[tuple[str, ...], tuple[str, ...], IntArray, IntArray]:
        """Returns the values of two group columns, and the counts of their cross.

        Returns:
            Values (g,) and (s,), rows (g, s) and rows per class (g, s, C); see `table`.

        Raises:
            InputError: no such split or group, or no cross of both was declared.
        """
        values, strata = (self.table(split, column)[0] for column in (name, given))
        cross, places = self._cross(split, name, given)
        texts, rows, labels = self.table(split, cross)
        shape = len(values), len(strata)
        rows_of = np.zeros(shape, dtype=np.int64)
        labels_of = np.zeros((*shape, len(self.classes)), dtype=np.int64)
        for i, text in enumerate(texts):
            rows_of[places[text]], labels_of[places[text]] = rows[i], labels[i]
        return values, strata, rows_of, labels_of

    def cross(self, split: str, name: str, given: str) -> str:
        """Returns the name of the declared cross of two group columns.

        Raises:
            InputError: no such split or group, or no cross of both was declared.
        """
        return self._cross(split, name, given)[0]

    def _cross(
        self, split: str, name: str, given: str
    ) -> tuple[str, dict[str, tuple[int, int]]]:
        """Returns a cross by name, and what each of its values is of both columns."""
        values, strata = (self.table(split, column)[0] for column in (name, given))
        for turned in (False, True):
            texts = {
                CROSSED.join((s, v) if turned else (v, s)): (i, j)
                for i, v in enumerate(values)
                for j, s in enumerate(strata)
            }
            # Values that spell one text twice would be counted as one another.
            if len(texts) < len(values) * len(strata):
                continue
            for column, found in self.split(split).groups.items():
                if (
                    found
                    and column not in (name, given)
                    and found.keys() <= texts.keys()
                ):
                    return column, texts
        raise InputError(
            f"The counts of {split} have no cross of {name!r} and {given!r}; declare "
            f"one in data.crosses: {{{name}_{given}: [{name}, {given}]}}."
        )

    def total(self, split: str) -> int:
        """Returns the rows of a split."""
        return self.split(split).rows

    def split(self, name: str) -> SplitCounts:
        """Returns the counts of one split.

        Raises:
            InputError: no such split.
        """
        if name not in self.splits:
            raise InputError(
                f"The counts have no split {name!r}, {one_of(self.splits)}."
            )
        return self.splits[name]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form of `counts.json`."""
        return {
            # Schema 1 knows no hidden counts; where there are none it is still
            # written, so that a dataset which shows all keeps its identity.
            "schema": max(
                2 if split.withheld(Withheld.HIDDEN) else 1
                for split in self.splits.values()
            ),
            "classes": list(self.classes),
            "positive": self.positive,
            "splits": {
                name: {
                    "rows": split.rows,
                    "groups": {
                        group: {
                            value: {
                                "rows": counts.rows,
                                "labels": dict(
                                    zip(self.classes, counts.labels, strict=True)
                                ),
                            }
                            for value, counts in values.items()
                        }
                        for group, values in split.groups.items()
                    },
                }
                for name, split in self.splits.items()
            },
        }

    @classmethod
    def from_dict(cls, raw: Any) -> Counts:
        """Parses the JSON form.

        Raises:
            InputError: another schema, or not the form of `counts.json`.
        """
        try:
            if raw["schema"] not in SCHEMAS:
                raise InputError(
                    f"Counts have schema {raw['schema']!r}, this version reads "
                    f"{' and '.join(map(str, SCHEMAS))}."
                )
            classes = tuple(str(name) for name in raw["classes"])
            splits = {
                name: SplitCounts(
                    int(split["rows"]),
                    {
                        group: {
                            value: LabelCounts(
                                _count(entry["rows"]),
                                # JSON objects have no order: the classes give it.
                                tuple(_count(entry["labels"][c]) for c in classes),
                            )
                            for value, entry in values.items()
                        }
                        for group, values in split["groups"].items()
                    },
                )
                for name, split in raw["splits"].items()
            }
            positive = str(raw["positive"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The counts do not have the form of counts.json ({error!r})."
            ) from None
        if positive and positive not in classes:
            raise InputError(
                f"The counts name {positive!r} as positive, {one_of(classes)}."
            )
        return cls(classes, positive, splits)

    @classmethod
    def load(cls, path: Path | str) -> Counts:
        """Reads `counts.json`, or the one in a dataset folder.

        Raises:
            InputError: the file is missing or has another form.
        """
        path = Path(path)
        return cls.from_dict(read_json(path / "counts.json" if path.is_dir() else path))


def tally(
    label: NDArray[Any],
    groups: Mapping[str, tuple[Sequence[str], NDArray[Any]]],
    classes: int,
    *,
    masked: bool = False,
    weights: IntArray | None = None,
) -> SplitCounts:
    """Counts one split.

    Args:
        label: class codes (n,).
        groups: group name -> (its values, codes (n,) into them). Every value is
            listed, those without rows too.
        classes: number of classes.
        masked: hide counts under 10 (the sealed split).
        weights: rows (n,) that each entry stands for; None = one.
    """
    label = np.asarray(label, dtype=np.int64)
    rows = len(label) if weights is None else int(weights.sum())
    label_counts: dict[str, dict[str, LabelCounts]] = {}
    for name, (values, codes) in groups.items():
        # A cell is a group value x class; `minlength` lists those without rows too.
        cells = np.asarray(codes, dtype=np.int64) * classes + label
        sizes = np.bincount(cells, weights, minlength=len(values) * classes)
        label_counts[name] = {
            value: LabelCounts(
                _mask(int(row.sum()), masked),
                tuple(_mask(int(n), masked) for n in row),
            )
            for value, row in zip(values, sizes.reshape(-1, classes), strict=True)
        }
    return SplitCounts(rows, label_counts)


def _mask(n: int, masked: bool) -> int | Withheld:
    return Withheld.SMALL if masked and n < LEAST_SHOWN else n


def _count(raw: Any) -> int | Withheld:
    """Reads a count.

    Raises:
        ValueError: it is no whole number, or negative.
    """
    if isinstance(raw, str):
        return Withheld(raw)
    # KFP makes floats of whole numbers; and True is an int to Python.
    if isinstance(raw, bool) or not isinstance(raw, int | float) or raw != int(raw):
        raise ValueError(f"{raw!r} is not a count")
    if raw < 0:
        raise ValueError(f"{raw!r} is negative")
    return int(raw)
