"""The constitution: one hashed file that every stage reads the same way.

A constitution is a list of *principles*. Each carries one measurable
`constraint`: a metric over a group column, an operator and a threshold.
`Constitution.digest` is the sha256 of the parsed object with all defaults
filled in, so that spelling and comments do not change who a constitution is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.artifacts import canonical_json, digest_json
from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.yaml_file import read_yaml

SCHEMA_VERSION = 1
MAX_BYTES = 64 * 1024
"""A larger constitution is refused (an argument list holds about 120 kB)."""
GAPS = ("dp_gap", "tpr_gap", "fpr_gap", "eo_difference")
GROUP_METRICS = (*GAPS, "dp_ratio", "worst_group_error")
ROBUST_METRICS = (
    "robust_accuracy",
    "certified_accuracy",
    "corruption_accuracy",
    "attack_sanity_flags",
)
METRICS = ("accuracy", *GROUP_METRICS, "calibration_error", *ROBUST_METRICS)
JUDGED = ("accuracy", *GROUP_METRICS, "calibration_error")
"""Metrics that `evaluate_safety` has an evaluator for."""
TRAINABLE = GAPS
"""Metrics with a differentiable surrogate."""
TWIN = "unconstrained_twin"
TIERS = ("hard", "soft", "inviolable")
_KEY = re.compile(r"ed25519:\S+")
_OVERRIDABLE = ("soft", "undecided_hard")
_FINAL = ("failed_hard", "inviolable")
_HIGHER_IS_BETTER = {
    "accuracy",
    "dp_ratio",
    "robust_accuracy",
    "certified_accuracy",
    "corruption_accuracy",
}


@dataclass(frozen=True)
class Constraint:
    """What is measured and where the line is.

    Attributes:
        metric: one of `METRICS`.
        op: `<=` or `>=`, the side that the metric's meaning allows.
        threshold: the line, absolute (None with a `reference`).
        group: a sensitive column, a declared merge or a cross.
        tier: `hard` gates, `soft` is reported, `inviolable` fails on any breach.
        reference: `unconstrained_twin`: the line is the twin's value + `delta`.
        delta: offset to the reference (accuracy, a fraction: -0.01 is 1 point).
        floor: absolute floor beside the reference.
    """

    metric: str
    op: str
    threshold: float | None = None
    group: str | None = None
    tier: str = "hard"
    reference: str | None = None
    delta: float | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Principle:
    """One measurable promise."""

    id: str
    constraint: Constraint
    text: str = ""
    why: str = ""
    enforce: bool = False

    def sentence(self) -> str:
        """Says the promise in one line, for errors and reports."""
        c = self.constraint
        over = f" by {c.group}" if c.group else ""
        if c.reference:
            line = f"{c.reference} {c.delta:+g}"
            if c.floor is not None:
                line += f" and {c.op} {c.floor:g}"
        else:
            line = f"{c.threshold:g}"
        return f"{c.metric}{over} {c.op} {line} ({c.tier})"


@dataclass(frozen=True)
class GateRule:
    """Error level, planned uses of the sealed data, and what if uncertifiable."""

    alpha: float = 0.05
    planned_submissions: int = 1
    on_uncertifiable: str = "refuse"

    @property
    def alpha_k(self) -> float:
        """Error level of one submission: alpha / planned_submissions."""
        return self.alpha / self.planned_submissions


@dataclass(frozen=True)
class GroupRule:
    """Least rows and least positives of a group that is judged at all."""

    min_n: int = 200
    min_pos: int = 50


@dataclass(frozen=True)
class HumanRule:
    """Who may approve what the gate leaves open."""

    approvers: Mapping[str, str]
    quorum: int = 1
    may_override: tuple[str, ...] = ("soft", "undecided_hard")
    never: tuple[str, ...] = ("failed_hard", "inviolable")
    expires_days: int = 30


@dataclass(frozen=True)
class Constitution:
    """A parsed constitution with every default filled in."""

    id: str
    version: str
    owner: str
    principles: tuple[Principle, ...]
    gate: GateRule
    groups: GroupRule
    human: HumanRule

    @classmethod
    def load(cls, path: Path | str) -> Constitution:
        """Reads a YAML file.

        Raises:
            ConstitutionError: the file is missing, is not YAML or is malformed.
        """
        return cls.from_dict(read_yaml(path, ConstitutionError))

    @classmethod
    def from_dict(cls, raw: Any) -> Constitution:
        """Parses the mapping form (YAML, or a KFP dict parameter).

        Raises:
            ConstitutionError: unknown key, metric or value, a missing part, or
                principles that contradict each other.
        """
        top = _section(
            raw,
            "constitution file",
            ("schema", "constitution", "principles", "gate", "groups", "human"),
        )
        if top.get("schema") != SCHEMA_VERSION:
            raise ConstitutionError(
                f"Constitution schema is {top.get('schema')!r}, this version reads "
                f"schema: {SCHEMA_VERSION}."
            )
        head = _section(
            top.get("constitution", {}), "constitution", ("id", "version", "owner")
        )
        listed = top.get("principles")
        if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
            raise ConstitutionError("A constitution needs a list of principles.")
        principles = tuple(_principle(p, i) for i, p in enumerate(listed))
        _check_consistent(principles)
        parsed = cls(
            id=_text(head, "id", "constitution", "constitution"),
            version=_text(head, "version", "constitution", "0.0.0"),
            owner=_text(head, "owner", "constitution", "unnamed"),
            principles=principles,
            gate=_gate(top.get("gate", {})),
            groups=_group_rule(top.get("groups", {})),
            human=_human(top.get("human", {})),
        )
        size = len(canonical_json(parsed.to_dict()))
        if size > MAX_BYTES:
            raise ConstitutionError(
                f"The constitution holds {size} bytes, at most {MAX_BYTES} fit in a "
                "pipeline parameter; shorten its texts."
            )
        return parsed

    def to_dict(self) -> dict[str, Any]:
        """Returns the canonical mapping: defaults filled in, None left out."""
        return {
            "schema": SCHEMA_VERSION,
            "constitution": {
                "id": self.id,
                "version": self.version,
                "owner": self.owner,
            },
            "principles": [_principle_dict(p) for p in self.principles],
            "gate": {
                "alpha": self.gate.alpha,
                "planned_submissions": self.gate.planned_submissions,
                "on_uncertifiable": self.gate.on_uncertifiable,
            },
            "groups": {"min_n": self.groups.min_n, "min_pos": self.groups.min_pos},
            "human": {
                "approvers": dict(self.human.approvers),
                "quorum": self.human.quorum,
                "may_override": list(self.human.may_override),
                "never": list(self.human.never),
                "expires_days": self.human.expires_days,
            },
        }

    @property
    def digest(self) -> str:
        """sha256 of the canonical object: its identity in every stage."""
        return digest_json(self.to_dict())

    @property
    def hard(self) -> tuple[Principle, ...]:
        """Principles that gate."""
        return tuple(p for p in self.principles if p.constraint.tier != "soft")

    @property
    def enforced(self) -> tuple[Principle, ...]:
        """Principles that the optimizer sees."""
        return tuple(p for p in self.principles if p.enforce)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Names of the group columns that the principles speak of."""
        names = {p.constraint.group for p in self.principles if p.constraint.group}
        return tuple(sorted(names))

    def principle(self, name: str) -> Principle:
        """Returns the principle with this id."""
        return next(p for p in self.principles if p.id == name)


def _principle_dict(p: Principle) -> dict[str, Any]:
    c = p.constraint
    measured = {
        "metric": c.metric,
        "group": c.group,
        "op": c.op,
        "threshold": c.threshold,
        "tier": c.tier,
        "reference": c.reference,
        "delta": c.delta,
        "floor": c.floor,
    }
    return {
        "id": p.id,
        "text": p.text,
        "why": p.why,
        "constraint": {k: v for k, v in measured.items() if v is not None},
        "train": {"enforce": p.enforce},
    }


def _section(raw: Any, where: str, known: Sequence[str]) -> Mapping[str, Any]:
    """Returns `raw` as a mapping whose keys are all known."""
    if not isinstance(raw, Mapping):
        raise ConstitutionError(
            f"{where} must be a mapping, found {type(raw).__name__}."
        )
    for key in raw:
        if key not in known:
            raise ConstitutionError(f"Unknown key {key!r} in {where}, {one_of(known)}.")
    return raw


def _text(raw: Mapping[str, Any], key: str, where: str, default: str) -> str:
    value = raw.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise ConstitutionError(f"{where}.{key} must be text, found {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConstitutionError(f"{where}.{key} is not Unicode text.") from None
    return value


def _number(raw: Mapping[str, Any], key: str, where: str) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConstitutionError(f"{where}.{key} must be a number, found {value!r}.")
    if abs(value) > 1e9 or not math.isfinite(value):
        raise ConstitutionError(f"{where}.{key} must be finite and below 1e9.")
    return float(value)


def _whole(
    raw: Mapping[str, Any], key: str, where: str, default: int, least: int
) -> int:
    value = _number({key: default, **raw}, key, where)
    if value is None or value != int(value) or value < least:
        raise ConstitutionError(
            f"{where}.{key} must be a whole number >= {least}, found {raw.get(key)!r}."
        )
    return int(value)


def _principle(raw: Any, index: int) -> Principle:
    known = ("id", "text", "why", "constraint", "train")
    entry = _section(raw, f"principles[{index}]", known)
    if "id" not in entry or "constraint" not in entry:
        raise ConstitutionError(f"principles[{index}] needs both id and constraint.")
    name = _text(entry, "id", f"principles[{index}]", "")
    constraint = _constraint(entry["constraint"], name)
    train = _section(entry.get("train", {}), f"{name}.train", ("enforce",))
    trainable = constraint.metric in TRAINABLE and constraint.op == "<="
    enforce = train.get("enforce", trainable)
    if not isinstance(enforce, bool):
        raise ConstitutionError(
            f"{name}.train.enforce must be true or false, found {enforce!r}."
        )
    if enforce and not trainable:
        raise ConstitutionError(
            f"{name}.train.enforce is true, but {constraint.metric} has no "
            f"differentiable surrogate, {one_of(TRAINABLE)}, or enforce: false."
        )
    told = {k: _text(entry, k, name, "") for k in ("text", "why") if entry.get(k, "")}
    return Principle(name, constraint, enforce=enforce, **told)


def _constraint(raw: Any, name: str) -> Constraint:
    where = f"{name}.constraint"
    known = (
        *("metric", "group", "op", "threshold", "tier"),
        *("reference", "delta", "floor", "threat"),
    )
    entry = _section(raw, where, known)
    metric = entry.get("metric")
    if metric not in METRICS:
        raise ConstitutionError(
            f"{where}.metric is {metric!r}, unknown; {one_of(METRICS)}."
        )
    if metric not in JUDGED:
        raise ConstitutionError(
            f"{where}.metric {metric} has no evaluator in this version; "
            f"{one_of(JUDGED)}."
        )
    if "threat" in entry:
        raise ConstitutionError(
            f"{where}.threat is given, but {metric} is judged without an attack; "
            "remove it."
        )
    constraint = Constraint(
        metric=metric,
        op=str(entry.get("op", _natural_op(metric))),
        threshold=_number(entry, "threshold", where),
        group=entry.get("group"),
        tier=str(entry.get("tier", "hard")),
        reference=entry.get("reference"),
        delta=_number(entry, "delta", where),
        floor=_number(entry, "floor", where),
    )
    _check_constraint(constraint, where)
    if constraint.reference is not None and constraint.delta is None:
        return Constraint(**{**constraint.__dict__, "delta": 0.0})
    return constraint


def _natural_op(metric: str) -> str:
    return ">=" if metric in _HIGHER_IS_BETTER else "<="


def _check_constraint(c: Constraint, where: str) -> None:
    """Refuses a constraint that no evaluator could judge."""
    if c.op != _natural_op(c.metric):
        raise ConstitutionError(
            f"{where}.op is {c.op!r}, but a promise about {c.metric} reads "
            f"{_natural_op(c.metric)!r}."
        )
    if c.tier not in TIERS:
        raise ConstitutionError(f"{where}.tier is {c.tier!r}, {one_of(TIERS)}.")
    if c.metric == "calibration_error" and c.tier != "soft":
        raise ConstitutionError(
            f"{where}.tier is {c.tier}, but calibration_error has no certified "
            "bound and can only be soft."
        )
    named = isinstance(c.group, str) and bool(c.group.strip())
    if not named and (c.group is not None or c.metric in GROUP_METRICS):
        raise ConstitutionError(f"{where}.group must name a group for {c.metric}.")
    if c.metric == "accuracy" and c.group is not None:
        raise ConstitutionError(
            f"{where}.group is {c.group!r}, but accuracy is judged over all rows; "
            "worst_group_error speaks of groups."
        )
    _check_line(c, where)
    for key in ("threshold", "floor"):
        value = getattr(c, key)
        if value is not None and not 0 <= value <= 1:
            raise ConstitutionError(f"{where}.{key} is {value:g}, outside [0, 1].")
    if c.delta is not None and not -1 <= c.delta <= 0:
        raise ConstitutionError(f"{where}.delta is {c.delta:g}, outside [-1, 0].")


def _check_line(c: Constraint, where: str) -> None:
    """Refuses a line that is drawn twice, not at all or against nothing."""
    if c.reference is None:
        if c.threshold is None:
            raise ConstitutionError(f"{where} needs a threshold.")
        if c.delta is not None or c.floor is not None:
            raise ConstitutionError(f"{where}: delta and floor need a reference.")
    elif c.reference != TWIN or c.metric != "accuracy":
        raise ConstitutionError(
            f"{where}.reference is {c.reference!r} for {c.metric}; only accuracy "
            f"has a reference, and it is {TWIN!r}."
        )
    elif c.threshold is not None:
        raise ConstitutionError(f"{where} has both a threshold and a reference.")


def _check_consistent(principles: Sequence[Principle]) -> None:
    """Refuses two principles with one id, or the same promise twice."""
    ids: set[str] = set()
    promises: dict[tuple[str, str | None], Principle] = {}
    for p in principles:
        if p.id in ids:
            raise ConstitutionError(f"Two principles have the id {p.id!r}.")
        ids.add(p.id)
        c = p.constraint
        key = (c.metric, c.group)
        other = promises.setdefault(key, p)
        if other is not p and c.tier == other.constraint.tier:
            raise ConstitutionError(
                f"Principles {other.id!r} and {p.id!r} contradict each other: both "
                f"draw a {c.tier} line for {c.metric}"
                f"{f' by {c.group}' if c.group else ''}; keep one."
            )


def _gate(raw: Any) -> GateRule:
    known = ("alpha", "planned_submissions", "on_uncertifiable")
    entry = _section(raw, "gate", known)
    alpha = _number({"alpha": 0.05, **entry}, "alpha", "gate")
    if alpha is None or not 0 < alpha < 0.5:
        raise ConstitutionError(f"gate.alpha is {alpha}, outside (0, 0.5).")
    then = entry.get("on_uncertifiable", "refuse")
    if then not in ("refuse", "human"):
        raise ConstitutionError(
            f"gate.on_uncertifiable is {then!r}, {one_of(('refuse', 'human'))}."
        )
    planned = _whole(entry, "planned_submissions", "gate", 1, 1)
    return GateRule(alpha, planned, then)


def _group_rule(raw: Any) -> GroupRule:
    entry = _section(raw, "groups", ("min_n", "min_pos"))
    return GroupRule(
        _whole(entry, "min_n", "groups", 200, 1),
        _whole(entry, "min_pos", "groups", 50, 1),
    )


def _human(raw: Any) -> HumanRule:
    known = ("approvers", "quorum", "may_override", "never", "expires_days")
    entry = _section(raw, "human", known)
    approvers = _approvers(entry.get("approvers", {}))
    quorum = _whole(entry, "quorum", "human", 1, 1)
    if approvers and quorum > len(approvers):
        raise ConstitutionError(
            f"human.quorum is {quorum}, but only {len(approvers)} approvers are named."
        )
    may = _kinds(entry, "may_override", _OVERRIDABLE, _OVERRIDABLE)
    never = _kinds(entry, "never", _FINAL, (*_OVERRIDABLE, *_FINAL))
    both = sorted(set(may) & set(never))
    if both:
        raise ConstitutionError(
            f"human.may_override and human.never both name {both[0]!r}; keep one."
        )
    days = _whole(entry, "expires_days", "human", 30, 1)
    return HumanRule(approvers, quorum, may, never, days)


def _approvers(raw: Any) -> dict[str, str]:
    """Checks names and keys: one person, one key."""
    if not isinstance(raw, Mapping) or not all(
        isinstance(k, str) and isinstance(v, str) and _KEY.fullmatch(v)
        for k, v in raw.items()
    ):
        raise ConstitutionError(
            "human.approvers must map a name to 'ed25519:<public key>'."
        )
    keys = list(raw.values())
    shared = [name for name, key in raw.items() if keys.count(key) > 1]
    if shared:
        raise ConstitutionError(
            f"human.approvers {shared[0]!r} and {shared[1]!r} have one key; one "
            "person is one vote."
        )
    return dict(raw)


def _kinds(
    entry: Mapping[str, Any], key: str, default: tuple[str, ...], known: Sequence[str]
) -> tuple[str, ...]:
    value = entry.get(key, default)
    listed = isinstance(value, list | tuple)
    if not listed or not all(isinstance(v, str) and v in known for v in value):
        raise ConstitutionError(f"human.{key} is {value!r}, {one_of(known)}.")
    return tuple(value)
