"""Robust accuracy: counted from what became of each row under an attack.

Where each permitted change was tried (`table_attack`), a row that survived is right
under all of them: its share is a rate like accuracy, and its bound is certified; so it
is of images that bounds certify. Where changes were searched, survivors may still
break: the share is an upper bound, which can show a violation and never that a promise
is kept. Of a battery on images it is an upper bound too; a promise that names one is
about its survivors, and a raised check leaves it open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.corruptions import Corruptions
from safescale_ammt.constitution.image_threats import TIERS, ImageThreat
from safescale_ammt.constitution.principles import CERTIFIED as CERTIFIED_ACCURACY
from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.data.counts import LEAST_SHOWN
from safescale_ammt.errors import IntegrityError
from safescale_ammt.judging.corrupting import (
    corruptions_in,
    drawn_corruptions,
    words_of,
)
from safescale_ammt.judging.drawn_rows import drawn
from safescale_ammt.judging.evidence import Evidence, judged_classes
from safescale_ammt.judging.group_rates import GroupTable, Rates
from safescale_ammt.judging.table_attack import (
    BROKEN,
    NOT_DRAWN,
    SURVIVED,
    WRONG,
)

CERTIFIED, OPEN = "certified", "not certified"
"""What becomes of an image by bounds: no change turns its answer, or nobody knows."""


def outcome(evidence: Evidence, c: Constraint) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns which rows survived the threat, and which were tried at all, (n,).

    Raises:
        IntegrityError: the evidence does not say what became of the rows.
    """
    threat = c.judged_threat
    assert threat is not None
    if c.corruptions:
        return answered_right(evidence, c.corruptions)
    stood = CERTIFIED if c.metric == CERTIFIED_ACCURACY else SURVIVED
    unsaid = c.empirical and threat.key not in evidence.batteries
    words, codes = evidence.attacks.get(threat.key, ((), np.zeros(0)))
    if unsaid or not {stood, NOT_DRAWN} <= set(words):
        raise IntegrityError(
            "The evidence does not say what became of rows under "
            f"{threat.name} (attack {threat.key}); judge the model anew."
        )
    survived, tried = (codes == words.index(w) for w in (stood, NOT_DRAWN))
    return survived, ~tried


def survivors(evidence: Evidence, c: Constraint) -> tuple[int, int]:
    """Counts the rows that survived, and those that were tried."""
    survived, tried = outcome(evidence, c)
    return int(survived.sum()), int(tried.sum())


def robust_table(evidence: Evidence, c: Constraint) -> GroupTable:
    """Counts the survivors of each group, among the rows that were tried."""
    values, codes = evidence.group(c.group or "")
    survived, tried = outcome(evidence, c)
    size = len(values)
    rows = np.bincount(codes[tried], minlength=size)
    # Without one positive class `min_pos` bounds the rows, as with other rates.
    classes, positives = judged_classes(evidence.classes, evidence.positive), rows
    if len(classes) == 1:
        positive = tried & (evidence.label == classes[0])
        positives = np.bincount(codes[positive], minlength=size)
    hits = np.bincount(codes[survived], minlength=size)
    return GroupTable(values, rows, positives, (Rates(c.metric, hits, rows),))


def faults(evidence: Evidence) -> Iterator[str]:
    """Says where outcomes of attacks contradict the answers beside them."""
    right = evidence.prediction == evidence.label
    for key, record in evidence.batteries.items():
        words, codes = evidence.attacks.get(key, ((), np.zeros(0)))
        attacked = [w for w in words if w == SURVIVED or w.startswith(BROKEN)]
        met = np.isin(codes, [words.index(w) for w in attacked]).any()
        unnamed = {w.removeprefix(BROKEN) for w in words if w.startswith(BROKEN)}
        unnamed -= set(record.attacks)
        # Rows that stand say nothing where nothing was tried, or nothing checked it.
        if unnamed or (met and not (record.attacks and record.checks)):
            yield f"The battery of attack {key} does not say what it tried."
    for key, (words, codes) in evidence.attacks.items():
        if corruptions_in(words):
            continue
        stood = CERTIFIED if CERTIFIED in words else SURVIVED
        rest = all(w.startswith(BROKEN) or w == OPEN for w in words[3:])
        if set(words[:3]) != {stood, WRONG, NOT_DRAWN} or not rest:
            yield f"The outcomes of attack {key} are not those of an attack."
            continue
        # Who is answered wrong anyway was not attacked, and may not count as broken.
        tried = codes != words.index(NOT_DRAWN)
        stated = codes != words.index(WRONG)
        if strange := int((tried & (stated != right)).sum()):
            yield (
                f"{strange} outcomes of attack {key} contradict the model's answers."
            )


def wrongly_drawn(evidence: Evidence, rows: NDArray[Any], holdout: str) -> str:
    """Says which attack was on other rows than the holdout's digest draws; "" if none.

    Args:
        evidence: the judged rows.
        rows: their raw-row hashes, (n, 16) uint8.
        holdout: identity digest of the holdout.
    """
    for key, (words, codes) in evidence.attacks.items():
        # Nobody may have taken a kinder corruption than the lot says.
        if met := corruptions_in(words):
            numbers, _ = drawn_corruptions(met, holdout, rows)
            if (codes // 2 != numbers).any():
                return f"images met other corruptions ({key}) than the digest draws"
            continue
        if NOT_DRAWN not in words:
            return f"attack {key} does not say which rows it tried"
        tried = codes != words.index(NOT_DRAWN)
        # How many rows are tried is no choice of who judges, either.
        size = rows_tried(evidence, key)
        if size is not None and int(tried.sum()) != size:
            return f"attack {key} tried {int(tried.sum())} rows and not {size}"
        if not tried.all() and (tried != drawn(holdout, rows, int(tried.sum()))).any():
            return f"attack {key} tried other rows than the holdout's digest draws"
    return ""


def rows_tried(evidence: Evidence, key: str) -> int | None:
    """Returns how many rows an attack on images has to try, None of another attack."""
    n = len(evidence.label)
    if record := evidence.batteries.get(key):
        return min(n, TIERS.get(record.threat.rpartition(" ")[2], 0))
    return n if CERTIFIED in evidence.attacks[key][0] else None


def attack_figures(evidence: Evidence, constitution: Constitution) -> dict[str, Any]:
    """Describes each attack: what was tried, and which columns broke how many rows.

    Of so few rows that they tell of persons there is no number.
    """
    found = {}
    for threat in constitution.table_threats:
        words, codes = evidence.attacks[threat.key]
        counts = dict(zip(words, np.bincount(codes, minlength=len(words)), strict=True))
        broken = {
            word.removeprefix(BROKEN): int(n)
            for word, n in counts.items()
            if word.startswith(BROKEN) and n >= LEAST_SHOWN
        }
        found[threat.key] = {
            "threat": threat.name,
            "every_change": threat.enumerated,
            "rows": int(len(codes) - counts[NOT_DRAWN]),
            "survived": int(counts[SURVIVED]),
            "wrong": int(counts[WRONG]),
            "broken_by": broken,
        }
    for ball in constitution.image_threats:
        found[ball.key] = image_figures(evidence, ball)
    for met in constitution.corruptions:
        found[met.key] = corruption_figures(evidence, met)
    return found


def image_figures(evidence: Evidence, threat: ImageThreat) -> dict[str, Any]:
    """Describes one attack on images: as `attack_figures`, by class and group too."""
    words, codes = evidence.attacks[threat.key]
    counts = dict(zip(words, np.bincount(codes, minlength=len(words)), strict=True))
    tried = codes != words.index(NOT_DRAWN)
    # A forged order of words would move the counts: by the word, not by its place.
    stood = codes == words.index(SURVIVED if threat.tier else CERTIFIED)
    broken = {
        word.removeprefix(BROKEN): int(n)
        for word, n in counts.items()
        if word.startswith(BROKEN) and n >= LEAST_SHOWN
    }
    found: dict[str, Any] = {
        "threat": threat.name,
        "rows": int(tried.sum()),
        "survived": int(stood.sum()),
        "wrong": int(counts[WRONG]),
        "broken_by": broken,
        "open": int(counts.get(OPEN, 0)),
        "by": by_part(evidence, stood, tried),
    }
    if battery := evidence.batteries.get(threat.key):
        found["battery"] = asdict(battery) | {
            "attacks": list(battery.attacks),
            "checks": [asdict(check) for check in battery.checks],
        }
    return found


def by_part(
    evidence: Evidence, stood: NDArray[np.bool_], tried: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Counts, of each class and group, the rows tried and those that stood.

    Of so few rows that they tell of persons there is no number.
    """
    # A class is a part like a group: whoever gives one up looks good on average.
    classes = tuple(map(str, range(evidence.classes)))
    split = {"": (classes, evidence.label), **evidence.groups}
    return [
        {"group": name, "value": value, "rows": int(n), "survived": int(own)}
        for name, (values, places) in split.items()
        for value, n, own in zip(
            values,
            np.bincount(places[tried], minlength=len(values)),
            np.bincount(places[stood], minlength=len(values)),
            strict=True,
        )
        if n >= LEAST_SHOWN
    ]


def answered_right(
    evidence: Evidence, corruptions: Corruptions
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which corrupted images are answered right, and that all were met, (n,).

    Raises:
        IntegrityError: the evidence does not say what became of the rows.
    """
    words, codes = evidence.attacks.get(corruptions.key, ((), np.zeros(0)))
    if tuple(words) != words_of(corruptions):
        raise IntegrityError(
            f"The evidence does not say what images met ({corruptions.name}, attack "
            f"{corruptions.key}); judge the model anew."
        )
    return codes % 2 == 0, np.ones(len(codes), dtype=bool)


def corruption_figures(evidence: Evidence, corruptions: Corruptions) -> dict[str, Any]:
    """Describes what became of corrupted images: by corruption, class and group."""
    right, met = answered_right(evidence, corruptions)
    numbers = evidence.attacks[corruptions.key][1] // 2
    each = list(corruptions.each())
    rows = np.bincount(numbers, minlength=len(each))
    hits = np.bincount(numbers[right], minlength=len(each))
    return {
        "threat": corruptions.name,
        "rows": len(right),
        "survived": int(right.sum()),
        # Of so few rows that they tell of persons there is no number.
        "corruptions": [
            {"kind": kind, "severity": severity, "rows": int(n), "right": int(own)}
            for (kind, severity), n, own in zip(each, rows, hits, strict=True)
            if n >= LEAST_SHOWN
        ],
        "by": by_part(evidence, right, met),
    }


def raised_checks(evidence: Evidence, c: Constraint) -> tuple[str, ...]:
    """Returns the names of the battery's checks that are raised under a threat.

    Raises:
        IntegrityError: the evidence does not say.
    """
    assert c.image_threat is not None
    if c.image_threat.key not in evidence.batteries:
        raise IntegrityError(
            "The evidence does not say which checks of the attacks are raised under "
            f"{c.image_threat.name}; judge the model anew."
        )
    return evidence.batteries[c.image_threat.key].raised
