"""The constitution: one hashed file that every stage reads the same way.

A constitution is a list of *principles* (see `principles`), the error level of the
gate and the people who may decide what the gate leaves open.
`Constitution.digest` is the sha256 of the parsed object with all defaults
filled in, so that spelling and comments do not change who a constitution is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.entries import number, section, text, whole
from safescale_ammt.constitution.principles import (
    Principle,
    check_consistent,
    read_principle,
)
from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.canonical import canonical_json, digest_json
from safescale_ammt.files.yaml_file import read_yaml

SCHEMA_VERSION = 1
MAX_BYTES = 64 * 1024
"""A larger constitution is refused (an argument list holds about 120 kB)."""
_KEY = re.compile(r"ed25519:\S+")
_OVERRIDABLE = ("soft", "undecided_hard")
_FINAL = ("failed_hard", "inviolable")


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
        top = section(
            raw,
            "constitution file",
            ("schema", "constitution", "principles", "gate", "groups", "human"),
        )
        if top.get("schema") != SCHEMA_VERSION:
            raise ConstitutionError(
                f"Constitution schema is {top.get('schema')!r}, this version reads "
                f"schema: {SCHEMA_VERSION}."
            )
        head = section(
            top.get("constitution", {}), "constitution", ("id", "version", "owner")
        )
        listed = top.get("principles")
        if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
            raise ConstitutionError("A constitution needs a list of principles.")
        principles = tuple(read_principle(p, i) for i, p in enumerate(listed))
        check_consistent(principles)
        parsed = cls(
            id=text(head, "id", "constitution", "constitution"),
            version=text(head, "version", "constitution", "0.0.0"),
            owner=text(head, "owner", "constitution", "unnamed"),
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
            "principles": [p.to_dict() for p in self.principles],
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


def _gate(raw: Any) -> GateRule:
    known = ("alpha", "planned_submissions", "on_uncertifiable")
    entry = section(raw, "gate", known)
    alpha = number({"alpha": 0.05, **entry}, "alpha", "gate")
    if alpha is None or not 0 < alpha < 0.5:
        raise ConstitutionError(f"gate.alpha is {alpha}, outside (0, 0.5).")
    then = entry.get("on_uncertifiable", "refuse")
    if then not in ("refuse", "human"):
        raise ConstitutionError(
            f"gate.on_uncertifiable is {then!r}, {one_of(('refuse', 'human'))}."
        )
    planned = whole(entry, "planned_submissions", "gate", 1, 1)
    return GateRule(alpha, planned, then)


def _group_rule(raw: Any) -> GroupRule:
    entry = section(raw, "groups", ("min_n", "min_pos"))
    return GroupRule(
        whole(entry, "min_n", "groups", 200, 1),
        whole(entry, "min_pos", "groups", 50, 1),
    )


def _human(raw: Any) -> HumanRule:
    known = ("approvers", "quorum", "may_override", "never", "expires_days")
    entry = section(raw, "human", known)
    approvers = _approvers(entry.get("approvers", {}))
    quorum = whole(entry, "quorum", "human", 1, 1)
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
    days = whole(entry, "expires_days", "human", 30, 1)
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
