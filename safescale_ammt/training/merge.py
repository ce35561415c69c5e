"""Merge: k agents become one deployable model, and a feasible one.

Forms, in order of preference: the soup (mean of the agents' averaged weights), the
best agent by validation accuracy, the ensemble of their logits (k nets deployed as
one), and the soup with a fair head. The choice is made on one half of *select*: of
the forms that no hard principle refutes there, the first that no other beats by
more than two standard errors of the paired difference. The choice is then judged on
the other half, and if a hard principle is refuted there too, the best single agent
that is refuted on neither half takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import FAILS, Finding
from safescale_ammt.judging.judge import judge
from safescale_ammt.model.network import shapes, unflatten
from safescale_ammt.model.predictor import Deployable, Prediction
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.fair_head import fit
from safescale_ammt.training.sampling import stratified_folds
from safescale_ammt.training.trainer import Trained

Halves = tuple[NDArray[np.bool_], NDArray[np.bool_]]
HEAD_ROWS = ("constraint", "monitor")
"""Splits that a fair head is fitted on."""
_CLEARLY = 2.0
SOUP, BEST, ENSEMBLE, HEADED = "soup", "best", "ensemble", "soup+head"


@dataclass(frozen=True)
class Merged:
    """The model that is handed on.

    Attributes:
        model: the deployable form.
        twin: the unconstrained reference.
        choice: its name in `scores`.
        feasible: whether no hard principle is refuted on *select*.
        scores: form -> accuracy on the choosing half, and what is refuted there.
        recheck: ids of the hard principles refuted on the other half, by form.
    """

    model: Deployable
    twin: Deployable
    choice: str
    feasible: bool
    scores: dict[str, dict[str, Any]]
    recheck: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """Returns the event for the training log."""
        return {
            "event": "merge",
            "choice": self.choice,
            "members": self.model.members,
            "feasible": self.feasible,
            "scores": self.scores,
            "recheck": self.recheck,
        }


def merge(
    trained: Trained,
    encoded: EncodedDataset,
    constitution: Constitution,
    *,
    form: str = "auto",
    seed: int = 0,
) -> Merged:
    """Merges trained agents.

    Args:
        trained: agents and twin.
        encoded: the dataset as tensors; *validation* ranks single agents, *select*
            chooses and re-checks.
        constitution: the promises.
        form: `auto`, or the one form (`soup`, `best`, `ensemble`) to be used.
        seed: of the split of *select* into halves.
    """
    court = _Court(trained, encoded, constitution, seed)
    ranked = _by_validation(trained, encoded)
    forms = _forms(trained, encoded, ranked[0][1])
    if form != "auto":
        forms = {form: forms[form]}
    scores = {name: court.score(name, model) for name, model in forms.items()}
    choice = _choose(court, scores)
    recheck = {choice: court.refuted(choice, forms[choice], half=1)}
    model, feasible = forms[choice], not (scores[choice]["refuted"] or recheck[choice])
    if not feasible and form == "auto":
        for name, net in ranked:
            refuted = court.refuted(name, net, half=0)
            recheck[name] = refuted + court.refuted(name, net, half=1)
            if not recheck[name]:
                choice, model, feasible = name, net, True
                break
    return Merged(model, court.twin, choice, feasible, scores, recheck)


def deployable(
    trained: Trained, encoded: EncodedDataset, theta: Tensor, form: str
) -> Deployable:
    """Makes rows of weights (members, P) one deployable model."""
    d_in = encoded.d_in(trained.genome.encoding)
    layout = shapes(trained.genome, d_in, encoded.n_out)
    positive = encoded.outcomes[0] if len(encoded.outcomes) == 1 else None
    return Deployable(trained.genome, unflatten(theta, layout), form, positive)


def _by_validation(
    trained: Trained, encoded: EncodedDataset
) -> list[tuple[str, Deployable]]:
    """Returns the finite agents by name, best validation accuracy first."""
    rows = encoded.rows("validation", trained.genome.encoding)
    label = rows.y.numpy()
    found = []
    for i in trained.finite.nonzero()[:, 0].tolist():
        net = deployable(trained, encoded, trained.agents[i : i + 1], BEST)
        hits = int((net.answer(rows.x).prediction == label).sum())
        found.append((-hits, i, net))
    return [(f"agent {i}", net) for _, i, net in sorted(found, key=lambda f: f[:2])]


def _forms(
    trained: Trained, encoded: EncodedDataset, best: Deployable
) -> dict[str, Deployable]:
    """Returns the forms in order of preference."""
    agents = trained.agents[trained.finite]
    soup = deployable(trained, encoded, agents.mean(0, keepdim=True), SOUP)
    forms = {SOUP: soup, BEST: best}
    if len(agents) > 1:
        forms[ENSEMBLE] = deployable(trained, encoded, agents, ENSEMBLE)
    if encoded.n_out == 1:
        rows = encoded.joined(HEAD_ROWS, trained.genome.encoding)
        eta = torch.from_numpy(soup.answer(rows.x).score)
        head = fit(trained.constraints, rows, eta, trained.targets)
        if head is not None:
            forms[HEADED] = replace(soup, head=head)
    return forms


class _Court:
    """Judges forms on the two halves of *select*, each form once."""

    def __init__(
        self,
        trained: Trained,
        encoded: EncodedDataset,
        constitution: Constitution,
        seed: int,
    ) -> None:
        self._problem, self._constitution = encoded, constitution
        self._rows = encoded.rows("select", trained.genome.encoding)
        strata = self._rows.y
        for name in constitution.group_columns:
            codes = self._rows.groups[name]
            strata = strata * (int(codes.max()) + 1) + codes
        second = stratified_folds(strata, 2, seed).numpy() == 1
        self._halves: Halves = (~second, second)
        self.twin = deployable(trained, encoded, trained.twin, "twin")
        self._twin_answer = self.twin.answer(self._rows.x)
        self._answers: dict[str, Prediction] = {}

    def answer(self, name: str, model: Deployable) -> Prediction:
        """Returns a form's answers on all of *select*."""
        if name not in self._answers:
            self._answers[name] = model.answer(self._rows.x)
        return self._answers[name]

    def hits(self, name: str) -> NDArray[np.float64]:
        """Returns 1 for each right answer on the choosing half."""
        right = self._answers[name].prediction == self._rows.y.numpy()
        return np.asarray(right[self._halves[0]], dtype=np.float64)

    def score(self, name: str, model: Deployable) -> dict[str, Any]:
        """Returns accuracy, gaps and refuted principles on the choosing half."""
        self.answer(name, model)
        findings = self._findings(name, 0)
        return {
            "accuracy": float(self.hits(name).mean()),
            "values": {f.principle: f.value for f in findings},
            "refuted": _refuted(findings),
        }

    def refuted(self, name: str, model: Deployable, half: int) -> list[str]:
        """Returns the hard principles that a form is shown to break on a half."""
        self.answer(name, model)
        return _refuted(self._findings(name, half))

    def _findings(self, name: str, half: int) -> list[Finding]:
        rule = self._constitution
        evidence = self._evidence(self._answers[name], self._halves[half])
        return [
            judge(p, evidence, rule.groups, rule.gate.alpha) for p in rule.principles
        ]

    def _evidence(self, answer: Prediction, half: NDArray[np.bool_]) -> Evidence:
        schema = self._problem.schema
        return Evidence(
            label=self._rows.y.numpy()[half],
            prediction=answer.prediction[half],
            score=answer.score[half],
            groups={
                name: (schema.groups[name], codes.numpy()[half])
                for name, codes in self._rows.groups.items()
            },
            twin_prediction=self._twin_answer.prediction[half],
            twin_score=self._twin_answer.score[half],
            classes=len(schema.classes),
            positive=self.twin.positive,
        )


def _refuted(findings: Sequence[Finding]) -> list[str]:
    return [f.principle for f in findings if f.outcome == FAILS and f.tier != "soft"]


def _choose(court: _Court, scores: dict[str, dict[str, Any]]) -> str:
    """Returns the first feasible form that no feasible one beats clearly."""
    feasible = [name for name in scores if not scores[name]["refuted"]]
    names = feasible or sorted(scores, key=lambda n: len(scores[n]["refuted"]))[:1]
    return first_unbeaten(names, court.hits)


def first_unbeaten(
    names: Sequence[str], hits: Callable[[str], NDArray[np.float64]]
) -> str:
    """Returns the first name that no other beats by over two standard errors.

    Args:
        names: in order of preference.
        hits: 1 for each right answer of a name, on the same rows (n,).
    """
    for name in names:
        mine = hits(name)
        if not any(_beats(hits(other), mine) for other in names if other != name):
            return name
    return max(names, key=lambda n: hits(n).mean())


def _beats(theirs: NDArray[np.float64], ours: NDArray[np.float64]) -> bool:
    difference = theirs - ours
    error = float(difference.std()) / math.sqrt(len(difference))
    return float(difference.mean()) > _CLEARLY * error
