"""Attacking: what becomes of judged rows under the threats of a constitution.

The changes are counted before any is answered. Where they are more than
`MOST_ANSWERS`, a part of the rows is attacked, drawn by the holdout's digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from safescale_ammt.constitution.corruptions import Corruptions
from safescale_ammt.constitution.image_threats import ImageThreat
from safescale_ammt.constitution.principles import JudgedThreat
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.judging.batteries import BatteryRecord
from safescale_ammt.judging.corrupting import words_of
from safescale_ammt.judging.drawn_rows import drawn
from safescale_ammt.judging.evidence import Evidence, code_type
from safescale_ammt.judging.table_attack import MOST_ANSWERS, TableAttack
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.releasing.corrupted_images import corrupted_answers
from safescale_ammt.releasing.image_attacks import images_under


def under_attack(
    model: Path,
    stored: StoredRows,
    evidence: Evidence,
    threats: Sequence[JudgedThreat],
    holdout: str,
    *,
    most: int = MOST_ANSWERS,
    seed: bytes = b"",
) -> Evidence:
    """Attacks a model at rows that it has answered, and adds what became of each.

    Args:
        model: a verified model artifact.
        stored: the rows.
        evidence: the model's answers to them.
        threats: checked against rows and model (`check_attacks`).
        holdout: identity digest of the holdout: rows and changes are drawn by it.
        most: answers to changed rows at most.
        seed: of batteries on images.
    """
    if not threats:
        return evidence
    schema, predictor = stored.schema, Predictor.load(model)
    # Of two classes a score is that of the second, whether it is declared or not.
    positive = 1 if evidence.classes == 2 else evidence.positive
    right = np.asarray(evidence.prediction == evidence.label)
    found, batteries = {}, dict[str, BatteryRecord]()
    for threat in threats:
        if isinstance(threat, Corruptions):
            numbers = corrupted_answers(threat, predictor, stored, holdout)
            found[threat.key] = words_of(threat), numbers.astype(np.int8)
            continue
        if isinstance(threat, ImageThreat):
            told, battery = images_under(
                threat, model, stored, evidence, holdout=holdout, seed=seed
            )
            found[threat.key] = told[0], told[1].astype(code_type(len(told[0])))
            batteries |= {threat.key: battery} if battery else {}
            continue
        attack = TableAttack(threat, schema, holdout, positive)
        asked = sum(attack.permitted(batch.features) for batch in stored.batches())
        tried = np.ones(len(right), dtype=bool)
        if asked > most:
            size = max(1, len(right) * most // asked)
            tried = drawn(holdout, stored.hashes(), size)
        print(
            f"Under {threat.name}: {asked:,} changes of {len(right):,} rows are "
            f"permitted; {int(tried.sum()):,} rows are attacked.",
            flush=True,
        )
        # As `TableAttack.told` has them: wrong as it is, or not drawn.
        codes = np.where(tried, -2, -3)
        at = 0
        for batch in stored.batches():
            own = np.arange(at, at := at + len(batch))
            own = own[(tried & right)[own]]
            if len(own):
                part = batch.take(own - (at - len(batch)))
                codes[own] = attack.outcomes(
                    part.features, part.label, predictor.predict_table
                )
        words, places = attack.told(codes)
        found[threat.key] = words, places.astype(code_type(len(words)))
    return replace(evidence, attacks=found, batteries=batteries)
