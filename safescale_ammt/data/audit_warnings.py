"""Warnings about the data: made once by the audit, told wherever people look.

`audit.json` holds all of them, the worst first. Terminal, report, card and `run.json`
read that one list and use its words. A sentence holds counts and names of columns, and
of values only levels that many rows share (`shown.py`). What a kind means is in
docs/raw_data.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.printable import printable

SCHEMA_VERSION = 1
AUDIT = "audit.json"
"""The file of the dataset that holds figures and warnings."""
WARNINGS = "warnings.json"
"""The file of the verdict that holds the same warnings, for report and card."""
KINDS = {
    "leak": "AUC by which the columns tell the label",
    "label_flips": "share of flipped labels beyond that of others",
    "under_sampling": "share of rows that are missing beside those of others",
    "measurement_noise": "share of measurement error beyond that of others",
    "proxy": "Cramér's V with the sensitive column",
    "lost_label": "names of data.label_map that no row has",
    "one_sided_group": "values that one of development and sealed rows lacks",
    "unclear": "columns",
    "look_alike": "pairs of levels",
    "duplicates": "rows that repeat another, or the inputs of one",
    "image_labels": "images that equal one of another class",
    "constant_images": "images",
    "label_noise": "pairs of rows with equal inputs and unequal labels",
    "unseen": "share of the sealed rows; 0 or 1 if their number is not told",
    "pooled": "share of the development rows",
    "almost_empty": "share of the development rows without a value",
    "small_group": "values of the group with too few rows",
    "base_rate": "greatest difference to the largest group",
    "constant": "columns",
    "spelling": "values that are spelled anew",
}
"""What `AuditWarning.figure` is, by kind; the gravest kind first."""
MOST_TOLD = 6
"""Warnings that the terminal and the first screen of the report show."""


@dataclass(frozen=True)
class AuditWarning:
    """One thing that a reader of figures about these data should know.

    Attributes:
        kind: one of `KINDS`.
        columns: names of the columns that it is about; () if it is about rows.
        figure: the number behind it, larger is worse (`KINDS` says which).
        sentence: what people read.
        group: name of the group it is about, if any.
    """

    kind: str
    columns: tuple[str, ...]
    figure: float
    sentence: str
    group: str = ""

    def __post_init__(self) -> None:
        """Spells what nobody sees in a value that the sentence names."""
        object.__setattr__(self, "sentence", printable(self.sentence))

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "kind": self.kind,
            "columns": list(self.columns),
            "group": self.group,
            "figure": self.figure,
            "sentence": self.sentence,
        }


def ranked(warnings: Iterable[AuditWarning]) -> tuple[AuditWarning, ...]:
    """Sorts warnings: the gravest kind first, within a kind the greatest figure."""
    kinds = list(KINDS)
    return tuple(sorted(warnings, key=lambda w: (kinds.index(w.kind), -w.figure)))


def read_warnings(file: Path) -> tuple[AuditWarning, ...]:
    """Reads the warnings of `audit.json` or `warnings.json`; none without the file.

    Raises:
        InputError: the file holds none in this form.
    """
    if not file.is_file():
        return ()
    try:
        told = read_json(file)
        # `audit.json` has a form of its own, which its own reader checks.
        if file.name == WARNINGS and told["schema"] != SCHEMA_VERSION:
            raise TypeError
        found = [build(AuditWarning, entry) for entry in told["warnings"]]
    except (KeyError, TypeError):
        raise InputError(
            f"{file} holds no warnings in the form of this version; prepare the data "
            "again."
        ) from None
    return tuple(found)


def warnings_form(
    warnings: Sequence[AuditWarning], examined: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Returns the contents of `warnings.json`, which `read_warnings` reads.

    Args:
        warnings: the worst first.
        examined: what is told of each kind of bias, as `examined_form` gives it.
    """
    told = [warning.to_dict() for warning in warnings]
    beside = {"examined": list(examined)} if examined else {}
    return {"schema": SCHEMA_VERSION, "warnings": told, **beside}


def save_warnings(folder: Path, warnings: Sequence[AuditWarning]) -> None:
    """Writes `warnings.json` into a folder."""
    write_json(folder / WARNINGS, warnings_form(warnings))


def sentences(warnings: Iterable[AuditWarning]) -> list[str]:
    """Returns what warnings say; what stands in for one column is one sentence.

    Five columns that tell a district are one thing to know, and leave other things
    their place among the first that are told.
    """
    told: dict[tuple[str, str], list[AuditWarning]] = {}
    for warning in warnings:
        joins = warning.kind == "proxy" and warning.group
        alone = "" if joins else str(len(told))
        told.setdefault((warning.group, alone), []).append(warning)
    said = []
    for same in told.values():
        said.append(same[0].sentence)
        if len(same) > 1:
            columns = [f"{w.columns[0]!r} ({w.figure:.2f})" for w in same]
            more = len(same) - MOST_TOLD
            named = ", ".join(columns[:MOST_TOLD]) + f" and {more} more" * (more > 0)
            said[-1] = (
                f"{named} stand in for {same[0].group!r} (Cramér's V): leaving "
                f"{same[0].group!r} out does not hide it."
            )
    return said


def in_lines(
    warnings: Sequence[AuditWarning], where: str = f"the dataset's {AUDIT}"
) -> list[str]:
    """Returns the worst warnings, a line each, and how many more `where` holds."""
    if not warnings:
        return []
    told = sentences(warnings)
    plural = "s" * (len(told) > 1)
    lines = [f"{len(told)} warning{plural} about the data:"]
    lines += [f"- {sentence}" for sentence in told[:MOST_TOLD]]
    more = len(told) - MOST_TOLD
    return [*lines, f"- and {more} more in {where}"] if more > 0 else lines


def percent(share: float) -> str:
    """Spells a share; one that is not 0 or 1 is not spelled as if it were."""
    if 0 < share < 0.01:
        return "under 1 %"
    return f"{100 * share:.0f} %" if share == 1 or share < 0.995 else "over 99 %"


def named(columns: Sequence[str], most: int = 5) -> str:
    """Lists names of columns for a sentence, at most so many."""
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(map(repr, columns[:most])) + more
