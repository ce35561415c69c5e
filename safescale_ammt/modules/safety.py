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
from safescale_ammt.errors import ConfigError, DataError
from safescale_ammt.judging.evidence import Evidence, judged_classes
from safescale_ammt.judging.findings import HOLDS, Finding
from safescale_ammt.judging.judge import judge
from safescale_ammt.model.answers import as_columns
from safescale_ammt.model.network import predicted, probability
from safescale_ammt.modules.columns import as_array, group_columns
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.task import codes_of, spelled
from safescale_ammt.modules.trial import require_options
from safescale_ammt.training.constraints import Constraints, hard_rates
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.multipliers import NuPI

Groups = Mapping[str, Any]
"""Group name -> values of the rows (n,): texts, numbers or tensors."""
NO_MODEL = "no model is at hand here that could be attacked"


class ConstitutionalSafetyLayer:
    """What a constitution says of predictions, and a penalty that steers by it.

    Args:
        safety_constraints: in short (`max_bias`, ...), or a constitution, its mapping
            or its file.
        classes: number of classes.
        config: gains of the multipliers; None is the default section.

    Raises:
        ConfigError: classes or a config that are none.
        ConstitutionError: promises that mean nothing.

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
        require_options(config, None, "auto", ())
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
            raise ConfigError(f"classes is {classes!r}, expected a whole number >= 2.")
        # What is wrong with them is said here, and not at the end of a training.
        self._promises = Promises.read(safety_constraints, (), unattackable=NO_MODEL)
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
            DataError: columns of other lengths, or codes that are of no class.
        """
        truth = class_codes(label, self._classes, "label")
        answer = class_codes(prediction, self._classes, "prediction")
        chance = answer.astype(float) if score is None else as_array(score)
        columns = columns_of_groups(groups)
        same_length(len(truth), [("prediction", answer), ("score", chance)])
        same_length(len(truth), columns.items())
        promises = Promises.read(self._given, tuple(columns), unattackable=NO_MODEL)
        self.left_out = promises.left_out
        evidence = Evidence(
            truth,
            answer,
            chance.astype(float).ravel(),
            {name: coded_group(values) for name, values in columns.items()},
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
        """Tells whether every hard promise is shown to hold, and none is left out.

        Without any finding it is only so where nothing is promised.
        """
        found, given = list(findings), self._promises
        empty = not found and (given.left_out or not given.promises_nothing)
        return may_be_released(found) and not self.left_out and not empty

    def penalty(self, logits: Tensor, label: Any, groups: Groups) -> Tensor:
        """Returns the multipliers' part of the Lagrangian, to be added to the loss.

        0 before the first update. A group without rows in the batch adds nothing.

        Args:
            logits: of a batch (B,), (B, 1) or (B, classes); gradients go through.
            label: class codes (B,).
            groups: of its rows; those that the first update did not see add nothing.

        Raises:
            DataError: columns of other lengths, or codes that are of no class.
        """
        out = self._columns(logits).float()
        total = 0.0 * out.sum()
        if self._constraints is None:
            return total
        weights = self._constraints.weights(self._controller.multipliers).tolist()
        inside = self._membership(out, label, groups).to(out.device)
        for cell, rows, weight in zip(
            self._constraints.cells, inside, weights, strict=True
        ):
            if weight and bool(rows.any()):
                total = total + weight * probability(out[rows], cell.outcome).mean()
        return total

    def update(self, logits: Any, label: Any, groups: Groups) -> dict[str, float]:
        """Moves the multipliers by hard rates on rows that are not trained on.

        Args:
            logits: of these rows.
            label: class codes.
            groups: of the rows; those of the first update are enforced.

        Returns:
            By promise: how far its metric is beyond its line.

        Raises:
            DataError: no rows, answers that are no finite numbers, columns of other
                lengths, or codes that are of no class.
        """
        out = self._columns(logits).detach()
        if not len(out) or not bool(out.isfinite().all()):
            raise DataError(
                f"The answers to {len(out)} rows are to move the multipliers; expected "
                "a row at least, and finite numbers."
            )
        if self._constraints is None:
            same_length(len(out), [("label", label)])
            self.begin(label, groups)
        assert self._constraints is not None
        inside = self._membership(out, label, groups)
        outcomes = torch.tensor([c.outcome for c in self._constraints.cells])
        answer = predicted(out).cpu()
        rates = hard_rates(answer[None], inside, outcomes)[0] / inside.sum(1)
        tau = self._constraints.tau()
        self._controller.step(self._constraints.differences(rates) - tau)
        return self._constraints.violations(rates)

    def begin(self, label: Any, groups: Groups) -> None:
        """Enforces the promises on the groups that these rows have, from multipliers 0.

        The first update does it; done by hand, rows say beforehand what is left out.
        """
        columns = columns_of_groups(groups)
        promises = Promises.read(self._given, tuple(columns), unattackable=NO_MODEL)
        truth = class_codes(label, self._classes, "label")
        same_length(len(truth), columns.items())
        coded = {name: coded_group(values) for name, values in columns.items()}
        self._values = {name: values for name, (values, _) in coded.items()}
        self._constraints = enforce(
            promises.constitution,
            self._values,
            {name: torch.from_numpy(codes) for name, (_, codes) in coded.items()},
            torch.from_numpy(truth),
            judged_classes(self._classes, self._positive),
        )
        self.left_out = (*promises.left_out, *self._constraints.left_out)
        gains, config = self._constraints.gains(), self._config
        self._controller = NuPI(
            config.dual_ki * gains, config.dual_kp * gains, config.dual_nu
        )

    def _columns(self, logits: Any) -> Tensor:
        """Returns logits as columns (B, n_out) that fit the classes."""
        out = as_columns(torch.as_tensor(logits))
        if out.shape[1] != self._classes and (out.shape[1], self._classes) != (1, 2):
            raise DataError(
                f"There are {out.shape[1]} logits a row, which do not fit "
                f"{self._classes} classes."
            )
        return out

    def _membership(self, out: Tensor, label: Any, groups: Groups) -> Tensor:
        """Returns which rows count in which cell (cells, n)."""
        assert self._constraints is not None
        arrays = columns_of_groups(groups)
        lost = ", ".join(map(repr, self._values.keys() - arrays.keys()))
        if lost:
            raise DataError(f"The first update had the group {lost}; give it always.")
        truth = class_codes(label, self._classes, "label")
        same_length(len(truth), [("logits", out), *arrays.items()])
        codes = {n: codes_of(arrays[n], values) for n, values in self._values.items()}
        return self._constraints.membership(codes, torch.from_numpy(truth))


def coded_group(values: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the values of a group, sorted, and the codes of the rows."""
    array = as_array(values).ravel()
    names = tuple(sorted({spelled(value) for value in array.tolist()}))
    return names, codes_of(array, names).numpy()


def columns_of_groups(groups: Any) -> dict[str, np.ndarray]:
    """Returns groups as columns by name.

    Raises:
        DataError: they are no mapping.
    """
    if not isinstance(groups, Mapping):
        raise DataError(
            f"groups is a {type(groups).__name__}, expected a mapping of the rows' "
            'values by name, as {"sex": sex}.'
        )
    return group_columns(groups, (), "groups")


def class_codes(values: Any, classes: int, name: str) -> np.ndarray:
    """Returns labels or predictions as codes of classes, int64 (n,).

    Raises:
        DataError: some are no codes, or there is not one a row.
    """
    codes = as_array(values)
    known = (
        np.isin(codes, range(classes)) if codes.dtype.kind in "biuf" else np.zeros(1)
    )
    if not codes.ndim or codes.size != len(codes) or not known.all():
        raise DataError(
            f"{name} of shape {codes.shape} has values that are no code of a class; "
            f"expected one a row, a whole number from 0 to {classes - 1}."
        )
    return codes.ravel().astype(np.int64)


def same_length(rows: int, columns: Iterable[tuple[str, Any]]) -> None:
    """Refuses columns that have not a value for each row.

    Raises:
        DataError: one has more or less.
    """
    for name, column in columns:
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
