"""Findings: what was measured about one principle, and what that shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
NO_METHOD = "none"
"""The method where there is nothing to bound."""


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
        lower: exact one-sided lower 1 - alpha bound of this rate alone.
        upper: exact one-sided upper bound.
        judged: whether the group is large enough to be judged.
    """

    value: str
    of: str
    n: int
    n_pos: int
    hits: int
    trials: int
    rate: float | None
    lower: float
    upper: float
    judged: bool = True


@dataclass(frozen=True)
class Finding:
    """A principle, its measurement and what the sealed rows show of it.

    Attributes:
        principle: the principle's id.
        metric, group, tier, op, reference, floor: as in its constraint.
        threshold: the line; with a reference, `delta`.
        value: point value over all rows; with a reference, model minus twin.
        lower: one-sided lower bound on the scale of the threshold.
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
    """

    principle: str
    metric: str
    group: str | None
    tier: str
    op: str
    threshold: float
    value: float
    lower: float
    upper: float
    alpha: float
    outcome: str
    p_violated: float
    method: str
    reason: str
    reference: str | None = None
    floor: float | None = None
    too_small: tuple[str, ...] = ()
    by_group: tuple[GroupRate, ...] = ()

    @property
    def has_value(self) -> bool:
        """Whether a measure of use has the rows that it is taken over."""
        if self.metric not in COUNTED:
            return True
        return self.method != NO_METHOD and all(r.trials for r in self.by_group)

    @property
    def breaches(self) -> bool:
        """Whether the point value itself lies on the wrong side of a line."""
        # What was not measured breaches nothing: a share of no rows reads 0.
        if not self.has_value:
            return False
        if self.op == "<=":
            return self.value > self.threshold
        if self.reference is None or self.floor is None:
            return self.value < self.threshold
        # `by_group` lists the model before its twin.
        accuracy = self.by_group[0].rate
        below_floor = accuracy is not None and accuracy < self.floor
        return self.value < self.threshold or below_floor

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            **asdict(self),
            "too_small": list(self.too_small),
            "by_group": [asdict(rate) for rate in self.by_group],
        }

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


def reason(finding: Finding) -> str:
    """Says in one sentence why a finding has its outcome."""
    confidence = f"{100 * (1 - finding.alpha):g} % confidence"
    line = f"{finding.op} {finding.threshold:g}"
    if finding.floor is not None:
        line += f" with accuracy {finding.op} {finding.floor:g}"
        line += f" (accuracy at least {finding.by_group[0].lower:.4f})"
    what = f" by {finding.group}" if finding.group else ""
    if finding.reference is not None:
        what = f" minus that of the {REFERENCE_NAMES[finding.reference]}"
    subject, value = f"{finding.metric}{what}", f"{finding.value:.4f}"
    if finding.outcome == HOLDS:
        end = finding.upper if finding.op == "<=" else finding.lower
        most = "at most" if finding.op == "<=" else "at least"
        return f"{subject} is {most} {end:.4f} with {confidence}, inside {line}."
    if finding.outcome == FAILS:
        p = f"p = {finding.p_violated:.2g}"
        # The twin's line is kept, so that the floor beside it is what is violated.
        if finding.floor is not None and finding.value >= finding.threshold:
            subject, value = finding.metric, f"{finding.by_group[0].rate:.4f}"
            line = f"its floor {finding.op} {finding.floor:g}"
        return f"{subject} is {value} and violates {line} ({p})."
    if finding.too_small:
        few = ", ".join(finding.too_small)
        return f"{subject} cannot be judged: too few rows or positives in {few}."
    if finding.group is not None and len({r.value for r in finding.by_group}) == 1:
        return f"{subject} compares groups, but there is only one."
    if not finding.has_value:
        return f"{subject} has no value: there are no {COUNTED[finding.metric]}."
    ends = f"between {finding.lower:.4f} and {finding.upper:.4f}"
    return f"{subject} is {value}, {ends}: the judged rows do not settle {line}."
