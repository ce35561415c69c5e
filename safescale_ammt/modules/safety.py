"""The safety layer: a constitution for whoever has a training loop of their own.

layer = ConstitutionalSafetyLayer({"max_bias": 0.05})
loss = loss + layer.penalty(logits, label, {"sex": sex})     every step
layer.update(logits, label, {"sex": sex})                    now and then, on rows
                                                             that are not trained on
layer.findings(prediction, label, {"sex": sex})              at the end
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import DataError
from safescale_ammt.judging.evidence import Evidence, judged_classes
from safescale_ammt.judging.findings import HOLDS, Finding
from safescale_ammt.judging.judge import judge
from safescale_ammt.model.network import predicted, probability
from safescale_ammt.modules.copies import as_columns
from safescale_ammt.modules.rows import as_array
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.task import codes_of, spelled
from safescale_ammt.training.constraints import Constraints, enforce, hard_rates
from safescale_ammt.training.multipliers import NuPI

Groups = Mapping[str, Any]
"""Group name -> values of the rows (n,): texts, numbers or tensors."""


class ConstitutionalSafetyLayer:
    """What a constitution says of predictions, and a penalty that steers by it.

    Args:
        safety_constraints: in short (`max_bias`, ...), or a constitution, its mapping
            or its file.
        classes: number of classes.
        config: gains of the multipliers; None is the default section.

    Attributes:
        left_out: sentences on groups and promises that are not enforced or judged.
    """

    def __init__(
        self,
        safety_constraints: Any,
        *,
        classes: int = 2,
        config: TrainingConfig | None = None,
    ) -> None:
        self._given, self._classes = safety_constraints, classes
        self._positive = 1 if classes == 2 else None
        self._config = config or TrainingConfig()
        self._values: dict[str, tuple[str, ...]] = {}
        self._constraints: Constraints | None = None
        self._controller = NuPI(torch.zeros(0), torch.zeros(0), 0.0)
        self.left_out: tuple[str, ...] = ()

    def findings(
        self, prediction: Any, label: Any, groups: Groups, *, score: Any = None
    ) -> list[Finding]:
        """Judges every promise on rows that were not trained on.

        Args:
            prediction: class codes (n,).
            label: class codes (n,).
            groups: of the rows.
            score: chance of the positive class (n,), for promises on scores.

        Raises:
            DataError: columns of other lengths.
        """
        answer, truth = as_array(prediction), as_array(label)
        same_length(len(truth), prediction=answer, **dict(groups))
        promises = Promises.read(self._given, tuple(groups))
        self.left_out = promises.left_out
        chance = answer.astype(float) if score is None else as_array(score)
        evidence = Evidence(
            truth.astype(np.int64),
            answer.astype(np.int64),
            chance.astype(float),
            {name: coded_group(values) for name, values in groups.items()},
            classes=self._classes,
            positive=self._positive,
        )
        law = promises.constitution
        sizes, alpha = law.groups, law.gate.alpha_k
        judged = () if promises.promises_nothing else law.principles
        return [judge(p, evidence, sizes, alpha) for p in judged]

    def violations(
        self, prediction: Any, label: Any, groups: Groups
    ) -> dict[str, float]:
        """Returns by promise how far its measured value is beyond its line."""
        return violations(self.findings(prediction, label, groups))

    def may_be_released(self, findings: Iterable[Finding]) -> bool:
        """Tells whether every hard promise is shown to hold, and none is left out."""
        return may_be_released(findings) and not self.left_out

    def penalty(self, logits: Tensor, label: Tensor, groups: Groups) -> Tensor:
        """Returns the multipliers' part of the Lagrangian, to be added to the loss.

        0 before the first update. A group without rows in the batch adds nothing.

        Args:
            logits: of a batch (B,), (B, 1) or (B, classes); gradients go through.
            label: class codes (B,).
            groups: of its rows.
        """
        out = as_columns(logits).float()
        total = 0.0 * out.sum()
        if self._constraints is None:
            return total
        weights = self._constraints.weights(self._controller.multipliers).tolist()
        inside = self._membership(label, groups).to(out.device)
        for cell, rows, weight in zip(
            self._constraints.cells, inside, weights, strict=True
        ):
            if weight and bool(rows.any()):
                total = total + weight * probability(out[rows], cell.outcome).mean()
        return total

    def update(self, logits: Tensor, label: Tensor, groups: Groups) -> dict[str, float]:
        """Moves the multipliers by hard rates on rows that are not trained on.

        Args:
            logits: of these rows.
            label: class codes.
            groups: of the rows; those of the first update are enforced.

        Returns:
            By promise: its gap - its line.
        """
        if self._constraints is None:
            self.begin(label, groups)
        assert self._constraints is not None
        inside = self._membership(label, groups)
        outcomes = torch.tensor([c.outcome for c in self._constraints.cells])
        answer = predicted(as_columns(logits).detach()).cpu()
        rates = hard_rates(answer[None], inside, outcomes)[0] / inside.sum(1)
        tau = self._constraints.tau()
        self._controller.step(self._constraints.differences(rates) - tau)
        lines = self._constraints.thresholds
        gaps = self._constraints.gaps(rates)
        return {name: gap - lines[name] for name, gap in gaps.items()}

    def begin(self, label: Tensor, groups: Groups) -> None:
        """Enforces the promises on the groups that these rows have, from multipliers 0.

        The first update does it; done by hand, rows say beforehand what is left out.
        """
        promises = Promises.read(self._given, tuple(groups))
        coded = {name: coded_group(values) for name, values in groups.items()}
        self._values = {name: values for name, (values, _) in coded.items()}
        self._constraints = enforce(
            promises.constitution,
            self._values,
            {name: torch.from_numpy(codes) for name, (_, codes) in coded.items()},
            label.detach().cpu(),
            judged_classes(self._classes, self._positive),
        )
        self.left_out = (*promises.left_out, *self._constraints.left_out)
        gains, config = self._constraints.gains(), self._config
        self._controller = NuPI(
            config.dual_ki * gains, config.dual_kp * gains, config.dual_nu
        )

    def _membership(self, label: Tensor, groups: Groups) -> Tensor:
        """Returns which rows count in which cell (cells, n)."""
        assert self._constraints is not None
        arrays = {name: as_array(values).ravel() for name, values in groups.items()}
        same_length(len(label), **arrays)
        codes = {n: codes_of(arrays[n], values) for n, values in self._values.items()}
        return self._constraints.membership(codes, label.detach().cpu())


def coded_group(values: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the values of a group, sorted, and the codes of the rows."""
    array = as_array(values).ravel()
    names = tuple(sorted({spelled(value) for value in array.tolist()}))
    return names, codes_of(array, names).numpy()


def same_length(rows: int, **columns: Any) -> None:
    """Refuses columns that have not a value for each row.

    Raises:
        DataError: one has more or less.
    """
    for name, column in columns.items():
        if len(column) != rows:
            raise DataError(
                f"There are {rows} labels, but {name} has {len(column)} values; every "
                "row needs one."
            )


def violations(findings: Iterable[Finding]) -> dict[str, float]:
    """Returns by promise how far its value is beyond its line; > 0 is broken."""
    found = {}
    for finding in findings:
        if (value := finding.known_value) is not None:
            beyond = value - finding.threshold
            found[finding.principle] = beyond if finding.op == "<=" else -beyond
    return found


def may_be_released(findings: Iterable[Finding]) -> bool:
    """Tells whether every hard promise is shown to hold."""
    return all(f.outcome == HOLDS for f in findings if f.tier != "soft")
