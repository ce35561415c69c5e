"""Rescoring: model and twin answer rows, and answer them again for whoever doubts.

Evidence is what a verdict rests on, and whoever can write a bundle can make it up. Who
has the sealed rows lets the model of the bundle answer them: labels, groups,
predictions and scores must be those of the evidence, row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.dataset import Holdout, Split
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.canonical import read_json
from safescale_ammt.judging.assembly import evidence_of
from safescale_ammt.judging.evidence import ROW_BYTES, Evidence
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.logits import EXACT
from safescale_ammt.model.predictor import DECISION, Predictor

SCORE_TOLERANCE = 1e-6
"""Scores of the first definition may differ by this between processors and libraries: a
step of a logit's grid does."""


def answered(model: Path, schema: Schema, split: Split) -> Evidence:
    """Lets a model and its twin answer the rows of a split.

    Args:
        model: a verified model artifact.
        schema: of the rows.
        split: the rows.
    """
    score, prediction = Predictor.load(model).predict_table(split.features)
    twin = Predictor.load(model / "twin")
    twin_score, twin_prediction = twin.predict_table(split.features)
    groups = {
        name: (schema.groups[name], codes) for name, codes in split.groups.items()
    }
    return Evidence(
        label=split.label,
        prediction=prediction,
        score=score,
        groups=groups,
        twin_prediction=twin_prediction,
        twin_score=twin_score,
        classes=len(schema.classes),
        positive=schema.classes.index(schema.positive) if schema.positive else None,
    )


def tolerance(model: Path) -> float:
    """Returns how far apart two scores of a row may be that a model gave.

    Args:
        model: a verified model artifact, with its twin.
    """
    rules = (read_json(folder / DECISION) for folder in (model, model / "twin"))
    exact = all(rule["schema"] == EXACT for rule in rules)
    return 0.0 if exact else SCORE_TOLERANCE


def rescore(bundle: Path, verdict: Verdict, holdout: Path) -> tuple[str, ...]:
    """Compares the evidence of a verified bundle with the model's answers.

    Args:
        bundle: the bundle's folder.
        verdict: its verdict.
        holdout: the holdout artifact that the verdict names, whole.

    Returns:
        What holds, one sentence each.

    Raises:
        InputError: this is no holdout artifact.
        IntegrityError: another holdout, or every way in which the evidence departs,
            with the number of rows and nothing of any row.
    """
    sealed = Holdout.load(holdout)
    if sealed.identity != verdict.holdout:
        raise IntegrityError(
            f"The verdict was made on holdout {verdict.holdout}, --data is "
            f"{sealed.identity}; give the sealed rows that it names."
        )
    if sealed.schema.digest != Schema.load(bundle / "model").digest:
        raise IntegrityError(
            f"The schema of holdout {sealed.identity} is not that of the model."
        )
    stated, keys = evidence_of(bundle / "verdict", verdict)
    own = answered(bundle / "model", sealed.schema, sealed.split)
    near = tolerance(bundle / "model")
    if faults := [*departures(stated, keys, own, sealed.split.rows, near)]:
        raise IntegrityError(
            f"The evidence departs from what {len(own.label):,} sealed rows give: "
            f"{'; '.join(faults)}."
        )
    close = f"within {near:g}" if near else "to the last bit"
    return (
        f"The sealed rows of holdout {sealed.identity} are those of the evidence.",
        f"Model and twin give them the answers of the evidence, scores {close}.",
    )


def departures(
    stated: Evidence,
    keys: NDArray[np.uint8],
    own: Evidence,
    rows: NDArray[np.void],
    tolerance: float,
) -> Iterator[str]:
    """Yields each way in which evidence departs from answers, with a count of rows.

    Args:
        stated: the evidence, n rows.
        keys: their hashes, (n, 16).
        own: the same of the sealed rows, m rows.
        rows: their hashes, V16 (m,).
        tolerance: how far apart two scores of a row may be.
    """
    kind = f"S{ROW_BYTES}"
    left = np.ascontiguousarray(keys).reshape(-1).view(kind)
    right = np.ascontiguousarray(rows).view(kind)
    # By their keys, equal ones as they lie: the order of a table is no fault.
    orders = [np.argsort(side, kind="stable") for side in (left, right)]
    present, known = (Counter(side.tolist()) for side in (left, right))
    if present != known:
        for rest, where in (
            (known - present, "sealed rows are not in the evidence"),
            (present - known, "rows of the evidence are no sealed rows"),
        ):
            if rest:
                yield f"{rest.total():,} {where}"
        return
    for name, a, b in compared(stated, own):
        near = tolerance if name.startswith("score") else 0
        # Written so that what is no number departs too.
        if wrong := int((~(np.abs(a[orders[0]] - b[orders[1]]) <= near)).sum()):
            yield f"{name} differs in {wrong:,} rows"


def compared(
    stated: Evidence, own: Evidence
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Yields the name of each column of evidence with its two sides."""
    yield "label", stated.label, own.label
    for name, (_, codes) in own.groups.items():
        yield f"group {name!r}", stated.groups[name][1], codes
    for who, prefix in (("model", ""), ("twin", "twin_")):
        for what in ("prediction", "score"):
            a, b = (getattr(side, prefix + what) for side in (stated, own))
            yield f"{what} of the {who}", a, b
