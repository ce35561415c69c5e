"""The answer: all that leaves the judge of sealed rows under `gate.feedback: bit`.

Passed or not, as which use of the rows, and what is left of the planned ones. No field
depends on a figure but that one bit: `needs_human` and `fail` are one word here, since
their difference would be a second bit. The verdict behind an answer lies where the
auditor's key alone reads (`store.auditor`).

Source: Renggli et al. 2019, "ease.ml/ci": a test set whose use ends with the first
pass. Until then everybody knows beforehand what will be heard, so that the models are
as fixed as if nothing was told, and the levels of all uses add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from safescale_ammt.data.schema import ROWS
from safescale_ammt.errors import InputError, one_of
from safescale_ammt.files.canonical import read_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.gate import GUARANTEES, PASS
from safescale_ammt.judging.verdict import LEDGERS, SEALED, SealedUse, Verdict

SCHEMA_VERSION = 1
KIND = "answer"
"""Kind of the artifact that holds one, in place of a verdict."""
ANSWER = "answer.json"
NOT_PASSED = "not_passed"
_WORDS = {
    PASS: "Every hard principle is shown to hold.",
    NOT_PASSED: "Not every hard principle is shown to hold.",
}


@dataclass(frozen=True)
class Answer:
    """What is told of a judgement on sealed rows.

    Attributes:
        model, dataset, holdout: identity digests of the artifacts judged.
        constitution: digest of the constitution judged by.
        ledger: `official`, or `research` or `benchmark`: never registered.
        use: which use of the sealed rows this is.
        alpha: error level of this submission (alpha / planned submissions).
        rows: number of rows judged; their counts are known to development anyway.
        unit: what a row is an independent draw of (`judging.sampling_model`).
        passed: the bit.
    """

    model: str
    constitution: str
    dataset: str
    holdout: str
    ledger: str
    use: SealedUse
    alpha: float
    rows: int
    unit: str
    passed: bool
    schema: int = SCHEMA_VERSION

    mode: ClassVar[str] = SEALED
    """A rehearsal reads no sealed row, and tells its figures."""
    evidence: ClassVar[str] = ""
    findings: ClassVar[tuple[Finding, ...]] = ()

    @classmethod
    def of(cls, verdict: Verdict) -> Answer:
        """Returns what is told of a verdict on sealed rows."""
        return cls(
            model=verdict.model,
            constitution=verdict.constitution,
            dataset=verdict.dataset,
            holdout=verdict.holdout,
            ledger=verdict.ledger,
            use=verdict.use,
            alpha=verdict.alpha,
            rows=verdict.rows,
            unit=verdict.sampling.unit if verdict.sampling else ROWS,
            passed=verdict.decision == PASS,
        )

    @property
    def decision(self) -> str:
        """`pass` or `not_passed`."""
        return PASS if self.passed else NOT_PASSED

    @property
    def reasons(self) -> tuple[str, ...]:
        """The bit in words."""
        return (_WORDS[self.decision],)

    @property
    def submissions_left(self) -> int:
        """Planned uses of the rows that will still have a guarantee."""
        # After a pass there are two histories, and levels no longer add up to alpha.
        if self.passed or self.use.guarantee != "holds":
            return 0
        return self.use.planned - self.use.number

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        # The decision says it, once.
        told = {k: v for k, v in asdict(self).items() if k != "passed"}
        follows = {"mode": self.mode, "submissions_left": self.submissions_left}
        return {**told, "feedback": "bit", "decision": self.decision, **follows}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str = ANSWER) -> Answer:
        """Parses the JSON form.

        Raises:
            InputError: this is no answer, or one of another schema.
        """
        if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA_VERSION:
            schema = raw.get("schema") if isinstance(raw, Mapping) else raw
            raise InputError(
                f"{where} has schema {schema!r}, this version reads {SCHEMA_VERSION}."
            )
        follows = ("feedback", "decision", "mode", "submissions_left")
        try:
            facts = {k: v for k, v in raw.items() if k not in follows}
            answer = build(cls, {**facts, "passed": raw["decision"] == PASS})
            # What follows from the rest may not say otherwise, and nothing may be more.
            if answer.to_dict() != dict(raw):
                raise ValueError("a word that does not follow")
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{where} is not an answer: {type(error).__name__} at {error}."
            ) from None
        for key, value, words in (
            ("ledger", answer.ledger, LEDGERS),
            ("guarantee", answer.use.guarantee, GUARANTEES),
        ):
            if value not in words:
                raise InputError(f"{where} has {key} {value!r}, {one_of(words)}.")
        return answer

    @classmethod
    def load(cls, folder: Path | str) -> Answer:
        """Reads `answer.json` of an artifact (does not verify digests)."""
        file = Path(folder) / ANSWER
        return cls.from_dict(read_json(file), str(file))


Told = Verdict | Answer
"""What is told of a judgement: all of it, or one bit."""
