"""Promises in short: the dictionary that `train_model` takes, as a constitution.

max_bias               dp_gap <= v for each group, enforced in training
min_fairness           dp_ratio >= v for each group, judged
min_accuracy           accuracy >= v, judged
adversarial_budget     eps of a robust accuracy that is reported
min_robust_accuracy    makes that one a promise, which an attack can refute alone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.entries import number, section
from safescale_ammt.constitution.principles import GROUP_METRICS
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.judging.findings import FAILS, UNDECIDED

KEYS = {
    "max_bias": "dp_gap",
    "min_fairness": "dp_ratio",
    "min_accuracy": "accuracy",
    "adversarial_budget": "",
    "min_robust_accuracy": "",
}
_SIZES = {"min_n": 30, "min_pos": 10}
"""Least groups of a promise in short, whose users have fewer rows than a registry."""


@dataclass(frozen=True)
class Promises:
    """What a model shall keep.

    Attributes:
        constitution: what is judged by group rates and accuracy.
        left_out: sentences on what cannot be judged here, and is undecided.
        eps: radius of attacks that robust accuracy is reported at, or None.
        min_robust: least robust accuracy, or None.
    """

    constitution: Constitution
    left_out: tuple[str, ...] = ()
    eps: float | None = None
    min_robust: float | None = None

    @classmethod
    def read(
        cls, given: Any, groups: Sequence[str], *, numbers: bool = False
    ) -> Promises:
        """Reads promises: in short, or as a constitution, its mapping or its file.

        Args:
            given: None promises nothing.
            groups: names of the groups that the rows have.
            numbers: whether numbers are predicted, which have no rates.

        Raises:
            ConstitutionError: an unknown key, or a value that is none.
        """
        if isinstance(given, Constitution):
            return cls(given).without_groups(groups, numbers)
        if isinstance(given, str | Path):
            constitution = Constitution.load(given)
            return cls(constitution).without_groups(groups, numbers)
        given = {} if given is None else given
        if isinstance(given, Mapping) and "principles" in given:
            constitution = Constitution.from_dict(given)
            return cls(constitution).without_groups(groups, numbers)
        entry = section(given, "safety_constraints", tuple(KEYS))
        # One number of numpy or torch is a number.
        one = {k for k, v in entry.items() if getattr(v, "shape", None) == ()}
        entry = {k: v.item() if k in one else v for k, v in entry.items()}
        values = {k: number(entry, k, "safety_constraints") for k in KEYS}
        principles = []
        for key, metric in KEYS.items():
            value = values[key]
            if metric and value is not None:
                by_group = (groups or ("",)) if metric in GROUP_METRICS else ("",)
                principles += [short_principle(key, metric, value, g) for g in by_group]
        eps, least = values["adversarial_budget"], values["min_robust_accuracy"]
        if (eps or 0) < 0 or (least is not None and eps is None):
            raise ConstitutionError(
                "safety_constraints.adversarial_budget must be a radius >= 0, and "
                "stand beside min_robust_accuracy."
            )
        if least is not None and not 0 <= least <= 1:
            raise ConstitutionError(
                f"safety_constraints.min_robust_accuracy is {least}, outside [0, 1]."
            )
        judged = [p for p in principles if p["constraint"].get("group") != ""]
        reasons = [undecided(p) for p in principles if p not in judged]
        constitution = Constitution.from_dict(
            {"schema": 1, "principles": judged or [NOTHING], "groups": _SIZES}
        )
        return cls(constitution, tuple(reasons), eps, least).without_groups(
            groups, numbers
        )

    def without_groups(self, groups: Sequence[str], numbers: bool) -> Promises:
        """Leaves out principles on groups that the rows do not have, and says so."""
        kept, reasons = [], list(self.left_out)
        for p in self.constitution.principles:
            absent = [name for name in p.constraint.columns if name not in groups]
            if numbers and p.id != NOTHING["id"]:
                reasons.append(
                    f"{p.id} is undecided: numbers are predicted, and {p.promise} is "
                    "about classes."
                )
            elif absent:
                reasons.append(
                    f"{p.id} is undecided: the rows have no group {absent[0]!r}; give "
                    "it as sensitive."
                )
            else:
                kept.append(p.to_dict())
        whole = {**self.constitution.to_dict(), "principles": kept or [NOTHING]}
        left = Constitution.from_dict(whole)
        return Promises(left, tuple(reasons), self.eps, self.min_robust)

    def robust_outcome(self, robust: Mapping[str, Any]) -> str:
        """Returns what a robust accuracy with bounds shows of its promise."""
        least = self.min_robust or 0.0
        if robust.get("upper", 1.0) < least:
            return FAILS
        # What an attack has not found shows nothing: robust accuracy may be lower.
        return UNDECIDED

    @property
    def promises_nothing(self) -> bool:
        """Whether nothing is left that could be judged."""
        return [p.id for p in self.constitution.principles] == [NOTHING["id"]]


NOTHING: dict[str, Any] = {
    "id": "nothing-promised",
    "constraint": {"metric": "accuracy", "threshold": 0.0, "tier": "soft"},
}
"""A constitution has one principle at least: this one holds always."""


def short_principle(key: str, metric: str, value: float, group: str) -> dict[str, Any]:
    """Returns a principle of a promise in short."""
    name = key.replace("_", "-") + (f"-{group}" if group else "")
    constraint: dict[str, Any] = {"metric": metric, "threshold": value}
    if metric in GROUP_METRICS:
        constraint["group"] = group
    return {"id": name, "constraint": constraint}


def undecided(principle: Mapping[str, Any]) -> str:
    """Says that a promise on groups is undecided, as there are none."""
    return (
        f"{principle['id']} is undecided: no groups are given; give them as sensitive, "
        "or as the data set's third tensor."
    )
