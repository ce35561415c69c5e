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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.schema import Schema
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import FAILS, Finding
from safescale_ammt.judging.judge import judge
from safescale_ammt.model.network import shapes, unflatten
from safescale_ammt.model.predictor import Deployable, Prediction
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.fair_head import fit
from safescale_ammt.training.folds import strata_of, stratified_folds
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.trainer import Trained

HEAD_ROWS = ("constraint", "monitor")
"""Splits that a fair head is fitted on."""
SOUP, BEST, ENSEMBLE, HEADED = "soup", "best", "ensemble", "soup+head"
# Standard errors. A tie exceeds two of them about one time in forty.
_CLEARLY = 2.0


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

    def save(self, folder: Path, schema: Schema) -> None:
        """Writes the model, and the twin in a folder of its own."""
        self.model.save(folder, schema)
        self.twin.save(folder / TWIN.name, schema)

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
    selection = _Selection(trained, encoded, constitution, seed)
    agents, forms = _candidates(trained, encoded)
    if form != "auto":
        forms = {form: forms[form]}
    scores = {name: selection.score(name, model) for name, model in forms.items()}
    feasible_forms = [name for name in scores if not scores[name]["refuted"]]
    # If every form breaks a promise, the one that breaks the fewest is judged on.
    fewest = sorted(scores, key=lambda name: len(scores[name]["refuted"]))[:1]
    choice = first_unbeaten(feasible_forms or fewest, selection.hits)
    model = forms[choice]
    # The choice was made on the first half, which flatters what it chose.
    recheck = {choice: selection.refuted(choice, model, half=1)}
    feasible = not (scores[choice]["refuted"] or recheck[choice])
    if not feasible and form == "auto":
        for name, agent in agents:
            refuted = selection.refuted(name, agent, half=0)
            recheck[name] = refuted + selection.refuted(name, agent, half=1)
            if not recheck[name]:
                choice, model, feasible = name, agent, True
                break
    return Merged(model, selection.twin, choice, feasible, scores, recheck)


def deployable(
    trained: Trained, encoded: EncodedDataset, theta: Tensor, form: str
) -> Deployable:
    """Makes rows of weights (members, P) one deployable model."""
    d_in = encoded.d_in(trained.genome.encoding)
    layout = shapes(trained.genome, d_in, encoded.n_out)
    positive = encoded.outcomes[0] if len(encoded.outcomes) == 1 else None
    return Deployable(trained.genome, unflatten(theta, layout), form, positive)


def _candidates(
    trained: Trained, encoded: EncodedDataset
) -> tuple[list[tuple[str, Deployable]], dict[str, Deployable]]:
    """Returns finite agents by name, best first, and forms in order of preference."""
    rows = encoded.rows("validation", trained.genome.encoding)
    ranking = []
    for i in trained.finite.nonzero()[:, 0].tolist():
        agent = deployable(trained, encoded, trained.agents[i : i + 1], BEST)
        hits = int((agent.answer(rows.x).prediction == rows.y.numpy()).sum())
        ranking.append((-hits, i, agent))
    # Equal agents stay in the order of their numbers: the same choice in every run.
    ranking.sort(key=lambda entry: entry[:2])
    agents = trained.agents[trained.finite]
    soup = deployable(trained, encoded, agents.mean(0, keepdim=True), SOUP)
    forms = {SOUP: soup, BEST: ranking[0][2]}
    if len(agents) > 1:
        forms[ENSEMBLE] = deployable(trained, encoded, agents, ENSEMBLE)
    if encoded.n_out == 1:
        # *select* is left out: a head that was fitted there would be judged on the
        # rows that it was made for.
        rows = encoded.joined(HEAD_ROWS, trained.genome.encoding)
        eta = torch.from_numpy(soup.answer(rows.x).score)
        head = fit(trained.constraints, rows, eta, trained.targets)
        if head is not None:
            forms[HEADED] = replace(soup, head=head)
    return [(f"agent {i}", agent) for _, i, agent in ranking], forms


class _Selection:
    """*select* in two halves: forms are scored on one and re-checked on the other."""

    def __init__(
        self,
        trained: Trained,
        encoded: EncodedDataset,
        constitution: Constitution,
        seed: int,
    ) -> None:
        self._constitution = constitution
        self._schema = encoded.schema
        self._rows = encoded.rows("select", trained.genome.encoding)
        # Halves of equal strata: a small group's positives are in both.
        strata = strata_of(self._rows, constitution)
        second = stratified_folds(strata, 2, seed).numpy() == 1
        self._halves = (~second, second)
        self.twin = deployable(trained, encoded, trained.twin, TWIN.name)
        self._twin_answer = self.twin.answer(self._rows.x)
        # Each form answers once: it is judged on both halves and compared with others.
        self._answers: dict[str, Prediction] = {}

    def score(self, name: str, model: Deployable) -> dict[str, Any]:
        """Returns accuracy, gaps and refuted principles on the choosing half."""
        findings = self._findings(name, model, 0)
        return {
            "accuracy": float(self.hits(name).mean()),
            "values": {f.principle: f.value for f in findings},
            "refuted": _refuted(findings),
        }

    def hits(self, name: str) -> NDArray[np.float64]:
        """Returns 1 for each right answer of a scored form on the choosing half."""
        right = self._answers[name].prediction == self._rows.y.numpy()
        return np.asarray(right[self._halves[0]], dtype=np.float64)

    def refuted(self, name: str, model: Deployable, half: int) -> list[str]:
        """Returns the hard principles that a form is shown to break on a half."""
        return _refuted(self._findings(name, model, half))

    def _findings(self, name: str, model: Deployable, half: int) -> list[Finding]:
        if name not in self._answers:
            self._answers[name] = model.answer(self._rows.x)
        answer, rows = self._answers[name], self._halves[half]
        evidence = Evidence(
            label=self._rows.y.numpy()[rows],
            prediction=answer.prediction[rows],
            score=answer.score[rows],
            groups={
                column: (self._schema.groups[column], codes.numpy()[rows])
                for column, codes in self._rows.groups.items()
            },
            twin_prediction=self._twin_answer.prediction[rows],
            twin_score=self._twin_answer.score[rows],
            classes=len(self._schema.classes),
            positive=self.twin.positive,
        )
        sizes, alpha = self._constitution.groups, self._constitution.gate.alpha
        return [judge(p, evidence, sizes, alpha) for p in self._constitution.principles]


def _refuted(findings: Sequence[Finding]) -> list[str]:
    return [f.principle for f in findings if f.outcome == FAILS and f.tier != "soft"]


def first_unbeaten(
    names: Sequence[str], hits: Callable[[str], NDArray[np.float64]]
) -> str:
    """Returns the first name that no other beats by over two standard errors.

    Args:
        names: in order of preference.
        hits: 1 for each right answer of a name, on the same rows (n,).
    """
    for name in names:
        for other in names:
            # Paired: the rows that both get right or wrong add no noise.
            difference = hits(other) - hits(name)
            error = float(difference.std()) / math.sqrt(len(difference))
            if float(difference.mean()) > _CLEARLY * error:
                break
        else:
            return name
    return max(names, key=lambda name: hits(name).mean())
