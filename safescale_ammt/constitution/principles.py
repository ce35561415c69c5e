"""Principles: what a constitution promises, one measurable line each.

A principle carries one `constraint`: a metric over a group column, an operator and
a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from safescale_ammt.constitution.corruptions import Corruptions, read_corruptions
from safescale_ammt.constitution.entries import number, section, text
from safescale_ammt.constitution.image_threats import (
    ImageThreat,
    is_ball,
    read_image_threat,
)
from safescale_ammt.constitution.losses import BoundedLoss, read_loss
from safescale_ammt.constitution.table_threats import TableThreat, read_table_threat
from safescale_ammt.constitution.threats import Threat, read_threat
from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.canonical import checked_flag

GAPS = ("dp_gap", "tpr_gap", "fpr_gap", "eo_difference")
GROUP_METRICS = (*GAPS, "dp_ratio", "worst_group_error")
SKILL_METRICS = ("auc", "balanced_accuracy", "precision", "recall")
"""Measures of use that a rare class does not blind, as it blinds accuracy."""
ROBUST = "robust_accuracy"
"""Right answers that are left under attack: of a module's inputs in the Python API, of
a table's columns or an image's pixels in the pipeline."""
CERTIFIED = "certified_accuracy"
"""Right answers that no change of an image's pixels can turn, by bounds."""
CORRUPTED = "corruption_accuracy"
"""Right answers to images that have met a corruption."""
ATTACKED = (ROBUST, CERTIFIED, CORRUPTED)
"""Right answers that are left when rows are changed."""
FLAGS = "attack_sanity_flags"
"""Checks of the batteries on images that are raised: the attacks may be too weak."""
LOSS_GAP = "loss_gap"
"""Mean bounded losses of groups; the Python API's trainer alone predicts numbers."""
JUDGED = (
    *("accuracy", *SKILL_METRICS, *GROUP_METRICS, "calibration_error"),
    *(*ATTACKED, FLAGS),
)
"""Metrics that `evaluate_safety` has an evaluator for."""
METRICS = (*JUDGED, LOSS_GAP)
FLOORS = ("accuracy", "balanced_accuracy", "recall")
"""Measures of use that are sums of rates, and can be held to a floor."""
# The optimizer's constraints are sums of rates.
TRAINABLE = (*GAPS, "dp_ratio", "worst_group_error", *FLOORS)
"""Metrics with a differentiable surrogate."""
WITHIN_STRATA = (*GAPS, "dp_ratio")
"""Metrics that compare groups, which may be those of one stratum."""
TWIN = "unconstrained_twin"
MAJORITY = "majority"
"""The constant answer that is right most often."""
REFERENCES = (TWIN, MAJORITY)
TIERS = ("hard", "soft", "inviolable")
_HIGHER_IS_BETTER = {
    "accuracy",
    *SKILL_METRICS,
    "dp_ratio",
    *ATTACKED,
}
_ELSEWHERE = {LOSS_GAP: ", and only train_model of the Python API predicts numbers"}


JudgedThreat = TableThreat | ImageThreat | Corruptions
"""What the pipeline's judge knows how to change."""


@dataclass(frozen=True)
class Constraint:
    """What is measured and where the line is.

    Attributes:
        metric: what is measured, one of those that are judged.
        op: `<=` or `>=`, the side that the metric's meaning allows.
        threshold: the line, absolute; not beside a `reference`.
        group: a sensitive column, a declared merge or a cross.
        tier: `hard` gates, `soft` is reported, `inviolable` fails on any breach.
        reference: `unconstrained_twin`, or `majority` (the best constant answer):
            the line is its accuracy + `delta`.
        delta: offset to the reference (accuracy, a fraction: -0.01 is 1 point).
        floor: absolute floor beside the reference.
        given: a sensitive column, a declared merge or a cross: groups are compared
            within each of its values alone; the line holds in every one.
        threat: what an attacker may change of a module's inputs, of `robust_accuracy`.
        loss: whose means are compared, of `loss_gap`.
        table_threat: what an attacker may change of a table's row, likewise.
        image_threat: what an attacker may change of an image, likewise and of
            `certified_accuracy`.
        corruptions: what images meet, of `corruption_accuracy`.
        doubted: whether checks of the attack on it are raised; no part of its form.
    """

    metric: str
    op: str
    threshold: float | None = None
    group: str | None = None
    tier: str = "hard"
    reference: str | None = None
    delta: float | None = None
    floor: float | None = None
    given: str | None = None
    threat: Threat | None = None
    loss: BoundedLoss | None = None
    table_threat: TableThreat | None = None
    image_threat: ImageThreat | None = None
    corruptions: Corruptions | None = None
    doubted: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the group columns that it speaks of."""
        return tuple(name for name in (self.group, self.given) if name)

    @property
    def attack(self) -> str | None:
        """Says what is changed of a table's rows or images, None where nothing is."""
        return threat.name if (threat := self.judged_threat) else None

    @property
    def judged_threat(self) -> JudgedThreat | None:
        """How the pipeline's judge changes rows, None where it changes nothing."""
        return self.table_threat or self.image_threat or self.corruptions

    @property
    def of_changed_rows(self) -> bool:
        """Whether it is not told by answers to rows as they are."""
        return self.metric in (*ATTACKED, FLAGS)

    @property
    def empirical(self) -> bool:
        """Whether survivors of a battery count for it: an upper bound, and no proof."""
        return self.metric == ROBUST and self.image_threat is not None

    @property
    def provable(self) -> bool:
        """Whether rows can count for it: who survives a search may still break.

        Survivors of a battery count by the constitution's own word (`empirical`),
        unless it only took a first look or its checks are raised.
        """
        if self.image_threat:
            return self.image_threat.shows and not self.doubted
        return self.table_threat is None or self.table_threat.enumerated

    @property
    def over(self) -> str:
        """Says which groups are compared, such as ` by sex given education`."""
        by = f" by {self.group}" if self.group else ""
        by += f" given {self.given}" if self.given else ""
        under = self.threat.name if self.threat else self.attack
        by += f" under {under}" if under else ""
        return by + (f" in {self.loss.name}" if self.loss else "")

    @property
    def untrainable(self) -> str:
        """Says why training cannot work on it; "" if it can."""
        if self.metric == "precision":
            return (
                "precision is a share of the rows that the model itself chooses, so "
                "that answering nobody would keep it"
            )
        if self.reference is not None:
            return (
                f"a line that moves with {self.reference} is none that training can "
                "hold; promise an accuracy of at least a threshold beside it"
            )
        if self.judged_threat is not None:
            what = "columns" if self.table_threat else "pixels"
            return (
                f"the pipeline does not train for changes of {what}; the gate judges "
                "it all the same"
            )
        surrogate = self.threat is not None or self.loss is not None
        if self.metric not in TRAINABLE and not surrogate:
            return f"{self.metric} has no differentiable surrogate, {one_of(TRAINABLE)}"
        return ""

    @property
    def line(self) -> float:
        """The line on the scale of what is measured; with a reference, `delta`."""
        line = self.threshold if self.reference is None else self.delta
        return float(line or 0.0)

    @property
    def promises_nothing(self) -> bool:
        """Whether no model can violate it: every metric lies in [0, 1]."""
        if self.op == "<=":
            return self.line >= 1
        # Beside a reference the floor is a promise of its own.
        return self.line <= (0 if self.reference is None else -1) and not self.floor


@dataclass(frozen=True)
class Principle:
    """One measurable promise.

    Attributes:
        id: its name in verdicts and logs.
        constraint: what is promised.
        text: the promise in the author's words.
        why: the author's reason.
        enforce: whether training works on it; the gate judges it either way. By
            default a gap is, and all else that can be trained for is on demand.
    """

    id: str
    constraint: Constraint
    text: str = ""
    why: str = ""
    enforce: bool = False

    @property
    def promise(self) -> str:
        """The promise in one line, such as `tpr_gap by sex <= 0.1`."""
        c = self.constraint
        if c.reference:
            line = f"{c.reference} {c.delta:+g}"
            if c.floor is not None:
                line += f" and {c.op} {c.floor:g}"
        else:
            line = f"{c.threshold:g}"
        return f"{c.metric}{c.over} {c.op} {line}"

    def sentence(self) -> str:
        """Says the promise and its tier in one line, for errors and reports."""
        return f"{self.promise} ({self.constraint.tier})"

    def to_dict(self) -> dict[str, Any]:
        """Returns the canonical mapping: defaults filled in, None left out."""
        c = self.constraint
        attack = c.threat or c.table_threat or c.image_threat
        fields = {
            "metric": c.metric,
            "group": c.group,
            "given": c.given,
            "op": c.op,
            "threshold": c.threshold,
            "tier": c.tier,
            "reference": c.reference,
            "delta": c.delta,
            "floor": c.floor,
            "threat": attack and attack.to_dict(),
            "corruptions": c.corruptions and c.corruptions.to_list(),
            "loss": c.loss and c.loss.to_dict(),
        }
        return {
            "id": self.id,
            "text": self.text,
            "why": self.why,
            # None has no spelling as a KFP parameter, and would be part of the digest.
            "constraint": {k: v for k, v in fields.items() if v is not None},
            "train": {"enforce": self.enforce},
        }


def read_principle(
    raw: Any, index: int, *, attacks: bool = False, numbers: bool = False
) -> Principle:
    """Parses one entry of the list `principles`.

    Args:
        raw: the entry.
        index: its place in the list.
        attacks: whether whoever judges attacks a module's inputs, not a table's rows.
        numbers: whether whoever judges knows predicted numbers.

    Raises:
        ConstitutionError: an unknown key, metric or value, or a line that no
            evaluator could judge.
    """
    keys = ("id", "text", "why", "constraint", "train")
    entry = section(raw, f"principles[{index}]", keys)
    if "id" not in entry or "constraint" not in entry:
        raise ConstitutionError(f"principles[{index}] needs both id and constraint.")
    name = text(entry, "id", f"principles[{index}]", "")
    raw_constraint = entry["constraint"]
    constraint = _constraint(raw_constraint, name, attacks=attacks, numbers=numbers)
    train = section(entry.get("train", {}), f"{name}.train", ("enforce",))
    # Gaps are trained for, unless the author says otherwise. The others could not be
    # once: files from then mean what they meant, and keep their digests.
    by_default = constraint.metric in (*GAPS, LOSS_GAP) or constraint.threat is not None
    enforce = checked_flag(
        train.get("enforce", by_default), f"{name}.train.enforce", ConstitutionError
    )
    if enforce and (reason := constraint.untrainable):
        raise ConstitutionError(
            f"{name}.train.enforce is true, but {reason}; or say enforce: false."
        )
    texts = {k: text(entry, k, name, "") for k in ("text", "why") if entry.get(k, "")}
    return Principle(name, constraint, enforce=enforce, **texts)


def _constraint(raw: Any, name: str, *, attacks: bool, numbers: bool) -> Constraint:
    """Parses and checks the constraint of the principle `name`."""
    where = f"{name}.constraint"
    keys = (
        *("metric", "group", "given", "op", "threshold", "tier"),
        *("reference", "delta", "floor", "threat", "loss", "corruptions"),
    )
    entry = section(raw, where, keys)
    metric = entry.get("metric")
    if metric not in METRICS:
        raise ConstitutionError(
            f"{where}.metric is {metric!r}, unknown; {one_of(JUDGED, metric)}."
        )
    # A promise that nobody judges would look fulfilled: it is refused, not ignored.
    attacked = metric in (ROBUST, CERTIFIED, FLAGS)
    of_numbers = numbers and metric == LOSS_GAP
    of_the_pipeline = (CERTIFIED, CORRUPTED, FLAGS)
    known = metric in JUDGED and not (attacks and metric in of_the_pipeline)
    if not known and not of_numbers:
        raise ConstitutionError(
            f"{where}.metric {metric} has no evaluator in this version"
            f"{_ELSEWHERE.get(metric, '')}; {one_of(JUDGED)}."
        )
    if entry.get("loss") is not None and not of_numbers:
        raise ConstitutionError(
            f"{where}.loss is given, but {metric} compares no losses; remove it."
        )
    if entry.get("threat") is not None and not attacked:
        raise ConstitutionError(
            f"{where}.threat is given, but {metric} is judged without an attack; "
            "remove it."
        )
    if entry.get("corruptions") is not None and metric != CORRUPTED:
        raise ConstitutionError(
            f"{where}.corruptions is given, but {metric} is judged on images as they "
            "are; remove it."
        )
    threat, under = entry.get("threat", {}), f"{where}.threat"
    counted, of_images = metric == FLAGS, metric in (CERTIFIED, FLAGS)
    of_images |= attacked and not attacks and is_ball(threat)
    constraint = Constraint(
        metric=metric,
        op=str(entry.get("op", _natural_op(metric))),
        threshold=number({"threshold": 0.0, **entry}, "threshold", where)
        if counted
        else number(entry, "threshold", where),
        group=entry.get("group"),
        tier=str(entry.get("tier", "inviolable" if counted else "hard")),
        reference=entry.get("reference"),
        delta=number(entry, "delta", where),
        floor=number(entry, "floor", where),
        given=entry.get("given"),
        # Without one nobody knows what is promised: none is the default.
        threat=read_threat(threat, under) if attacked and attacks else None,
        loss=read_loss(entry.get("loss", {}), f"{where}.loss") if of_numbers else None,
        table_threat=read_table_threat(threat, under)
        if attacked and not attacks and not of_images
        else None,
        image_threat=read_image_threat(threat, under, proven=metric == CERTIFIED)
        if of_images
        else None,
        corruptions=read_corruptions(entry.get("corruptions"), f"{where}.corruptions")
        if metric == CORRUPTED
        else None,
    )
    _check_constraint(constraint, where)
    # Filled in, so that a delta of 0 has one digest, written out or not.
    if constraint.reference is not None and constraint.delta is None:
        return replace(constraint, delta=0.0)
    return constraint


def _natural_op(metric: str) -> str:
    return ">=" if metric in _HIGHER_IS_BETTER else "<="


def _check_constraint(c: Constraint, where: str) -> None:
    """Refuses a constraint that no evaluator could judge."""
    # "Accuracy at most .8" promises nothing: a useless model would fulfil it.
    if c.op != (op := _natural_op(c.metric)):
        raise ConstitutionError(
            f"{where}.op is {c.op!r}, but a promise about {c.metric} reads {op!r}."
        )
    if c.tier not in TIERS:
        raise ConstitutionError(f"{where}.tier is {c.tier!r}, {one_of(TIERS, c.tier)}.")
    if c.metric == "calibration_error" and c.tier != "soft":
        raise ConstitutionError(
            f"{where}.tier is {c.tier}, but calibration_error has no certified "
            "bound and can only be soft."
        )
    named = isinstance(c.group, str) and bool(c.group.strip())
    grouped = c.metric in (*GROUP_METRICS, LOSS_GAP)
    if not named and (c.group is not None or grouped):
        raise ConstitutionError(f"{where}.group must name a group for {c.metric}.")
    if c.metric in ("accuracy", *SKILL_METRICS, FLAGS) and c.group is not None:
        raise ConstitutionError(
            f"{where}.group is {c.group!r}, but {c.metric} is judged over all rows; "
            f"{one_of(GROUP_METRICS)} for groups."
        )
    if c.metric == FLAGS and (c.threshold or 0) >= 1:
        raise ConstitutionError(
            f"{where}.threshold is {c.threshold:g}, but an attack shows little once a "
            "check of it is raised; say 0, the default."
        )
    _check_given(c, where)
    _check_line(c, where)
    # Every metric lies in [0, 1].
    for key in ("threshold", "floor"):
        value = getattr(c, key)
        if value is not None and not 0 <= value <= 1:
            raise ConstitutionError(f"{where}.{key} is {value:g}, outside [0, 1].")


def _check_given(c: Constraint, where: str) -> None:
    """Refuses strata of what compares no groups, or that are the groups themselves."""
    if c.given is None:
        return
    if not isinstance(c.given, str) or not c.given.strip():
        raise ConstitutionError(f"{where}.given must name a group, found {c.given!r}.")
    if c.metric not in WITHIN_STRATA:
        raise ConstitutionError(
            f"{where}.given is {c.given!r}, but {c.metric} compares no groups within "
            f"strata; {one_of(WITHIN_STRATA)}, or name a cross of both as the group."
        )
    if c.given == c.group:
        raise ConstitutionError(
            f"{where}.given and group are both {c.given!r}: each stratum would have "
            "one group."
        )


def _check_line(c: Constraint, where: str) -> None:
    """Refuses a line that is drawn twice, not at all or against nothing."""
    if c.reference is None:
        if c.threshold is None:
            raise ConstitutionError(f"{where} needs a threshold.")
        if c.delta is not None or c.floor is not None:
            raise ConstitutionError(f"{where}: delta and floor need a reference.")
    elif c.reference not in REFERENCES or c.metric != "accuracy":
        raise ConstitutionError(
            f"{where}.reference is {c.reference!r} for {c.metric}; only accuracy "
            f"has a reference, {one_of(REFERENCES)}."
        )
    elif c.threshold is not None:
        raise ConstitutionError(f"{where} has both a threshold and a reference.")
    # Above 0 it would ask the model to beat its twin; a constant is there to be beaten.
    most = 1 if c.reference == MAJORITY else 0
    if c.delta is not None and not -1 <= c.delta <= most:
        other = "" if most else ", or [-1, 1] beside majority"
        raise ConstitutionError(
            f"{where}.delta is {c.delta:g}, outside [-1, {most}]{other}."
        )


def check_consistent(principles: Sequence[Principle]) -> None:
    """Refuses two principles with one id, or the same promise twice.

    Raises:
        ConstitutionError: two principles contradict each other.
    """
    ids: set[str] = set()
    # Two tiers of one promise are fine: a hard line, and a stricter one to aim at.
    promises: dict[tuple[str, str, bool], Principle] = {}
    for p in principles:
        if p.id in ids:
            raise ConstitutionError(f"Two principles have the id {p.id!r}.")
        ids.add(p.id)
        c = p.constraint
        # To beat the constant answer and to keep up with the twin are two promises.
        key = (c.metric, c.over, c.reference == MAJORITY)
        other = promises.setdefault(key, p)
        if other is not p and c.tier == other.constraint.tier:
            raise ConstitutionError(
                f"Principles {other.id!r} and {p.id!r} contradict each other: both "
                f"draw a {c.tier} line for {c.metric}{c.over}; keep one."
            )
