"""The verdict: every finding about one model, with the decision they lead to.

A verdict names what it is about by digest (model, constitution, dataset,
holdout) and can be derived again from the evidence beside it: `assembly.rederive`
does that, and `differences` says where a stated verdict departs from a derived
one. This module only knows the form, so that readers need no statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError, one_of
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.gate import FAIL, GUARANTEES, NEEDS_HUMAN, PASS
from safescale_ammt.judging.sampling_model import SamplingModel
from safescale_ammt.judging.slice_forms import Slices

SCHEMA_VERSION = 1
VERDICT = "verdict.json"
FINDINGS = "findings"
SEALED, REHEARSAL = "sealed", "rehearsal"
OFFICIAL, RESEARCH, BENCHMARK = "official", "research", "benchmark"
LEDGERS = (OFFICIAL, RESEARCH, BENCHMARK)
"""What a use of sealed rows is counted for; `official` alone can be registered."""
# Figures may differ by this between machines: roots are found to a width, and the
# order of a sum is the library's.
TOLERANCE = 1e-7


@dataclass(frozen=True)
class SealedUse:
    """Which use of the sealed rows a verdict is.

    Attributes:
        number: 1 for the first use of any of the rows; 0 in a rehearsal.
        planned: uses that the constitution planned for.
        guarantee: `holds`, `spent` (rows were open before) or `none`.
    """

    number: int
    planned: int
    guarantee: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "number": self.number,
            "planned": self.planned,
            "guarantee": self.guarantee,
        }


@dataclass(frozen=True)
class Verdict:
    """Findings, decision and what they are about.

    Attributes:
        model, dataset, holdout: identity digests of the artifacts judged.
        constitution: digest of the constitution judged by.
        mode: `sealed`, or `rehearsal` on *select*.
        ledger: `official`, or `research` or `benchmark`: never registered.
        use: which use of the sealed rows this is.
        alpha: error level of this submission (alpha / planned submissions).
        rows: number of rows judged.
        classes: class names by code.
        positive: the positive class, "" if there is none.
        groups: group name -> its values by code.
        bins: bins of the reliability curve.
        findings: one per principle, in the constitution's order.
        decision: `pass`, `needs_human` or `fail`.
        reasons: why, one sentence each.
        figures: description of model and twin (see `profile.profile`).
        evidence: sha256 of the evidence file.
        base_rates: share of each class in the training rows, () if not known.
        sampling: what the judged rows are independent draws of; None = not stated.
        attacks: key of each threat to rows -> what became of them, by code.
        slices: groups that nobody named, and which were confirmed; None = not stated.
    """

    model: str
    constitution: str
    dataset: str
    holdout: str
    mode: str
    ledger: str
    use: SealedUse
    alpha: float
    rows: int
    classes: tuple[str, ...]
    positive: str
    groups: Mapping[str, tuple[str, ...]]
    bins: int
    findings: tuple[Finding, ...]
    decision: str
    reasons: tuple[str, ...]
    figures: Mapping[str, Any]
    evidence: str
    base_rates: tuple[float, ...] = ()
    sampling: SamplingModel | None = None
    attacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    slices: Slices | None = None
    schema: int = SCHEMA_VERSION

    @property
    def accuracy(self) -> float:
        """Share of the judged rows that the model gets right."""
        return float(self.figures["model"]["accuracy"]["value"])

    @property
    def twin_accuracy(self) -> float:
        """The same of the unconstrained twin."""
        return float(self.figures["twin"]["accuracy"]["value"])

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        attacks = {key: list(words) for key, words in self.attacks.items()}
        return {
            "schema": self.schema,
            "model": self.model,
            "constitution": self.constitution,
            "dataset": self.dataset,
            "holdout": self.holdout,
            "mode": self.mode,
            "ledger": self.ledger,
            "use": self.use.to_dict(),
            "alpha": self.alpha,
            "rows": self.rows,
            "classes": list(self.classes),
            "positive": self.positive,
            "groups": {name: list(values) for name, values in self.groups.items()},
            "bins": self.bins,
            "findings": [finding.to_dict() for finding in self.findings],
            "decision": self.decision,
            "reasons": list(self.reasons),
            "accuracy": self.accuracy,
            "twin_accuracy": self.twin_accuracy,
            "figures": dict(self.figures),
            "evidence": self.evidence,
            # A verdict of before there were base rates reads and digests as it did.
            **({"base_rates": list(self.base_rates)} if self.base_rates else {}),
            # Nor does one of before the sampling model was stated.
            **({"sampling": self.sampling.to_dict()} if self.sampling else {}),
            **({"attacks": attacks} if attacks else {}),
            # Nor one of before there were slices.
            **({"slices": self.slices.to_dict()} if self.slices else {}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str = VERDICT) -> Verdict:
        """Parses the JSON form.

        Raises:
            InputError: this is no verdict, or one of another schema.
        """
        # The schema first: a file of another one may lack any of the other keys.
        if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA_VERSION:
            schema = raw.get("schema") if isinstance(raw, Mapping) else raw
            raise InputError(
                f"{where} has schema {schema!r}, this version reads {SCHEMA_VERSION}."
            )
        # Both are in `figures` too: two copies of one number may not disagree.
        twice = ("accuracy", "twin_accuracy")
        try:
            verdict = build(cls, {k: v for k, v in raw.items() if k not in twice})
            if verdict.positive and verdict.positive not in verdict.classes:
                raise ValueError("positive, which is none of the classes")
            for key in twice:
                if getattr(verdict, key) != raw[key]:
                    raise ValueError(f"{key}, which departs from its figures")
        # A damaged file fails anywhere in the parsing, and so with any of these.
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{where} is not a verdict: {type(error).__name__} at {error}."
            ) from None
        for key, value, words in (
            ("mode", verdict.mode, (SEALED, REHEARSAL)),
            ("ledger", verdict.ledger, LEDGERS),
            ("decision", verdict.decision, (PASS, NEEDS_HUMAN, FAIL)),
            ("guarantee", verdict.use.guarantee, GUARANTEES),
        ):
            if value not in words:
                raise InputError(f"{where} has {key} {value!r}, {one_of(words)}.")
        return verdict

    @classmethod
    def load(cls, folder: Path | str) -> Verdict:
        """Reads `verdict.json` of a verdict artifact (does not verify digests)."""
        file = Path(folder) / VERDICT
        return cls.from_dict(read_json(file), str(file))

    def files(self) -> dict[str, dict[str, Any]]:
        """Returns `verdict.json` and one `findings/<principle>.json` each, by name."""
        findings = {name: f.to_dict() for name, f in self.finding_files().items()}
        return {VERDICT: self.to_dict(), **findings}

    def save(self, folder: Path) -> None:
        """Writes the files of a verdict into a folder."""
        for name, value in self.files().items():
            write_json(folder / name, value)

    def finding_files(self) -> dict[str, Finding]:
        """Maps each finding to its file; file names hold no foreign characters."""
        files = {}
        for i, finding in enumerate(self.findings):
            # The number keeps ids apart whose first 60 safe characters are the same.
            spelling = "".join(
                c if c.isascii() and (c.isalnum() or c == "-") else "_"
                for c in finding.principle
            )
            files[f"{FINDINGS}/{i + 1:02d}-{spelling[:60]}.json"] = finding
        return files


def differences(
    stated: Any, derived: Any, where: str = "", *, ignore: Sequence[str] = ()
) -> Iterator[str]:
    """Yields the places where two JSON values differ beyond `TOLERANCE`.

    `where` is the path of both; keys in `ignore` may differ at any depth.
    """
    both = (stated, derived)
    if all(isinstance(v, Mapping) for v in both):
        for key in sorted((stated.keys() | derived.keys()) - set(ignore)):
            if key not in stated or key not in derived:
                yield f"{where}{key}: present on one side only"
            else:
                at = f"{where}{key}."
                yield from differences(stated[key], derived[key], at, ignore=ignore)
    elif all(isinstance(v, Sequence) and not isinstance(v, str) for v in both):
        if len(stated) != len(derived):
            yield f"{where[:-1]}: {len(stated)} entries stated, {len(derived)} derived"
        # Lengths that differ are named above; the entries in common follow.
        for i, (a, b) in enumerate(zip(stated, derived, strict=False)):
            yield from differences(a, b, f"{where}{i}.", ignore=ignore)
    else:
        same = bool(stated == derived)
        # In Python True == 1, in a verdict they are two things.
        if any(isinstance(v, bool) for v in both):
            same = stated is derived
        elif all(isinstance(v, int | float) for v in both):
            same = math.isclose(stated, derived, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if not same:
            yield f"{where[:-1]}: stated {stated!r}, derived {derived!r}"
