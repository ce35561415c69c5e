"""Findings: what was measured about one principle, and what that shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from safescale_ammt.constitution.principles import ATTACKED, Constraint
from safescale_ammt.errors import InputError
from safescale_ammt.files.typed_json import build

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
REFERENCE_NAMES = {
    "majority": "best constant answer",
    "unconstrained_twin": "unconstrained twin",
}
"""What a sentence calls the references of a constitution."""
COUNTED = {
    "precision": "rows that are answered positive",
    "recall": "rows of the positive class",
    "auc": "rows of the positive class and others",
    "balanced_accuracy": "rows of every class",
}
"""Measure of use -> the rows without which it has no value."""
YES = "positive"
NO_METHOD = "none"
"""The method where there is nothing to bound, or nothing is promised."""
_WITHOUT = {
    "tpr": ("no row of {} is positive", "no row of {} is of {}"),
    "fpr": ("no row of {} is negative", "every row of {} is of {}"),
}
"""Rate -> what a group without its trials lacks: of two classes, of several."""
# No verdict of ours has such a group, but one from elsewhere is read as well.
_NO_TRIALS = ("no row of {} counts", "no row of {} counts in {}")


@dataclass(frozen=True)
class GroupRate:
    """One rate of one group (or of model and twin, for accuracy).

    Attributes:
        value: the group's value.
        of: which rate, such as `tpr`.
        n: rows of the group.
        n_pos: rows of the positive class in it.
        hits: rows counted in the rate.
        trials: rows that the rate is taken over.
        rate: hits / trials, None without trials.
        lower: exact one-sided lower 1 - alpha bound of this rate alone, or None.
        upper: exact one-sided upper bound, or None.
        judged: whether the group is large enough to be judged.
        stratum: value of the column within which groups are compared, "" of none.
    """

    value: str
    of: str
    n: int
    n_pos: int
    hits: int
    trials: int
    rate: float | None
    lower: float | None
    upper: float | None
    judged: bool = True
    stratum: str = ""

    @property
    def name(self) -> str:
        """The group, and the stratum that it is compared in."""
        return f"{self.value} in {self.stratum}" if self.stratum else self.value

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        # Came later: of what is compared in no strata nothing is said of any.
        return {k: v for k, v in asdict(self).items() if k != "stratum" or v}


@dataclass(frozen=True)
class Finding:
    """A principle, its measurement and what the sealed rows show of it.

    Attributes:
        principle: the principle's id.
        metric, group, tier, op, reference, floor: as in its constraint.
        threshold: the line; with a reference, `delta`.
        value: point value over all rows; with a reference, model minus twin. None
            where it is not defined, as a rate of a group without its trials.
        lower: one-sided lower bound on the scale of the threshold. Both bounds are
            None with the value, but for the one by which other groups show a violation.
        upper: one-sided upper bound. The bound on the promised side speaks of all
            groups at level alpha, the other of the judged groups at alpha divided
            by the number of comparisons.
        alpha: error level.
        outcome: `holds` (the promised bound is inside), `fails` (violated at level
            alpha, this principle alone), or `undecided`.
        p_violated: p-value of a violation, already adjusted for the comparisons
            within the principle; the gate adjusts over principles.
        method: names of the methods behind the bounds.
        reason: one sentence.
        too_small: groups that are too small to be judged.
        by_group: rates behind the value.
        given: the column within whose values groups are compared, as in its
            constraint.
        attack: what was changed of rows or images, in words, if anything was.
    """

    principle: str
    metric: str
    group: str | None
    tier: str
    op: str
    threshold: float
    value: float | None
    lower: float | None
    upper: float | None
    alpha: float
    outcome: str
    p_violated: float
    method: str
    reason: str
    reference: str | None = None
    floor: float | None = None
    too_small: tuple[str, ...] = ()
    by_group: tuple[GroupRate, ...] = ()
    given: str | None = None
    attack: str | None = None

    @property
    def known_value(self) -> float | None:
        """The value, or that of the groups whose rates are defined, if there is one.

        Whatever the others' rates are, they can only make it worse.
        """
        if self.value is not None or self.group is None:
            return self.value
        kinds: dict[tuple[str, str], list[float]] = {}
        for rate in self.by_group:
            if rate.rate is not None:
                kinds.setdefault((rate.stratum, rate.of), []).append(rate.rate)
        return worst_value(self.metric, kinds.values())

    @property
    def breaches(self) -> bool:
        """Whether what was measured itself lies on the wrong side of a line."""
        # What is not defined breaches nothing.
        if (value := self.known_value) is None:
            return False
        if self.op == "<=":
            return value > self.threshold
        if self.reference is None or self.floor is None:
            return value < self.threshold
        # `by_group` lists the model before its twin.
        accuracy = self.by_group[0].rate
        below_floor = accuracy is not None and accuracy < self.floor
        return value < self.threshold or below_floor

    @property
    def is_broken(self) -> bool:
        """Whether the promise is shown to be broken, or inviolable and breached."""
        return self.outcome == FAILS or (self.tier == "inviolable" and self.breaches)

    @property
    def promises_nothing(self) -> bool:
        """Whether no model can violate it, so that nothing was tested."""
        line, where = self.threshold, self.reference
        c = Constraint(self.metric, self.op, line, None, self.tier, where, line)
        return replace(c, floor=self.floor).promises_nothing

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        found = {
            **asdict(self),
            "too_small": list(self.too_small),
            "by_group": [rate.to_dict() for rate in self.by_group],
        }
        # Came later: a finding within no strata, without attack, is written as before.
        later = ("given", "attack")
        return {k: v for k, v in found.items() if k not in later or v is not None}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Finding:
        """Parses the JSON form.

        Raises:
            InputError: it is not the form of a finding.
        """
        try:
            return build(cls, raw)
        except TypeError as error:
            raise InputError(f"This is not the form of a finding ({error}).") from None


def figure(value: float | None) -> str:
    """Writes a number, or that there is none."""
    return "not defined" if value is None else f"{value:.4f}"


def worst_value(metric: str, kinds: Iterable[Sequence[float]]) -> float | None:
    """Returns a group metric of the kinds of rate that have a value, None without any.

    Args:
        metric: a gap, `dp_ratio`, `worst_group_error`, or accuracy under attack.
        kinds: of each kind of rate (and class) the groups' rates.
    """
    values = [v for v in (kind_value(metric, r) for r in kinds) if v is not None]
    return (min if metric in ("dp_ratio", *ATTACKED) else max)(values, default=None)


def kind_value(metric: str, rates: Sequence[float]) -> float | None:
    """Returns a group metric of one kind of rate, None where it is not defined."""
    if metric == "worst_group_error":
        return max(rates, default=None)
    if metric in ATTACKED:
        return min(rates, default=None)
    # One group is like no other, and 0 / 0 is no ratio.
    if len(rates) < 2 or (metric == "dp_ratio" and max(rates) == 0):
        return None
    low, high = min(rates), max(rates)
    return low / high if metric == "dp_ratio" else high - low


def lacks(finding: Finding) -> str:
    """Says without which rows a value is not defined; "" of one that is."""
    if finding.value is not None:
        return ""
    if len({r.value for r in finding.by_group}) == 1 and finding.group is not None:
        return "it compares groups, but there is only one"
    empty = [r for r in finding.by_group if not r.trials]
    if finding.metric == "calibration_error":
        return "not all groups have rows, and scores that are finite"
    if finding.metric in COUNTED:
        return f"there are no {COUNTED[finding.metric]}"
    if not empty:
        kinds = dict.fromkeys((r.of, r.stratum) for r in finding.by_group if r.hits)
        none = [r for r in finding.by_group if (r.of, r.stratum) not in kinds]
        of_class = next((r.of for r in none), "").partition(" of ")[2]
        where = next((r.stratum for r in none), "")
        among = f"any group in {where}" if where else "any group"
        return f"no row of {among} is answered {of_class or YES}"
    absent = list(dict.fromkeys(r.name for r in empty if not r.n))
    clauses = [f"there is no row of {', '.join(absent)}"] if absent else []
    for of in dict.fromkeys(r.of for r in empty if r.n):
        kind, _, of_class = of.partition(" of ")
        names = ", ".join(r.name for r in empty if r.n and r.of == of)
        words = _WITHOUT.get(kind, _NO_TRIALS)[bool(of_class)]
        clauses.append(words.format(names, of_class))
    return " and ".join(clauses)


def reason(finding: Finding) -> str:
    """Says in one sentence why a finding has its outcome."""
    line = f"{finding.op} {finding.threshold:g}"
    if finding.floor is not None:
        line += f" with accuracy {finding.op} {finding.floor:g}"
        line += f" (accuracy at least {figure(finding.by_group[0].lower)})"
    if finding.outcome == HOLDS:
        return why_it_holds(finding, line)
    if finding.value is None:
        return why_undefined(finding, line)
    subject, value = subject_of(finding), figure(finding.value)
    if finding.outcome == FAILS:
        # The twin's line is kept, so that the floor beside it is what is violated.
        if finding.floor is not None and finding.value >= finding.threshold:
            subject, value = finding.metric, figure(finding.by_group[0].rate)
            line = f"its floor {finding.op} {finding.floor:g}"
        return (
            f"{subject} is {value} and violates {line} (p = {finding.p_violated:.2g})."
        )
    if finding.is_broken:
        return (
            f"{subject} is {value}: no breach of {line} is allowed, however uncertain."
        )
    if finding.too_small:
        few = ", ".join(finding.too_small)
        return f"{subject} cannot be judged: too few rows or positives in {few}."
    ends = f"between {figure(finding.lower)} and {figure(finding.upper)}"
    return f"{subject} is {value}, {ends}: the judged rows do not settle {line}."


def why_it_holds(finding: Finding, line: str) -> str:
    """Says what shows that a promise is kept, or that it promises nothing."""
    subject = subject_of(finding)
    if finding.promises_nothing:
        value = figure(finding.value)
        return (
            f"{subject} is {value}; no model can violate {line}: nothing is promised."
        )
    end = finding.upper if finding.op == "<=" else finding.lower
    most = "at most" if finding.op == "<=" else "at least"
    confidence = f"{100 * (1 - finding.alpha):g} % confidence"
    return f"{subject} is {most} {figure(end)} with {confidence}, inside {line}."


def why_undefined(finding: Finding, line: str) -> str:
    """Says which rows a value lacks, and what the groups that have theirs show."""
    head = f"{subject_of(finding)} is not defined: {lacks(finding)}"
    if finding.known_value is None:
        return f"{head}."
    head += f"; among all others it is {figure(finding.known_value)}"
    if finding.outcome == FAILS:
        return f"{head}, which violates {line} (p = {finding.p_violated:.2g})."
    if finding.is_broken:
        return f"{head}: no breach of {line} is allowed, however uncertain."
    return f"{head}."


def subject_of(finding: Finding) -> str:
    """Says what was measured, such as `tpr_gap by sex`."""
    if finding.reference is not None:
        name = REFERENCE_NAMES[finding.reference]
        return f"{finding.metric} minus that of the {name}"
    by = f" by {finding.group}" if finding.group else ""
    by += f" given {finding.given}" if finding.given else ""
    return finding.metric + by + (f" under {finding.attack}" if finding.attack else "")
