"""What the audit has found of each kind of bias, in figures and in words.

A kind is `found`, `not found` or `not identifiable`; none is ever `clean`. What is not
found has a size up to which it may be there all the same, and what is not identifiable
names the reference that would show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safescale_ammt.data.audit_warnings import AuditWarning, percent
from safescale_ammt.data.shown import MOST
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import read_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.printable import printable

BIAS_LEVEL = 0.01
"""Chance that a kind of bias is found where there is none, of any group or column."""
KINDS = {
    "label_flips": "Label flips",
    "under_sampling": "Under-sampling",
    "proxy_leakage": "Proxy leakage",
    "measurement_noise": "Group measurement noise",
}
"""Kinds of bias, and their titles."""
Status = Literal["found", "not found", "not identifiable"]
FOUND: Status = "found"
NOT_FOUND: Status = "not found"
UNKNOWN: Status = "not identifiable"


@dataclass(frozen=True)
class BiasFinding:
    """How strong one kind of bias is for one value of a group.

    Attributes:
        group: the sensitive column, merge or cross.
        value: of the group; "" if the finding is about all of them.
        column: the input that it is about; "" if it is about labels or rows.
        strength: its size, as `Examined.measure` says.
        lower, upper: 95 % interval of the strength.
        p_value: family-wise over all findings of the kind.
        rows: what was looked at, of this value.
    """

    group: str
    value: str
    column: str
    strength: float
    lower: float
    upper: float
    p_value: float
    rows: int

    @property
    def found(self) -> bool:
        """Says whether chance alone would hardly give it."""
        return self.p_value <= BIAS_LEVEL


@dataclass(frozen=True)
class Told:
    """What people read of one kind of bias.

    Attributes:
        kind: one of `KINDS`.
        status: `found`, `not found` or `not identifiable`.
        sentence: in words; no count under ten, and no row.
    """

    kind: str
    status: str
    sentence: str

    def __post_init__(self) -> None:
        """Spells what nobody sees in a name that the sentence has."""
        object.__setattr__(self, "sentence", printable(self.sentence))


@dataclass(frozen=True)
class Examined:
    """One kind of bias, examined.

    Attributes:
        kind: one of `KINDS`.
        measure: what the strength is.
        findings: of each value, and of each input where there are several.
        unknown: why it is not identifiable; "" if it is.
    """

    kind: str
    measure: str
    findings: tuple[BiasFinding, ...] = ()
    unknown: str = ""

    @property
    def status(self) -> Status:
        """Says whether the kind was found, of any group."""
        if self.unknown:
            return UNKNOWN
        return FOUND if self.found else NOT_FOUND

    @property
    def found(self) -> list[BiasFinding]:
        """The findings that chance would hardly give, the strongest first."""
        found = [finding for finding in self.findings if finding.found]
        return sorted(found, key=lambda f: (-f.strength, f.column, f.group, f.value))

    def told(self) -> Told:
        """Puts it into words."""
        if self.unknown:
            return Told(self.kind, UNKNOWN, self.unknown)
        if found := self.found:
            # A page names the strongest; `audit.json` has all of them.
            more = f"; and {len(found) - _MOST} more" * (len(found) > _MOST)
            said = "; ".join(self.words(finding) for finding in found[:_MOST])
            return Told(self.kind, FOUND, f"{said}{more}. {_MEANING[self.kind]}")
        # What is not excluded matters to who relies on "none found".
        widest = max(self.findings, key=lambda f: f.upper)
        least = min(finding.p_value for finding in self.findings)
        sentence = (
            f"None found (smallest p-value {least:.2g}). That is no proof of absence: "
            f"{self.measure} of up to {percent(widest.upper)} is not excluded for "
            f"{self.who(widest)}."
        )
        return Told(self.kind, NOT_FOUND, sentence)

    def words(self, finding: BiasFinding) -> str:
        """Says how strong one finding is."""
        if self.kind == "proxy_leakage":
            size = f"{finding.strength:.2f} (95 %: {finding.lower:.2f} to "
            return f"{self.who(finding)}: Cramér's V {size}{finding.upper:.2f})"
        low, high = percent(max(0.0, finding.lower)), percent(finding.upper)
        size = f"{percent(finding.strength)} (95 %: {low} to {high})"
        return f"{self.who(finding)}: {self.measure} {size}, p = {finding.p_value:.2g}"

    def who(self, finding: BiasFinding) -> str:
        """Names whom a finding is about; no value of a group that has many."""
        if not finding.value:
            return f"{finding.column!r} tells {finding.group!r}"
        values = {f.value for f in self.findings if f.group == finding.group}
        of = f"a value of {finding.group!r}"
        if len(values) <= MOST:
            of = f"{finding.value!r} ({finding.group!r})"
        return f"{finding.column!r} of {of}" if finding.column else of

    def to_dict(self) -> dict[str, Any]:
        """Returns the form of `audit.json`."""
        findings = [asdict(f) | {"found": f.found} for f in self.findings]
        return {
            **asdict(self.told()),
            "measure": self.measure,
            "level": BIAS_LEVEL,
            "findings": findings,
        }

    def warnings(self) -> list[AuditWarning]:
        """Returns a warning of what was found; proxies have their own."""
        # The audit warns of proxies column by column already.
        if self.status != FOUND or self.kind == "proxy_leakage":
            return []
        first = self.found[0]
        columns = (first.column,) if first.column else ()
        sentence = f"{KINDS[self.kind]}: {self.told().sentence}"
        strength = first.strength
        return [AuditWarning(self.kind, columns, strength, sentence, first.group)]


_MOST = 3
_MEANING = {
    "label_flips": "A model learns these labels, and figures on them are wrong for "
    "these people.",
    "under_sampling": "Figures over all rows speak of them less than they should.",
    "proxy_leakage": "Leaving the sensitive column out does not hide it.",
    "measurement_noise": "The same answer of a model is worse founded for them.",
}


def examined_form(told: Iterable[Told]) -> list[dict[str, Any]]:
    """Returns what people read in the form that `read_examined` reads."""
    return [asdict(entry) for entry in told]


def read_examined(file: Path, key: str = "examined") -> tuple[Told, ...]:
    """Reads what people read of the kinds of bias; nothing of files without it.

    Args:
        file: `audit.json` (key `bias`) or `warnings.json`.
        key: under which it stands.

    Raises:
        InputError: it has another form.
    """
    if not file.is_file():
        return ()
    try:
        entries: Sequence[Mapping[str, Any]] = read_json(file).get(key, [])
        names = ("kind", "status", "sentence")
        found = [
            build(Told, {name: entry[name] for name in names}) for entry in entries
        ]
        known = {FOUND, NOT_FOUND, UNKNOWN}
        if all(told.kind in KINDS and told.status in known for told in found):
            return tuple(found)
    except (AttributeError, KeyError, TypeError):
        pass
    raise InputError(
        f"{file} does not say in the form of this version what was examined; prepare "
        "the data again."
    )
