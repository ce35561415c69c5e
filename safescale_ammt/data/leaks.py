"""Leaks: columns that tell the label by themselves.

A copy of the label, a code that was filled in afterwards, a field that is empty for
one outcome: a model learns it, every figure is splendid, and the answer will not be
there when it is needed. Each input is judged alone, on development rows, by the best
AUC of

    its values    rates of the classes by value (missing is one), cross-fitted
    its bins      the same for at most 256 quantile bins of a number
    its order     of a number: Mann and Whitney's U, in either direction
    its parts     of a date: year, month, weekday and hour, each like a column

and the pattern of gaps of all inputs together by the first. Cross-fitted: a row's value
is scored by the rates of the other splits, and by the overall rate where they do not
have it. So an identifier tells nothing, however unique it is; and as equal rows count
as one split here and rows of one entity share one, they do not tell each other's
label. With a share u of such rows a true copy has the AUC 1 - u^2 / 2.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.data.associations import Codes, Floats, binned, joint, levels
from safescale_ammt.data.audit_warnings import AuditWarning, named
from safescale_ammt.data.dataset import Split
from safescale_ammt.data.feature_codes import date_parts
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import DataError

LEAK_AUC = 0.999
"""From here on a column stops the run unless `data.allow_leak` names it."""
SUSPECT_AUC = 0.99
"""From here on people are told of it."""
FALSE_ALARMS = 0.05
"""Chance that any of the columns looks like a leak without telling a thing."""
BINS, ROWS_IN_A_BIN = 256, 20
MOST_LEVELS = 2**15
"""Values of two classes that are scored one by one; rarer ones share a rate."""
# Values of a column that may well say who a row is about.
_MANY = 100


@dataclass(frozen=True)
class Leak:
    """How well columns tell the label.

    Attributes:
        columns: one input, or those whose gaps tell it together.
        auc: mean over the classes, each against the rest (of two: the one AUC).
        best: AUC of the class that is told best.
        repeated: over a hundred values, and twice as many rows at least: it may well
            say who a row is about.
    """

    columns: tuple[str, ...]
    auc: float
    best: float
    repeated: bool = False

    @property
    def suspect(self) -> bool:
        """Says whether people are told of it."""
        return self.auc >= SUSPECT_AUC or self.best >= LEAK_AUC

    def stops(self, allowed: Collection[str]) -> bool:
        """Says whether the run may not go on with it."""
        return self.auc >= LEAK_AUC and not set(self.columns) <= set(allowed)

    def __str__(self) -> str:
        """Returns who tells the label, and how well."""
        # Rounded down, or a suspect reads like a leak.
        told = self.auc if self.auc >= SUSPECT_AUC else self.best
        auc = f"(AUC {math.floor(told * 1000) / 1000:.3f})"
        if len(self.columns) == 1:
            return f"{self.columns[0]!r} {auc}"
        return f"the gaps of {named(self.columns)} together {auc}"


def cross_fitted_aucs(codes: Codes, label: Codes, folds: Codes, classes: int) -> Floats:
    """Returns the AUC of each class against the rest, scored by rates of other folds.

    Args:
        codes: value (n,) of each row.
        label: class code (n,).
        folds: fold (n,) of each row.
        classes: number of classes.
    """
    shape = (int(folds.max()) + 1, int(codes.max()) + 1, classes)
    cell = (folds * shape[1] + codes) * classes + label
    here = np.bincount(cell, minlength=math.prod(shape)).reshape(shape)
    others = here.sum(axis=0) - here
    trials = others.sum(axis=2, keepdims=True)
    # The overall rate is one number for all rows, and so tells nothing of any.
    overall = np.bincount(label, minlength=classes) / len(label)
    rate = np.where(trials > 0, others / np.maximum(trials, 1), overall)
    aucs = []
    for code in range(classes):
        _, rank = np.unique(rate[:, :, code].ravel(), return_inverse=True)
        hits = here[:, :, code].ravel()
        misses = here.sum(axis=2).ravel() - hits
        positive = np.bincount(rank, hits)
        negative = np.bincount(rank, misses)
        # P(score of a positive > score of a negative), a tie counting one half.
        below = np.cumsum(negative) - negative / 2
        pairs = positive.sum() * negative.sum()
        aucs.append((positive * below).sum() / pairs if pairs else 0.5)
    return np.array(aucs)


def order_aucs(x: Floats, label: Codes, classes: int) -> Floats:
    """Returns the AUC of each class by the order of numbers (NaN = missing).

    Either direction, missing values at the end that tells more.
    """
    n = np.bincount(label, minlength=classes)
    best = np.full(classes, 0.5)
    for end in (-np.inf, np.inf)[: 1 + bool(np.isnan(x).any())]:
        filled = np.where(np.isnan(x), end, x)
        _, place, ties = np.unique(filled, return_inverse=True, return_counts=True)
        # Equal numbers share the mean of their ranks.
        ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
        u = np.bincount(label, ranks, minlength=classes) - n * (n + 1) / 2
        pairs = n * (len(x) - n)
        auc = np.where(pairs > 0, u / np.maximum(pairs, 1), 0.5)
        best = np.maximum(best, np.maximum(auc, 1 - auc))
    return best


def label_tellers(schema: Schema, rows: Split, folds: Codes) -> list[Leak]:
    """Judges every input by itself, then the gaps of all of them together.

    Args:
        schema: inputs and classes.
        rows: development rows.
        folds: split (n,) of each row; equal rows count as one's.

    Returns:
        One entry per input, in the schema's order, and one for a pattern of gaps
        that tells the label where no input alone does.
    """
    classes = len(schema.classes)
    # A column without information separates n rows of which k are of a class with
    # probability 2 / C(n, k): in a tiny table a perfect one says nothing.
    fewest = int(np.bincount(rows.label, minlength=classes).min())
    chance = 2 * len(schema.names) / math.comb(len(rows), min(fewest, 20))
    if chance > FALSE_ALARMS:
        return []
    found = [input_leak(name, rows, folds, classes) for name in schema.names]
    alone = {leak.columns[0] for leak in found if leak.auc >= LEAK_AUC}
    together = gaps_together(rows, folds, classes, alone)
    return [*found, together] if together else found


def input_leak(name: str, rows: Split, folds: Codes, classes: int) -> Leak:
    """Judges one input by its values, a number by bins and order, a date by parts."""
    column = rows.features[name]
    values = int(pc.count_distinct(column).as_py())
    columns = [column]
    if pa.types.is_timestamp(column.type):
        # The model's inputs: each day of the week may have been another outcome's.
        columns = list(date_parts(column).values())
    aucs = np.max([told_by(c, rows.label, folds, classes) for c in columns], axis=0)
    repeated = _MANY < values <= len(rows) / 2
    return Leak((name,), float(aucs.mean()), float(aucs.max()), repeated)


def told_by(
    column: pa.ChunkedArray, label: Codes, folds: Codes, classes: int
) -> Floats:
    """Returns the AUC of each class by one column of numbers or texts."""
    aucs, values = np.full(classes, 0.5), int(pc.count_distinct(column).as_py())
    number = pa.types.is_floating(column.type)
    # Of a measurement hardly any value comes twice; its bins know its gaps too.
    if not number or values <= len(label) / 2:
        codes = levels(column, 2 * MOST_LEVELS // classes)
        aucs = cross_fitted_aucs(codes, label, folds, classes)
    if number:
        bins = binned(column, min(BINS, max(2, len(label) // ROWS_IN_A_BIN)))
        by_bin = cross_fitted_aucs(bins, label, folds, classes)
        by_order = order_aucs(column.to_numpy(), label, classes)
        aucs = np.maximum(aucs, np.maximum(by_bin, by_order))
    return aucs


def gaps_together(
    rows: Split, folds: Codes, classes: int, known: Collection[str] = ()
) -> Leak | None:
    """Finds few columns whose gaps tell the label together, if any do.

    Args:
        rows: development rows.
        folds: split (n,) of each row.
        classes: number of classes.
        known: columns that are left out, as they tell it alone.
    """
    gaps = {
        name: pc.is_null(rows.features[name]).to_numpy().astype(np.int64)
        for name in rows.features.column_names
        if name not in known and 0 < rows.features[name].null_count < len(rows)
    }

    def aucs(names: Sequence[str]) -> Floats:
        pattern, _ = joint([gaps[name] for name in names])
        return cross_fitted_aucs(pattern, rows.label, folds, classes)

    if len(names := list(gaps)) < 2 or aucs(names).mean() < LEAK_AUC:
        return None
    # What is left tells the label and cannot be made smaller.
    for name in gaps:
        rest = [other for other in names if other != name]
        if rest and aucs(rest).mean() >= LEAK_AUC:
            names = rest
    found = aucs(names)
    return Leak(tuple(names), float(found.mean()), float(found.max()))


def leak_warnings(leaks: Iterable[Leak]) -> list[AuditWarning]:
    """Puts every suspect into a sentence, whether the config allows it or not."""
    found = []
    for leak in filter(lambda leak: leak.suspect, leaks):
        what = "One class of the label is" if leak.auc < SUSPECT_AUC else "The label is"
        nearly = "nearly " if SUSPECT_AUC <= leak.auc < LEAK_AUC else ""
        sentence = f"{what} {nearly}told by {leak} alone: is it known before the label?"
        found.append(AuditWarning("leak", leak.columns, leak.auc, sentence))
    return found


def refuse_leaks(
    leaks: Iterable[Leak], allowed: Collection[str], entity: str, rows: int
) -> None:
    """Stops before anything is spent on a label that is among the inputs.

    Args:
        leaks: how well inputs tell the label.
        allowed: inputs that may.
        entity: column that says who a row is about; "" = none.
        rows: number of development rows, for the sentence.

    Raises:
        DataError: inputs that tell it, and that are not allowed to.
    """
    found = [leak for leak in leaks if leak.stops(allowed)]
    if not found:
        return
    advice = "leave it out (data.drop)"
    if not entity and any(leak.repeated for leak in found):
        advice += ", or name it as data.entity if it says who a row is about"
    raise DataError(
        f"On {rows} development rows the label is told by "
        f"{', by '.join(map(str, found))} alone, as by a copy of it or by what was "
        f"written down afterwards; {advice}, or name it in data.allow_leak if it is "
        "known before the label is."
    )
