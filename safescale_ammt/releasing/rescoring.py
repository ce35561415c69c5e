"""Rescoring: model and twin answer rows, and answer them again for whoever doubts.

Evidence is what a verdict rests on, and whoever can write a bundle can make it up. Who
has the sealed rows lets the model of the bundle answer them: labels, groups,
predictions and scores must be those of the evidence, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.holdout import Holdout, StoredRows
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.unseen import UnseenTally
from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.canonical import read_json
from safescale_ammt.judging.assembly import evidence_of
from safescale_ammt.judging.evidence import (
    ROW_BYTES,
    Evidence,
    code_type,
    filled,
    parts_of,
)
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.logits import EXACT
from safescale_ammt.model.predictor import DECISION, Predictor
from safescale_ammt.releasing.attacking import under_attack
from safescale_ammt.releasing.image_rescoring import (
    attacked_again,
    battery_departures,
    repeatable,
    seed_of,
)
from safescale_ammt.releasing.slice_rows import rows_inside

Orders = tuple[NDArray[np.int64], NDArray[np.int64]]
Times = tuple[NDArray[np.bytes_], NDArray[np.int64]]
"""Distinct hashes, sorted, and how often each occurs."""
SCORE_TOLERANCE = 1e-6
"""Scores of the first definition may differ by this between processors and libraries: a
step of a logit's grid does."""


def answered(model: Path, stored: StoredRows, tally: UnseenTally) -> Evidence:
    """Lets a model and its twin answer rows, batch by batch.

    Args:
        model: a verified model artifact.
        stored: the rows.
        tally: counts the values that the model does not know.
    """
    schema, rows, at = stored.schema, len(stored), 0
    code = code_type(len(schema.classes))
    pair = (Predictor.load(model), Predictor.load(model / "twin"))
    answers = [(np.empty(rows), np.empty(rows, code)) for _ in pair]
    label = np.empty(rows, code)
    groups = {
        name: (values, np.empty(rows, code_type(len(values))))
        for name, values in schema.groups.items()
    }
    for batch in stored.batches():
        own = slice(at, at := at + len(batch))
        tally.add(batch.features)
        label = filled(label, own, batch.label)
        for name, codes in batch.groups.items():
            groups[name][1][own] = codes
        for (score, prediction), predictor in zip(answers, pair, strict=True):
            score[own], prediction[own] = predictor.predict_table(batch.features)
    (score, prediction), (twin_score, twin_prediction) = answers
    return Evidence(
        label=label,
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


def judged_rows(bundle: Path, named: str, holdout: Path) -> Holdout:
    """Opens the sealed rows on which a bundle's model was judged.

    Args:
        bundle: the bundle's folder.
        named: identity of the holdout that its verdict or answer names.
        holdout: the holdout artifact, whole.

    Raises:
        InputError: this is no holdout artifact.
        IntegrityError: another holdout, or one of another schema.
    """
    sealed = Holdout.load(holdout)
    if sealed.identity != named:
        raise IntegrityError(
            f"The verdict was made on holdout {named}, --data is "
            f"{sealed.identity}; give the sealed rows that it names."
        )
    if sealed.schema.digest != Schema.load(bundle / "model").digest:
        raise IntegrityError(
            f"The schema of holdout {sealed.identity} is not that of the model."
        )
    return sealed


def rescore(
    bundle: Path, verdict: Verdict, holdout: Path, *, judged: Path | None = None
) -> tuple[str, ...]:
    """Compares the evidence of a verified bundle with the model's answers.

    Args:
        bundle: the bundle's folder.
        verdict: its verdict, or the one behind its answer.
        holdout: the holdout artifact that the verdict names, whole.
        judged: the verdict artifact, where that is the auditor's; None = the bundle's.

    Returns:
        What holds, one sentence each.

    Raises:
        InputError: this is no holdout artifact.
        IntegrityError: another holdout, or every way in which the evidence departs,
            with the number of rows and nothing of any row.
    """
    sealed = judged_rows(bundle, verdict.holdout, holdout)
    constitution = bundle / "verdict" / "constitution.json"
    stated, keys = evidence_of(judged or bundle / "verdict", verdict)
    # Before the rows are answered: both sides' hashes are held without the answers.
    orders, faults = orders_of(keys, sealed.stored.hashes())
    del keys
    if not faults:
        tally = UnseenTally(sealed.schema)
        own = answered(bundle / "model", sealed.stored, tally)
        rule = Constitution.from_dict(read_json(constitution))
        threats = repeatable(rule)
        place = bundle / "model", sealed.stored
        own = under_attack(*place, own, threats, sealed.identity, seed=seed_of(stated))
        # Which rows a slice has, its conditions say.
        given = verdict.slices.confirmed if verdict.slices else ()
        inside = rows_inside(sealed.stored, [found.proposal for found in given])
        own = replace(own, slices=inside)
        faults = [*departures(stated, own, orders, tolerance(bundle / "model"))]
        faults += battery_departures(stated, own, orders)
    if faults:
        raise IntegrityError(
            f"The evidence departs from what {len(sealed.stored):,} sealed rows give: "
            f"{'; '.join(faults)}."
        )
    near = tolerance(bundle / "model")
    close = f"within {near:g}" if near else "to the last bit"
    return (
        f"The sealed rows of holdout {sealed.identity} are those of the evidence.",
        f"Model and twin give them the answers of the evidence, scores {close}.",
        *attacked_again(rule, threats),
    )


def orders_of(
    keys: NDArray[np.uint8], rows: NDArray[np.void]
) -> tuple[Orders | None, list[str]]:
    """Returns the orders in which two sides have the same hashes, or what departs.

    By their keys, equal ones as they lie: the order of a table is no fault.

    Args:
        keys: hashes of the evidence, (n, 16).
        rows: hashes of the sealed rows, V16 (m,).

    Returns:
        Both orders, None if the rows lie alike; and how the sides depart, with a count
        of rows.
    """
    kind = f"S{ROW_BYTES}"
    left = np.ascontiguousarray(keys).reshape(-1).view(kind)
    right = np.ascontiguousarray(rows).view(kind)
    sides = zip(parts_of(left), parts_of(right), strict=False)
    if len(left) == len(right) and all((a == b).all() for a, b in sides):
        return None, []
    orders = tuple(np.argsort(side, kind="stable") for side in (left, right))
    present, known = (np.unique(side, return_counts=True) for side in (left, right))
    faults = []
    for one, other, where in (
        (known, present, "sealed rows are not in the evidence"),
        (present, known, "rows of the evidence are no sealed rows"),
    ):
        if count := more_than(one, other):
            faults.append(f"{count:,} {where}")
    return (orders[0], orders[1]), faults


def more_than(one: Times, other: Times) -> int:
    """Counts the rows of one table beyond those that another one has of them."""
    (hashes, times), (others, their) = one, other
    place = np.searchsorted(others, hashes).clip(max=len(others) - 1)
    met = np.where(others[place] == hashes, their[place], 0)
    return int(np.maximum(times - met, 0).sum())


def departures(
    stated: Evidence, own: Evidence, orders: Orders | None, tolerance: float
) -> Iterator[str]:
    """Yields each way in which evidence departs from answers, with a count of rows.

    Args:
        stated: the evidence, n rows.
        own: the answers to as many sealed rows.
        orders: of both sides, in which they have the same hashes; None = as they lie.
        tolerance: how far apart two scores of a row may be.
    """
    for name, a, b in compared(stated, own):
        near, wrong = tolerance if name.startswith("score") else 0, 0
        one, other = (a, b) if orders is None else (a[orders[0]], b[orders[1]])
        for left, right in zip(parts_of(one), parts_of(other), strict=True):
            # Written so that what is no number departs too. Codes are small types, in
            # which a difference may not fit.
            apart = np.abs(left.astype(float) - right)
            wrong += int((~(apart <= near)).sum())
        if wrong:
            yield f"{name} differs in {wrong:,} rows"


def compared(
    stated: Evidence, own: Evidence
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Yields the name of each column of evidence with its two sides."""
    yield "label", stated.label, own.label
    for key, (words, codes) in own.attacks.items():
        if key in own.batteries:
            continue
        known = stated.attacks.get(key, ((), codes))
        # By words: either side numbers the columns that broke a row.
        places = [known[0].index(w) if w in known[0] else -1 for w in words]
        yield f"outcome of attack {key}", known[1], np.array(places)[codes]
    for name, (_, codes) in own.groups.items():
        yield f"group {name!r}", stated.groups[name][1], codes
    for i, (theirs, inside) in enumerate(zip(stated.slices, own.slices, strict=True)):
        yield f"slice {i + 1}", theirs, inside
    for who, prefix in (("model", ""), ("twin", "twin_")):
        for what in ("prediction", "score"):
            a, b = (getattr(side, prefix + what) for side in (stated, own))
            yield f"{what} of the {who}", a, b
