"""The power check's report, in figures and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safescale_ammt.constitution.constitution import GateRule
from safescale_ammt.constitution.image_threats import SMOKE
from safescale_ammt.constitution.principles import MAJORITY
from safescale_ammt.constitution.table_threats import ENUMERATED
from safescale_ammt.data.counts import LEAST_SHOWN
from safescale_ammt.data.schema import ROWS
from safescale_ammt.judging.power.laws import ASSUMPTIONS
from safescale_ammt.judging.sampling_model import units_in_words

REQUIRED = 0.8
"""Joint P(pass) from which a constitution counts as certifiable."""


@dataclass(frozen=True)
class Odds:
    """Probabilities of the three decisions under one law.

    Attributes:
        scale: true gap as a multiple of the tolerance, None: the spread law.
        value: the true gap (or error, or shortfall) itself.
        passes: P(pass).
        human: P(needs_human).
        fails: P(fail).
    """

    scale: float | None
    value: float | None
    passes: float
    human: float
    fails: float


@dataclass(frozen=True)
class RowsNeeded:
    """How much more data would certify the promised tolerance.

    Attributes:
        factor: multiple of today's rows.
        everywhere: whether train and constraint must grow as well.
        sealed: sealed rows then, by group value ("all" for accuracy).
    """

    factor: float
    everywhere: bool
    sealed: Mapping[str, int]


@dataclass(frozen=True)
class PrinciplePower:
    """What the sealed rows can certify of one hard principle.

    Attributes:
        principle, metric, group, op: which.
        line: threshold (or delta) as promised.
        table: odds at the true gaps `SCALES`.
        spread: odds for a model as training will leave it.
        too_small: groups that the gate will not judge, as far as the counts tell.
        hidden: those whose counts are hidden, so that they may be large enough.
        beside: small groups for whose sake these are hidden, as `column value`.
        given: the column within whose values groups are compared, if there is one.
        reference: `majority`, if the line is the best constant answer's + `line`.
        least: least certifiable line, where the promised one is at fault, or asked for.
        rows: rows that the promised line would need, likewise.
        culprit: whether it is at fault that the constitution is uncertifiable.
        attack: what is changed of rows, in words, if they are attacked.
        searched: whether changes are searched, which shows no promise.
    """

    principle: str
    metric: str
    group: str | None
    op: str
    line: float
    table: tuple[Odds, ...]
    spread: Odds
    too_small: tuple[str, ...]
    least: float | None = None
    rows: RowsNeeded | None = None
    culprit: bool = False
    hidden: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    reference: str | None = None
    given: str | None = None
    attack: str | None = None
    searched: bool = False

    @property
    def over(self) -> str:
        """Says which groups are compared, such as ` by sex given education`."""
        by = f" by {self.group}" if self.group else ""
        by += f" given {self.given}" if self.given else ""
        return by + (f" under {self.attack}" if self.attack else "")

    @property
    def answer(self) -> str:
        """Says whether the promise is certifiable, and which line would be."""
        verdict = "not certifiable" if self.culprit else "certifiable"
        if self.too_small:
            groups = f"{self.group} {', '.join(self.too_small)}"
            return f"not certifiable for any line, as too little is known of {groups}"
        if self.searched:
            return "not certifiable for any line, as a search shows no promise"
        if self.least is None:
            return f"{verdict} for any line" if self.culprit else verdict
        return f"{verdict}; the least certifiable line is {self.op} {self.least:g}"


@dataclass(frozen=True)
class PowerReport:
    """The power check's answer.

    Attributes:
        certifiable: joint P(pass) under the spread law is at least `required`, or
            nothing is promised that a model could violate.
        table: joint odds, all principles at the same multiple of their tolerance.
        spread: joint odds under the spread law.
        principles: one entry per hard principle.
        culprits: ids of the principles at fault.
        sentence: the answer in words.
        sealed: independent draws among the sealed rows: the effective sample size.
        unit: what they are draws of.
        alpha: error level of one submission.
    """

    certifiable: bool
    table: tuple[Odds, ...]
    spread: Odds
    principles: tuple[PrinciplePower, ...]
    culprits: tuple[str, ...]
    sentence: str
    alpha: float
    draws: int
    seed: int
    sealed: int
    unit: str = ROWS
    required: float = REQUIRED
    assumptions: Sequence[str] = ASSUMPTIONS

    @property
    def basis(self) -> str:
        """Says on how many independent draws the odds are reckoned."""
        drawn = units_in_words(self.unit, self.sealed)
        return f"Reckoned for independent draws, the sealed {drawn}."

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        plain = asdict(self)
        plain["assumptions"] = list(self.assumptions)
        # Most tables hide nothing: their reports read as before there were these.
        for principle in plain["principles"]:
            if not principle["hidden"]:
                del principle["hidden"], principle["beside"]
            for key in ("reference", "given", "attack", "searched"):
                if not principle[key]:
                    del principle[key]
        return {"schema": 1, **plain}


def summary(gate: GateRule, spread: Odds, faults: Sequence[str]) -> str:
    """Says the answer in one sentence, with the level if planned uses share it."""
    level = ""
    if gate.planned_submissions > 1:
        level = (
            f" at level {gate.alpha_k:g} (alpha {gate.alpha:g} over "
            f"{gate.planned_submissions} planned uses)"
        )
    return (
        f"A model as training will leave it passes{level} with probability "
        f"{spread.passes:.2f}, {REQUIRED:g} is required: "
        f"{'; '.join(faults) or 'the constitution is certifiable'}."
    )


def fault(power: PrinciplePower, min_n: int, min_pos: int, share: float) -> str:
    """Says what is wrong with a principle at fault and what would put it right.

    Args:
        power: the principle's.
        min_n: least rows of a group that is judged.
        min_pos: least positives of one.
        share: probability with which each promise must pass, so that all do.
    """
    over = power.metric + power.over
    # The line of accuracy against a twin is a delta, one of accuracy alone a threshold.
    if power.reference == MAJORITY:
        over = "accuracy minus the best constant answer's"
    elif power.metric == "accuracy" and power.line <= 0:
        over = "accuracy minus the twin's"
    head = f"{power.principle} ({over} {power.op} {power.line:g})"
    if power.searched:
        return f"{head} can never pass, because {unshown(power)}, or make it soft"
    if power.too_small:
        # Hidden counts may be large enough: then the gate might judge these groups.
        never = set(power.too_small) - set(power.hidden)
        verdict = "can never pass" if never else "cannot be certified"
        small = ", ".join(v for v in power.too_small if v not in power.hidden)
        causes = []
        if small:
            causes.append(
                f"the sealed rows of {power.group} {small} are fewer than min_n "
                f"{min_n} or their positives (or negatives) fewer than min_pos "
                f"{min_pos}: merge them with others by data.merges, gather more rows, "
                "seal a larger share, or let the constitution's groups ask for fewer"
            )
        if power.hidden:
            # Where no choice of cells protects, the counts do not say which are small.
            cause = ", ".join(power.beside) or "small groups"
            causes.append(
                f"the counts of {', '.join(power.hidden)} are hidden, so that the rows "
                f"of {cause} (under {LEAST_SHOWN} in all or in a class) cannot be "
                "computed from them: merge these by data.merges and judge the merged "
                "column, or take their column out of data.sensitive or data.crosses"
            )
        return f"{head} {verdict}, because {'; and '.join(causes)}"
    least = "no line would be certifiable"
    if power.least is not None:
        least = f"the least certifiable line is {power.least:g}"
    need = "more rows than anyone could gather"
    if power.rows is not None:
        group = f"{power.group} " if power.group else ""
        of = power.rows.sealed.items()
        each = ", ".join(f"{group}{value}: {n:,}" for value, n in of)
        # A little more is told as 1.1: 1.0 times would be the rows that there are.
        factor = max(power.rows.factor, 1.1)
        need = f"{factor:.1f} times the sealed rows ({each})"
        if power.rows.everywhere:
            need += ", with train and constraint growing alike"
    return (
        f"{head} alone would pass with probability {power.spread.passes:.2f}, its "
        f"share is {share:.2f}: {least}, and the promised one needs {need}"
    )


def unshown(power: PrinciplePower) -> str:
    """Says which attack shows no promise, and which one would."""
    if (power.attack or "").endswith(f" {SMOKE}"):
        return (
            f"a battery of tier {SMOKE} is a first look and shows no promise: say "
            "threat.tier full or release"
        )
    return (
        f"a search for more than {ENUMERATED} changes shows no promise: let "
        f"{ENUMERATED} columns change at most, of which every change is tried"
    )
