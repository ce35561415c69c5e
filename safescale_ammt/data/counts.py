"""Counts: all that the development side may know of the sealed split.

`counts.json` holds, for every split, its rows, the rows of every group value and
of every group value x class. Cells under 10 of the sealed split are written as
`"<10"`, and so are cells from which these could be computed (`disclosure`).

    {"schema": 1, "classes": ["<=50K", ">50K"], "positive": ">50K",
     "splits": {"sealed": {"rows": 16281, "groups": {"sex": {"Female":
        {"rows": 5421, "labels": {"<=50K": 4831, ">50K": 590}}, ...}}}}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.errors import InputError, one_of
from safescale_ammt.files.canonical import read_json

SCHEMA_VERSION = 1
LEAST_SHOWN = 10
"""Least count of the sealed split that is shown."""
# A text and no number, so that no reader adds it up as one.
HIDDEN = f"<{LEAST_SHOWN}"

IntArray = NDArray[np.int64]


class GroupCount(NamedTuple):
    """Rows and positives of one group value; hidden counts read as 9."""

    value: str
    rows: int
    positives: int


@dataclass(frozen=True)
class LabelCounts:
    """Counts of one group value: its rows, in all and per class; None is hidden.

    Attributes:
        rows: of the group value, whatever their class.
        labels: rows per class, in code order.
    """

    rows: int | None
    labels: tuple[int | None, ...]


@dataclass(frozen=True)
class SplitCounts:
    """Counts of one split.

    Attributes:
        rows: of the split; never hidden.
        groups: label counts by group name and group value.
    """

    rows: int
    groups: Mapping[str, Mapping[str, LabelCounts]]


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
        class code 1. A hidden count reads as 9.

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

        Raises:
            InputError: no such split or group.
        """
        groups = self.split(split).groups
        if name not in groups:
            raise InputError(
                f"The counts of {split} have no group {name!r}, {one_of(groups)}."
            )
        values = groups[name]
        rows = np.array([_readable(c.rows) for c in values.values()], dtype=np.int64)
        # Without a group value numpy cannot know the second axis.
        labels = np.array(
            [[_readable(n) for n in c.labels] for c in values.values()], dtype=np.int64
        ).reshape(len(values), len(self.classes))
        return tuple(values), rows, labels

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
            "schema": SCHEMA_VERSION,
            "classes": list(self.classes),
            "positive": self.positive,
            "splits": {
                name: {
                    "rows": split.rows,
                    "groups": {
                        group: {
                            value: {
                                "rows": _spelled(counts.rows),
                                "labels": {
                                    label: _spelled(n)
                                    for label, n in zip(
                                        self.classes, counts.labels, strict=True
                                    )
                                },
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
            if raw["schema"] != SCHEMA_VERSION:
                raise InputError(
                    f"Counts have schema {raw['schema']!r}, this version reads "
                    f"schema {SCHEMA_VERSION}."
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
) -> SplitCounts:
    """Counts one split.

    Args:
        label: class codes (n,).
        groups: group name -> (its values, codes (n,) into them). Every value is
            listed, those without rows too.
        classes: number of classes.
        masked: hide counts under 10 (the sealed split).
    """
    label = np.asarray(label, dtype=np.int64)
    label_counts: dict[str, dict[str, LabelCounts]] = {}
    for name, (values, codes) in groups.items():
        # A cell is a group value x class; `minlength` lists those without rows too.
        cells = np.asarray(codes, dtype=np.int64) * classes + label
        table = np.bincount(cells, minlength=len(values) * classes)
        table = table.reshape(len(values), classes)
        label_counts[name] = {
            value: LabelCounts(
                _mask(int(row.sum()), masked),
                tuple(_mask(int(n), masked) for n in row),
            )
            for value, row in zip(values, table, strict=True)
        }
    return SplitCounts(len(label), label_counts)


def _mask(n: int, masked: bool) -> int | None:
    return None if masked and n < LEAST_SHOWN else n


def _readable(n: int | None) -> int:
    # Every sensible `min_n` and `min_pos` calls 9 too small, which errs towards
    # "undecided"; a count that is hidden for a neighbour's sake may be larger.
    return LEAST_SHOWN - 1 if n is None else n


def _spelled(n: int | None) -> int | str:
    return HIDDEN if n is None else n


def _count(raw: Any) -> int | None:
    """Reads a count.

    Raises:
        ValueError: it is no whole number, or negative.
    """
    if raw == HIDDEN:
        return None
    # KFP makes floats of whole numbers; and True is an int to Python.
    if isinstance(raw, bool) or not isinstance(raw, int | float) or raw != int(raw):
        raise ValueError(f"{raw!r} is not a count")
    if raw < 0:
        raise ValueError(f"{raw!r} is negative")
    return int(raw)
