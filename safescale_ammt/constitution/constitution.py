"""The constitution: one hashed file that every stage reads the same way.

A constitution is a list of *principles* (see `principles`), the error level of the
gate and the people whom its author names for what the gate leaves open.
`Constitution.digest` is the sha256 of the parsed object with all defaults
filled in, so that spelling and comments do not change which constitution it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.corruptions import Corruptions
from safescale_ammt.constitution.entries import number, section, text, whole
from safescale_ammt.constitution.image_threats import ImageThreat
from safescale_ammt.constitution.principles import (
    CERTIFIED,
    ROBUST,
    JudgedThreat,
    Principle,
    check_consistent,
    read_principle,
)
from safescale_ammt.constitution.table_threats import TableThreat
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.canonical import canonical_json, checked_flag, digest_json
from safescale_ammt.files.public_keys import key_bytes
from safescale_ammt.files.yaml_file import read_yaml

SCHEMA_VERSION = 1
MAX_BYTES = 64 * 1024
"""A larger constitution is refused (an argument list holds about 120 kB)."""
MAX_DAYS = 36_500
"""A decision that counts for longer has no date."""
FIGURES, BIT = "figures", "bit"
"""What leaves the judge (`gate.feedback`)."""
_OVERRIDABLE = ("soft", "undecided_hard")
# What is shown to be violated is no matter of opinion: nobody decides it.
_FINAL = ("failed_hard", "inviolable")


@dataclass(frozen=True)
class GateRule:
    """What the gate promises.

    Attributes:
        alpha: chance of passing a model that breaks a hard promise, over all
            planned submissions.
        planned_submissions: planned uses of the sealed rows, which share alpha.
        on_uncertifiable: what happens where the sealed rows are too few for a
            promise: `refuse` before training, or `human`: train, and end pending.
        allow_constant: whether a model may pass that is not shown to answer better
            than a constant.
        feedback: what leaves the judge of sealed rows: `figures`, or one `bit`, passed
            or not, with all figures kept for the auditor.
    """

    alpha: float = 0.05
    planned_submissions: int = 1
    on_uncertifiable: str = "refuse"
    allow_constant: bool = False
    feedback: str = FIGURES

    @property
    def alpha_k(self) -> float:
        """Error level of one submission: alpha / planned_submissions."""
        # Bonferroni over the submissions: each is a try on the same sealed rows.
        return self.alpha / self.planned_submissions


@dataclass(frozen=True)
class GroupRule:
    """Which groups are judged at all.

    Attributes:
        min_n: least rows of a group.
        min_pos: least positives of a group.
    """

    min_n: int = 200
    min_pos: int = 50


@dataclass(frozen=True)
class HumanRule:
    """People whom the author names for what the gate leaves open.

    They decide by signed acts (`safescale approve`), under the rules of
    `releasing.acts`.

    Attributes:
        approvers: name -> public key, as `safescale keygen` prints it.
        quorum: how many of them one decision takes.
        may_override: kinds of findings that are theirs to decide.
        never: kinds of findings that are not.
        expires_days: days that a decision counts.
    """

    approvers: Mapping[str, str]
    quorum: int = 1
    may_override: tuple[str, ...] = ("soft", "undecided_hard")
    never: tuple[str, ...] = ("failed_hard", "inviolable")
    expires_days: int = 30


@dataclass(frozen=True)
class Constitution:
    """A parsed constitution with every default filled in.

    Attributes:
        id, version, owner: as its author names them.
        principles: in the file's order.
        gate: error level and planned submissions.
        groups: least sizes of judged groups.
        human: people named for what the gate leaves open.
    """

    id: str
    version: str
    owner: str
    principles: tuple[Principle, ...]
    gate: GateRule
    groups: GroupRule
    human: HumanRule

    @classmethod
    def load(
        cls, path: Path | str, *, attacks: bool = False, numbers: bool = False
    ) -> Constitution:
        """Reads a YAML file; `attacks` and `numbers` as in `from_dict`.

        Raises:
            ConstitutionError: the file is missing, is not YAML or is malformed.
        """
        raw = read_yaml(path, ConstitutionError)
        return cls.from_dict(raw, attacks=attacks, numbers=numbers)

    @classmethod
    def from_dict(
        cls, raw: Any, *, attacks: bool = False, numbers: bool = False
    ) -> Constitution:
        """Parses the mapping form (YAML, or a KFP dict parameter).

        Args:
            raw: the mapping.
            attacks: whether whoever judges attacks a module's inputs, as the Python
                API does: the pipeline attacks rows of tables, by changes of columns.
            numbers: whether whoever judges knows predicted numbers: the pipeline
                knows classes, so that promises on losses are refused by default.

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
        entries = top.get("principles")
        # A text is a sequence too, of its letters.
        if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
            raise ConstitutionError("A constitution needs a list of principles.")
        principles = tuple(
            read_principle(p, i, attacks=attacks, numbers=numbers)
            for i, p in enumerate(entries)
        )
        check_consistent(principles)
        sizes = section(top.get("groups", {}), "groups", ("min_n", "min_pos"))
        constitution = cls(
            id=text(head, "id", "constitution", "constitution"),
            version=text(head, "version", "constitution", "0.0.0"),
            owner=text(head, "owner", "constitution", "unnamed"),
            principles=principles,
            gate=_gate(top.get("gate", {})),
            groups=GroupRule(
                whole(sizes, "min_n", "groups", 200, 1),
                whole(sizes, "min_pos", "groups", 50, 1),
            ),
            human=_human(top.get("human", {})),
        )
        # With defaults filled in, as it travels through the pipeline.
        size = len(canonical_json(constitution.to_dict()))
        if size > MAX_BYTES:
            raise ConstitutionError(
                f"The constitution holds {size} bytes, at most {MAX_BYTES} fit in a "
                "pipeline parameter; shorten its texts."
            )
        return constitution

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
                # Came later: a file that does not use them keeps its digest.
                **({"allow_constant": True} if self.gate.allow_constant else {}),
                **({"feedback": BIT} if self.gate.feedback == BIT else {}),
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
    def threats(self) -> tuple[Threat, ...]:
        """The threats to a module's inputs that principles speak of, each once."""
        found = (p.constraint.threat for p in self.principles)
        return tuple(dict.fromkeys(threat for threat in found if threat))

    @property
    def table_threats(self) -> tuple[TableThreat, ...]:
        """The threats to rows of a table that principles speak of, each once."""
        found = (p.constraint.table_threat for p in self.principles)
        return tuple(dict.fromkeys(threat for threat in found if threat))

    @property
    def image_threats(self) -> tuple[ImageThreat, ...]:
        """The threats to images that principles speak of, each once."""
        found = (p.constraint.image_threat for p in self.principles)
        return tuple(dict.fromkeys(threat for threat in found if threat))

    @property
    def corruptions(self) -> tuple[Corruptions, ...]:
        """What images meet of which principles speak, each once."""
        found = (p.constraint.corruptions for p in self.principles)
        return tuple(dict.fromkeys(each for each in found if each))

    @property
    def judged_threats(self) -> tuple[JudgedThreat, ...]:
        """All ways in which the pipeline's judge changes rows, each once."""
        return (*self.table_threats, *self.image_threats, *self.corruptions)

    @property
    def batteries(self) -> tuple[ImageThreat, ...]:
        """Those of them that are searched by attacks, and not bounded."""
        return tuple(threat for threat in self.image_threats if threat.tier)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Names of the group columns that the principles refer to."""
        names = {name for p in self.principles for name in p.constraint.columns}
        return tuple(sorted(names))

    def require_crosses(self, crosses: Mapping[str, Sequence[str]]) -> None:
        """Refuses strata in whose groups no rows are counted.

        Args:
            crosses: name -> the columns that it crosses, as the data declare them.

        Raises:
            ConstitutionError: a promise is made given a column that is not crossed
                with its group.
        """
        for p in self.principles:
            group, given = p.constraint.group, p.constraint.given
            if given and not any(set(c) == {group, given} for c in crosses.values()):
                raise ConstitutionError(
                    f"Principle {p.id!r} compares {group!r} given {given!r}, but the "
                    "data count no rows of both; declare "
                    f"data.crosses: {{{group}_{given}: [{group}, {given}]}}."
                )

    def require_changeable(
        self, sensitive: Sequence[str], never: Sequence[str], *, in_model: bool
    ) -> None:
        """Refuses threats to columns that nobody may change, or not unasked.

        Args:
            sensitive: columns that the data declare sensitive.
            never: columns that no model reads: the label, and those dropped.
            in_model: whether the model reads sensitive columns.

        Raises:
            ConstitutionError: there is such a threat.
        """
        for p in self.principles:
            threat = p.constraint.table_threat
            for name, _ in threat.columns if threat else ():
                assert threat is not None
                if name in never:
                    raise ConstitutionError(
                        f"Principle {p.id!r} changes the column {name!r}, which no "
                        "model reads; leave it out of threat.columns."
                    )
                if name in sensitive and not in_model:
                    raise ConstitutionError(
                        f"Principle {p.id!r} changes {name!r}, which the data declare "
                        "sensitive and no model reads; leave it out of threat.columns, "
                        "or set data.sensitive_in_model."
                    )
                if name in sensitive and name not in threat.sensitive:
                    raise ConstitutionError(
                        f"Principle {p.id!r} changes {name!r}, which the data declare "
                        f"sensitive; if that is meant, say threat.sensitive: [{name}], "
                        "else leave it out."
                    )

    def require_slopes(self, *, trees: bool, own: bool) -> None:
        """Refuses attacks on images of models that have no slopes, or no bounds.

        Args:
            trees: whether trees are trained, which answer in steps.
            own: whether a user's own module is, which has no bounds.

        Raises:
            ConstitutionError: there is such an attack.
        """
        for p in self.principles:
            if p.constraint.image_threat and trees:
                raise ConstitutionError(
                    f"Principle {p.id!r} attacks images, but training.learner is "
                    "trees, which have no slopes for a battery to follow and no "
                    "bounds; train nets, or leave it out."
                )
            if p.constraint.metric == CERTIFIED and own:
                raise ConstitutionError(
                    f"Principle {p.id!r} promises {CERTIFIED}, but training.model is "
                    "a module of your own, which has no bounds here; promise "
                    f"{ROBUST}, or train nets of the pipeline."
                )

    def principle(self, name: str) -> Principle:
        """Returns the principle with this id."""
        return next(p for p in self.principles if p.id == name)


def _gate(raw: Any) -> GateRule:
    """Parses the section `gate`."""
    keys = ("alpha", "planned_submissions", "on_uncertifiable", "allow_constant")
    entry = section(raw, "gate", (*keys, "feedback"))
    alpha = number({"alpha": 0.05, **entry}, "alpha", "gate")
    # A test at level one half is a coin.
    if alpha is None or not 0 < alpha < 0.5:
        raise ConstitutionError(f"gate.alpha is {alpha}, outside (0, 0.5).")
    on_uncertifiable = entry.get("on_uncertifiable", "refuse")
    if on_uncertifiable not in ("refuse", "human"):
        choices = one_of(("refuse", "human"), on_uncertifiable)
        raise ConstitutionError(
            f"gate.on_uncertifiable is {on_uncertifiable!r}, {choices}."
        )
    submissions = whole(entry, "planned_submissions", "gate", 1, 1)
    constant = entry.get("allow_constant", False)
    allow_constant = checked_flag(constant, "gate.allow_constant", ConstitutionError)
    feedback = entry.get("feedback", FIGURES)
    if feedback not in (FIGURES, BIT):
        choices = one_of((FIGURES, BIT), feedback)
        raise ConstitutionError(f"gate.feedback is {feedback!r}, {choices}.")
    return GateRule(alpha, submissions, on_uncertifiable, allow_constant, feedback)


def _human(raw: Any) -> HumanRule:
    """Parses the section `human`."""
    keys = ("approvers", "quorum", "may_override", "never", "expires_days")
    entry = section(raw, "human", keys)
    approvers = entry.get("approvers", {})
    if not isinstance(approvers, Mapping) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in approvers.items()
    ):
        raise ConstitutionError(
            "human.approvers must map a name to 'ed25519:<public key>'."
        )
    # A quorum of two is two people: one person under two names would be both.
    owners: dict[bytes, str] = {}
    for name, public_key in approvers.items():
        owner = owners.setdefault(approver_key(name, public_key), name)
        if owner != name:
            raise ConstitutionError(
                f"human.approvers {owner!r} and {name!r} have one key; one person is "
                "one vote."
            )
    if len(set(map(person, approvers))) < len(approvers):
        raise ConstitutionError(
            "human.approvers names one person twice, apart from upper and lower case, "
            "spaces around a name and ways to write one letter."
        )
    quorum = whole(entry, "quorum", "human", 1, 1)
    # Without approvers nobody approves anything, whatever the quorum is.
    if approvers and quorum > len(approvers):
        raise ConstitutionError(
            f"human.quorum is {quorum}, but only {len(approvers)} approvers are named."
        )
    may_override = _kinds(entry, "may_override", _OVERRIDABLE, _OVERRIDABLE)
    never = _kinds(entry, "never", _FINAL, (*_OVERRIDABLE, *_FINAL))
    both = sorted(set(may_override) & set(never))
    if both:
        raise ConstitutionError(
            f"human.may_override and human.never both name {both[0]!r}; keep one."
        )
    days = whole(entry, "expires_days", "human", 30, 1)
    if days > MAX_DAYS:
        raise ConstitutionError(
            f"human.expires_days is {days}, at most {MAX_DAYS} (a hundred years)."
        )
    return HumanRule(dict(approvers), quorum, may_override, never, days)


def person(name: str) -> str:
    """Returns what two spellings of one person's name have in common.

    An owner who is spelled another way than as approver would be nobody's, and so
    independent of their own run: `é` is one letter on one keyboard, two on another.
    """
    return unicodedata.normalize("NFKC", name).casefold().strip()


def approver_key(name: str, public_key: str) -> bytes:
    """Checks an approver's name and key, and returns the key's bytes."""
    where = f"human.approvers.{name}"
    text({"name": name}, "name", "human.approvers", "")
    try:
        return key_bytes(public_key)
    except ValueError as error:
        raise ConstitutionError(
            f"{where} is {public_key!r}, which {error}; `safescale keygen` draws a key "
            "and prints it."
        ) from None


def _kinds(
    entry: Mapping[str, Any], key: str, default: tuple[str, ...], kinds: Sequence[str]
) -> tuple[str, ...]:
    """Reads a list of kinds of findings."""
    value = entry.get(key, default)
    is_list = isinstance(value, list | tuple)
    if not is_list or not all(isinstance(v, str) and v in kinds for v in value):
        raise ConstitutionError(f"human.{key} is {value!r}, {one_of(kinds)}.")
    return tuple(value)
