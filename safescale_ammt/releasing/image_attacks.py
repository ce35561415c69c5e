"""Image attacks: what becomes of judged images under the threats of a constitution.

Bounds are computed without torch. A battery follows slopes: torch is imported where a
constitution asks for one, and nowhere else.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.image_threats import ImageThreat
from safescale_ammt.data.coding import encode
from safescale_ammt.data.feature_codes import Numeric
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.data.row_changes import check_threats
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.judging.batteries import BatteryRecord
from safescale_ammt.judging.drawn_rows import drawn
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.robust import CERTIFIED, OPEN
from safescale_ammt.judging.table_attack import BROKEN, NOT_DRAWN, SURVIVED, WRONG
from safescale_ammt.model.forest import Forest
from safescale_ammt.model.interval_bounds import check_bounded, proven
from safescale_ammt.model.predictor import Predictor

Words = tuple[tuple[str, ...], NDArray[np.int64]]
"""Outcomes in words, and codes (n,) into them."""
NO_TORCH = (
    "this Python has no torch, and the battery on images follows slopes by it: judge "
    "in an image that has torch (train_agents has), or install safescale-ammt[train]"
)


def check_attacks(constitution: Constitution, dataset: Path, model: Path) -> None:
    """Refuses threats that rows, model or this Python are not fit for.

    Args:
        constitution: the promises.
        dataset: a dataset artifact.
        model: a verified model artifact.

    Raises:
        ConstitutionError: a promise cannot be judged; the sentence says why.
    """
    check_threats(constitution, Schema.load(dataset))
    for principle in constitution.principles:
        threat = principle.constraint.image_threat
        if threat is None:
            continue
        where = f"Principle {principle.id!r} cannot be judged: "
        # A model is loaded for such a promise alone.
        released = Predictor.load(model).model
        if isinstance(released.weights, Forest):
            raise ConstitutionError(
                f"{where}the model is of boosted trees, which have no slopes to follow "
                "and no bounds here; train nets (training.learner), or leave it out."
            )
        if threat.tier and find_spec("torch") is None:
            raise ConstitutionError(f"{where}{NO_TORCH}.")
        if not threat.tier and (why := check_bounded(released)):
            raise ConstitutionError(f"{where}{why}.")


def images_under(
    threat: ImageThreat,
    model: Path,
    stored: StoredRows,
    evidence: Evidence,
    *,
    holdout: str,
    seed: bytes,
) -> tuple[Words, BatteryRecord | None]:
    """Attacks a model at images that it has answered right, or bounds it there.

    Args:
        threat: checked against rows and model (`check_attacks`).
        model: a verified model artifact.
        stored: the rows.
        evidence: the model's answers to them.
        holdout: identity digest of the holdout: by it rows are drawn.
        seed: of the battery.

    Returns:
        What became of each row, and what is kept of a battery.
    """
    right = np.asarray(evidence.prediction == evidence.label)
    # Of all rows, and not of the right ones: the share is of all people.
    tried = np.ones(len(right), dtype=bool)
    if threat.most_rows is not None and threat.most_rows < len(right):
        tried = drawn(holdout, stored.hashes(), threat.most_rows)
    # How many are answered right would be a figure, and this is a log.
    print(f"Under {threat.name}: {int(tried.sum()):,} rows are tried.", flush=True)
    released, attacked = Predictor.load(model).model, tried & right
    encoding = cast("Numeric", released.genome.encoding)
    # As the words have them: wrong as it is, or not drawn.
    codes = np.where(tried, 1, 2)
    if not threat.tier:
        at = 0
        for batch in stored.batches():
            own = np.arange(at, at := at + len(batch))
            own = own[attacked[own]]
            part = batch.take(own - (at - len(batch)))
            x = encode(stored.schema, part.features, encoding)
            safe = proven(released, x, part.label, threat.ball.eps)
            codes[own] = np.where(safe, 0, 3)
        return ((CERTIFIED, WRONG, NOT_DRAWN, OPEN), codes), None
    # Here: a stage without such a promise needs no torch.
    from safescale_ammt.attacks.sealed import attacked as under_battery

    x, y = rows_at(stored, attacked, encoding)
    broken_by, battery = under_battery(released, x, y, threat, seed)
    # Attacks that broke nothing are no words of the evidence.
    present = sorted({int(number) for number in broken_by if number >= 0})
    words = [BROKEN + battery.attacks[number] for number in present]
    places = np.zeros(len(broken_by), np.int64)
    for place, number in enumerate(present):
        places[broken_by == number] = place + 3
    codes[attacked] = places
    return ((SURVIVED, WRONG, NOT_DRAWN, *words), codes), battery


def rows_at(
    stored: StoredRows, chosen: NDArray[np.bool_], encoding: Numeric
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns chosen rows, encoded (m, width), and their labels (m,)."""
    parts, labels, at = [], [], 0
    for batch in stored.batches():
        own = np.flatnonzero(chosen[at : (at := at + len(batch))])
        part = batch.take(own)
        parts.append(encode(stored.schema, part.features, encoding))
        labels.append(np.asarray(part.label, np.int64))
    return np.concatenate(parts), np.concatenate(labels)
