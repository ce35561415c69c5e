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
HIDDEN = f"<{LEAST_SHOWN}"

IntArray = NDArray[np.int64]


class GroupCount(NamedTuple):
    """Rows and positives of one group value; hidden cells read as 9."""

    value: str
    rows: int
    positives: int


@dataclass(frozen=True)
class LabelCounts:
    """Rows of one group value, in all and per class code; None is hidden."""

    rows: int | None
    labels: tuple[int | None, ...]


@dataclass(frozen=True)
class SplitCounts:
    """Rows of one split, and its cells by group name and group value."""

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
        class code 1. A hidden cell reads as 9, which every sensible `min_n` and
        `min_pos` calls too small; one hidden for a neighbour's sake may hold more.

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
        cells = groups[name]
        rows = np.array([_shown(c.rows) for c in cells.values()], dtype=np.int64)
        labels = np.array(
            [[_shown(n) for n in c.labels] for c in cells.values()], dtype=np.int64
        ).reshape(len(cells), len(self.classes))
        return tuple(cells), rows, labels

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
                        group: {v: self._cell_dict(c) for v, c in cells.items()}
                        for group, cells in split.groups.items()
                    },
                }
                for name, split in self.splits.items()
            },
        }

    def _cell_dict(self, cell: LabelCounts) -> dict[str, Any]:
        labels = zip(self.classes, cell.labels, strict=True)
        return {
            "rows": HIDDEN if cell.rows is None else cell.rows,
            "labels": {name: HIDDEN if n is None else n for name, n in labels},
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
                        group: {v: _cell(c, classes) for v, c in cells.items()}
                        for group, cells in split["groups"].items()
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
        masked: hide cells under 10 (the sealed split).
    """
    label = np.asarray(label, dtype=np.int64)
    counted: dict[str, dict[str, LabelCounts]] = {}
    for name, (values, codes) in groups.items():
        flat = np.asarray(codes, dtype=np.int64) * classes + label
        table = np.bincount(flat, minlength=len(values) * classes)
        table = table.reshape(len(values), classes)
        counted[name] = {
            value: LabelCounts(
                _hidden(int(row.sum()), masked),
                tuple(_hidden(int(n), masked) for n in row),
            )
            for value, row in zip(values, table, strict=True)
        }
    return SplitCounts(len(label), counted)


def _hidden(n: int, masked: bool) -> int | None:
    return None if masked and n < LEAST_SHOWN else n


def _shown(n: int | None) -> int:
    return LEAST_SHOWN - 1 if n is None else n


def _cell(raw: Mapping[str, Any], classes: tuple[str, ...]) -> LabelCounts:
    labels = raw["labels"]
    return LabelCounts(_figure(raw["rows"]), tuple(_figure(labels[c]) for c in classes))


def _figure(raw: Any) -> int | None:
    """Reads a count; KFP may have made a float of it."""
    if raw == HIDDEN:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or raw != int(raw):
        raise ValueError(f"{raw!r} is not a count")
    if raw < 0:
        raise ValueError(f"{raw!r} is negative")
    return int(raw)
