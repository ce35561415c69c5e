"""Promises in short: the dictionary that `train_model` takes, as a constitution.

max_bias               dp_gap <= v for each group, enforced in training
min_fairness           dp_ratio >= v for each group, judged
min_accuracy           accuracy >= v, judged
max_loss_gap           loss_gap <= v for each group, enforced, of predicted numbers
loss_bound             the absolute error from which on more does not count there
adversarial_budget     eps of a robust accuracy that is reported, in the largest norm
adversarial_norm       l2: in the Euclidean one
adversarial_range      least and greatest value that an input can have
min_robust_accuracy    makes that one a promise, enforced in training; an attack can
                       refute it and never show it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.entries import number, section
from safescale_ammt.constitution.principles import GROUP_METRICS, LOSS_GAP, ROBUST
from safescale_ammt.constitution.threats import Threat, read_threat
from safescale_ammt.errors import ConstitutionError

KEYS = {
    "max_bias": "dp_gap",
    "min_fairness": "dp_ratio",
    "min_accuracy": "accuracy",
    "min_robust_accuracy": ROBUST,
    "max_loss_gap": LOSS_GAP,
}
THREAT = ("adversarial_norm", "adversarial_budget", "adversarial_range")
"""How norm, radius and range of the threat are called in short."""
BOUND = "loss_bound"
_GROUPED = (*GROUP_METRICS, LOSS_GAP)
_SIZES = {"min_n": 30, "min_pos": 10}
"""Least groups of a promise in short, whose users have fewer rows than a registry."""


@dataclass(frozen=True)
class Promises:
    """What a model shall keep.

    Attributes:
        constitution: what is judged by group rates and accuracy.
        left_out: sentences on what cannot be judged here, and is undecided.
        threat: that robust accuracy is reported under, or None.
    """

    constitution: Constitution
    left_out: tuple[str, ...] = ()
    threat: Threat | None = None

    @classmethod
    def read(
        cls,
        given: Any,
        groups: Sequence[str],
        *,
        numbers: bool = False,
        unattackable: str = "",
    ) -> Promises:
        """Reads promises: in short, or as a constitution, its mapping or its file.

        Args:
            given: None promises nothing.
            groups: names of the groups that the rows have.
            numbers: whether numbers are predicted, which have no rates.
            unattackable: why the model cannot be attacked, "" if it can.

        Raises:
            ConstitutionError: an unknown key, or a value that is none.
        """
        if isinstance(given, str | Path):
            given = Constitution.load(given, attacks=True, numbers=True)
        given = {} if given is None else given
        if isinstance(given, Mapping) and "principles" in given:
            given = Constitution.from_dict(given, attacks=True, numbers=True)
        if isinstance(given, Constitution):
            found = cls(given, threat=next(iter(given.threats), None))
        else:
            found = cls.short(given, groups)
        return found.without_groups(groups, numbers, unattackable)

    @classmethod
    def short(cls, given: Any, groups: Sequence[str]) -> Promises:
        """Reads promises in short."""
        entry = section(given, "safety_constraints", (*KEYS, *THREAT, BOUND))
        # Numbers of numpy or torch are numbers.
        own = {k for k, v in entry.items() if hasattr(v, "tolist")}
        entry = {k: v.tolist() if k in own else v for k, v in entry.items()}
        values = {k: number(entry, k, "safety_constraints") for k in KEYS}
        threat = short_threat(entry)
        if values["min_robust_accuracy"] is not None and threat is None:
            raise ConstitutionError(
                "safety_constraints.adversarial_budget must be a radius >= 0, and "
                "stand beside min_robust_accuracy."
            )
        bound = number(entry, BOUND, "safety_constraints")
        useless = bound is not None and bound <= 0
        if useless or (bound is None) != (values["max_loss_gap"] is None):
            raise ConstitutionError(
                "safety_constraints.loss_bound must be the largest error that counts, "
                "> 0, and stand beside max_loss_gap."
            )
        asked: dict[str, dict[str, Any]] = {
            ROBUST: {} if threat is None else {"threat": threat.to_dict()},
            LOSS_GAP: {"loss": {"kind": "absolute", "bound": bound}},
        }
        principles = []
        for key, metric in KEYS.items():
            value = values[key]
            if value is not None:
                by_group = (groups or ("",)) if metric in _GROUPED else ("",)
                more = asked.get(metric, {})
                principles += [
                    short_principle(key, metric, value, g, more) for g in by_group
                ]
        judged = [p for p in principles if p["constraint"].get("group") != ""]
        reasons = [undecided(p) for p in principles if p not in judged]
        constitution = Constitution.from_dict(
            {"schema": 1, "principles": judged or [NOTHING], "groups": _SIZES},
            attacks=True,
            numbers=True,
        )
        return cls(constitution, tuple(reasons), threat)

    def without_groups(
        self, groups: Sequence[str], numbers: bool, unattackable: str
    ) -> Promises:
        """Leaves out what these rows or the model cannot be judged by, and says so."""
        kept, reasons = [], list(self.left_out)
        for p in self.constitution.principles:
            absent = [name for name in p.constraint.columns if name not in groups]
            # Of classes alone no loss is promised, and of numbers nothing else.
            if numbers != (p.constraint.loss is not None) and p.id != NOTHING["id"]:
                told, about = ("numbers", "classes")[:: 1 if numbers else -1]
                reasons.append(
                    f"{p.id} is undecided: {told} are predicted, and {p.promise} is "
                    f"about {about}."
                )
            elif p.constraint.threat is not None and unattackable:
                reasons.append(f"{p.id} is undecided: {unattackable}.")
            elif absent:
                reasons.append(
                    f"{p.id} is undecided: the rows have no group {absent[0]!r}; give "
                    "it as sensitive."
                )
            else:
                kept.append(p.to_dict())
        whole = {**self.constitution.to_dict(), "principles": kept or [NOTHING]}
        left = Constitution.from_dict(whole, attacks=True, numbers=True)
        return Promises(left, tuple(reasons), self.threat)

    @property
    def promises_nothing(self) -> bool:
        """Whether nothing is left that could be judged."""
        return [p.id for p in self.constitution.principles] == [NOTHING["id"]]


NOTHING: dict[str, Any] = {
    "id": "nothing-promised",
    "constraint": {"metric": "accuracy", "threshold": 0.0, "tier": "soft"},
}
"""A constitution has one principle at least: this one holds always."""


def short_threat(entry: Mapping[str, Any]) -> Threat | None:
    """Returns the threat of promises in short, None where there is no budget.

    Raises:
        ConstitutionError: a budget that is no radius, a norm or a range alone.
    """
    given = {k: v for k, v in entry.items() if k in THREAT and v is not None}
    if given and "adversarial_budget" not in given:
        raise ConstitutionError(
            "safety_constraints.adversarial_budget must be a radius >= 0, and stand "
            "beside adversarial_norm and adversarial_range."
        )
    if not given:
        return None
    given = {"adversarial_norm": "linf", **given}
    return read_threat(given, "safety_constraints", THREAT)


def short_principle(
    key: str, metric: str, value: float, group: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a principle of a promise in short; `own` is what the metric asks for."""
    name = key.replace("_", "-") + (f"-{group}" if group else "")
    constraint: dict[str, Any] = {"metric": metric, "threshold": value, **own}
    if metric in _GROUPED:
        constraint["group"] = group
    return {"id": name, "constraint": constraint}


def undecided(principle: Mapping[str, Any]) -> str:
    """Says that a promise on groups is undecided, as there are none."""
    return (
        f"{principle['id']} is undecided: no groups are given; give them as sensitive, "
        "or as the data set's third tensor."
    )
