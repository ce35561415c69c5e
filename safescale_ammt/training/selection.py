"""Selection: the forms of a model, held against the constitution on *select*.

The split is cut into two halves: a form is scored on the first and re-checked on the
second. Where the section asks for a threshold, a form gets its own on the first half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from safescale_ammt.config.sections import Threshold
from safescale_ammt.constitution.constitution import Constitution, GroupRule
from safescale_ammt.constitution.principles import Principle
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import FAILS, HOLDS, Finding
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.usefulness import doubts
from safescale_ammt.model.predictor import Prediction
from safescale_ammt.training.folds import strata_of, stratified_folds
from safescale_ammt.training.nets import AttackedNets, ModelForm, Nets, Rows
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.threshold import BALANCED, ranked_thresholds, right_weights

UNSEEN = ("validation", "monitor", "select")
"""Splits that no model is fitted on, but for those in its pool."""
LIKELY = 0.25
"""Level at which a promise must hold there for a point to be offered in its place."""
THRESHOLDS = 16
"""Other thresholds of a form that are tried where the choice is of no use."""


@runtime_checkable
class JudgedNets(AttackedNets, Protocol):
    """Nets whose forms are judged by attacks."""

    def judge_attacked(
        self,
        principle: Principle,
        model: Any,
        rows: Any,
        sizes: GroupRule,
        alpha: float,
    ) -> Finding:
        """Judges a promise of robust accuracy by an attack on a form.

        Args:
            principle: the promise.
            model: the form.
            rows: that it was not fitted on.
            sizes: least sizes of groups that are judged.
            alpha: error level.
        """


class Selection:
    """*select* in two halves: forms are scored on one and re-checked on the other.

    Args:
        twin: the unconstrained reference, at one half.
        nets: what was trained, and its dataset.
        constitution: the promises.
        seed: of the split into halves.
        rule: how thresholds are chosen; empty: one half.

    Attributes:
        twin: the reference at its own threshold.
    """

    def __init__(
        self,
        twin: ModelForm,
        nets: Nets,
        constitution: Constitution,
        seed: int,
        rule: Threshold,
    ) -> None:
        self._constitution, self._rule = constitution, rule
        self._nets = nets
        self._rows = nets.rows("select")
        unseen = [split for split in UNSEEN if split not in nets.pool]
        self._unseen = nets.rows(*unseen).part(nets.most_rows)
        # Halves of equal strata: a small group's positives are in both.
        strata = strata_of(self._rows, constitution)
        second = stratified_folds(strata, 2, seed, self._rows.entity).numpy() == 1
        self._halves = (~second, second)
        # Each form answers once: it is judged on both halves and compared with others.
        self._answers: dict[str, Prediction] = {}
        self.twin = twin.at(self._thresholds(TWIN.name, twin)[0])
        self._twin_answer = self._rows.answers(self.twin)

    def settle(self, name: str, model: ModelForm) -> ModelForm:
        """Gives a form its threshold: the best that nothing refutes, or the best."""
        at, *others = self._thresholds(name, model)
        if not self._rule:
            return model
        for threshold in (at, *others):
            self._decide(name, threshold)
            if not self.refuted(name, model, half=0):
                return model.at(threshold)
        self._decide(name, at)
        return model.at(at)

    def at_other_thresholds(
        self, forms: Mapping[str, ModelForm]
    ) -> Iterator[tuple[str, ModelForm]]:
        """Yields the forms at thresholds that balance the classes, the best first."""
        # The section's own rule has looked at them already; three classes have none.
        if self._rule or len(self._nets.classes) > 2:
            return
        half = self._halves[0]
        positive = self._rows.y.numpy()[half] == 1
        for name, model in forms.items():
            score = self._answer(name, model).score[half]
            ranked = ranked_thresholds(score, positive, BALANCED)
            for at in ranked[:THRESHOLDS]:
                yield f"{name} at {at:.4f}", model.at(at)

    def doubts(self, name: str, model: ModelForm, half: int = 0) -> tuple[str, ...]:
        """Says what likens a form to a constant answer on a half."""
        rows = self._evidence(name, model, half)
        return doubts(rows, self._constitution, self._nets.classes)

    def useful(
        self, points: Iterable[tuple[str, ModelForm]]
    ) -> Iterator[tuple[str, ModelForm]]:
        """Yields the points with skill that are likely to keep every hard promise.

        Skill must show on both halves: of many points one shows it on one by chance.
        That nothing is refuted says little where rows are few, so that the promises
        must hold at the level `LIKELY` on all rows that no weight has seen.
        """
        sizes, twin = GroupRule(1, 1), self._unseen.answers(self.twin)
        for name, point in points:
            model = self.settle(name, point)
            if any(self.doubts(name, model, half) for half in (0, 1)):
                continue
            answer = self._unseen.answers(model)
            rows = self._as_evidence(self._unseen, answer, twin)
            # No attack shows that a promise holds: there, none may refute it.
            promised = [
                p for p in self._constitution.hard if not p.constraint.of_changed_rows
            ]
            if all(
                judge(p, rows, sizes, LIKELY).outcome == HOLDS for p in promised
            ) and not _refuted(self._attacked(model, self._unseen)):
                yield name, model

    def score(self, name: str, model: ModelForm) -> dict[str, Any]:
        """Returns accuracy, gaps and refuted principles on the choosing half."""
        findings = self._findings(name, model, 0)
        answers = self._evidence(name, model, 0)
        return {
            "accuracy": float((answers.prediction == answers.label).mean()),
            "values": {f.principle: f.value for f in findings},
            "refuted": _refuted(findings),
        }

    def hits(self, name: str) -> NDArray[np.float64]:
        """Returns what each right answer of a scored form is worth, else 0.

        On the choosing half; 1, unless a rule of the threshold says otherwise.
        """
        label, half = self._rows.y.numpy(), self._halves[0]
        right = (self._answers[name].prediction == label)[half]
        return np.where(right, right_weights(label[half] == 1, self._rule), 0.0)

    def refuted(self, name: str, model: ModelForm, half: int) -> list[str]:
        """Returns the hard principles that a form is shown to break on a half."""
        return _refuted(self._findings(name, model, half))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by code."""
        return self._nets.classes

    def evidence_of(self, name: str, model: ModelForm) -> Evidence:
        """Returns what a form answers to all rows of *select*, not judged."""
        answer = self._twin_answer
        if name != TWIN.name:
            answer = self._answer(name, model)
        return self._as_evidence(self._rows, answer, self._twin_answer)

    def _thresholds(self, name: str, model: ModelForm) -> list[float]:
        """Returns a form's thresholds, the best on the choosing half first."""
        if not self._rule:
            return [model.threshold]
        score, half = self._answer(name, model).score, self._halves[0]
        positive = self._rows.y.numpy() == 1
        return ranked_thresholds(score[half], positive[half], self._rule)

    def _decide(self, name: str, threshold: float) -> None:
        """Lets a form that has answered decide by another threshold."""
        score = self._answers[name].score
        self._answers[name] = Prediction(score, (score >= threshold).astype(np.int64))

    def _answer(self, name: str, model: ModelForm) -> Prediction:
        if name not in self._answers:
            self._answers[name] = self._rows.answers(model)
        return self._answers[name]

    def _findings(self, name: str, model: ModelForm, half: int) -> list[Finding]:
        evidence = self._evidence(name, model, half)
        law = self._constitution
        found = [
            judge(p, evidence, law.groups, law.gate.alpha)
            for p in law.principles
            # Changes of columns or pixels are the evaluator's alone.
            if not p.constraint.of_changed_rows
        ]
        rows = self._rows.where(torch.from_numpy(self._halves[half]))
        return found + self._attacked(model, rows)

    def _attacked(self, model: ModelForm, rows: Rows) -> list[Finding]:
        """Judges the promises of robust accuracy, by attacks on a form."""
        law = self._constitution
        if not law.threats:
            return []
        assert isinstance(self._nets, JudgedNets)
        attacked = [p for p in law.principles if p.constraint.threat is not None]
        return [
            self._nets.judge_attacked(p, model, rows, law.groups, law.gate.alpha)
            for p in attacked
        ]

    def _evidence(self, name: str, model: ModelForm, half: int) -> Evidence:
        rows = self._halves[half]
        answers = (self._answer(name, model), self._twin_answer)
        model_answer, twin = (Prediction(*(a[rows] for a in of)) for of in answers)
        part = self._rows.where(torch.from_numpy(rows))
        return self._as_evidence(part, model_answer, twin)

    def _as_evidence(
        self, rows: Rows, answer: Prediction, twin: Prediction
    ) -> Evidence:
        return Evidence(
            label=rows.y.numpy(),
            prediction=answer.prediction,
            score=answer.score,
            groups={
                column: (self._nets.groups[column], codes.numpy())
                for column, codes in rows.groups.items()
            },
            twin_prediction=twin.prediction,
            twin_score=twin.score,
            classes=len(self._nets.classes),
            positive=self.twin.positive,
        )


def _refuted(findings: Sequence[Finding]) -> list[str]:
    return [f.principle for f in findings if f.outcome == FAILS and f.tier != "soft"]
