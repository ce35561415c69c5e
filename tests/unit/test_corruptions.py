"""Corruptions: what each does to an image, who meets which, and how it is judged."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safety_world import CLASSES, evidence, hashes, submission
from test_schema import SCHEMA

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.corruptions import (
    KINDS,
    SEVERITIES,
    Corruptions,
)
from safescale_ammt.data.row_changes import check_threats
from safescale_ammt.errors import ConstitutionError, IntegrityError
from safescale_ammt.judging.assembly import assemble, judge_all
from safescale_ammt.judging.corrupting import (
    corrupted,
    corruptions_in,
    drawn_corruptions,
    normal,
    words_of,
)
from safescale_ammt.judging.evidence import Evidence, read_evidence, write_evidence
from safescale_ammt.judging.findings import FAILS, HOLDS
from safescale_ammt.judging.robust import faults, wrongly_drawn
from safescale_ammt.reporting.attack_table import attack_section

ALL = Corruptions()
HOLDOUT = "sha256:holdout"


def lots(n: int) -> np.ndarray[Any, Any]:
    return np.array([i.to_bytes(32, "big") for i in range(1, n + 1)], "V32")


def met(kind: str, severity: int, images: np.ndarray[Any, Any]) -> Any:
    """Images (n, channels, height, width) that all met one corruption."""
    number = list(ALL.each()).index((kind, severity))
    numbers = np.full(len(images), number)
    return corrupted(images, numbers, lots(len(images)), ALL)


def flat(value: int, n: int = 40, side: int = 28) -> np.ndarray[Any, Any]:
    return np.full((n, 1, side, side), value, np.uint8)


def drawn(n: int = 6, channels: int = 3, side: int = 14) -> np.ndarray[Any, Any]:
    shape = (n, channels, side, side)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_more_severe_the_farther_from_the_image(kind: str) -> None:
    down, right = np.indices((28, 28)) - 14
    bump = 200 * np.exp(-(down**2 / 60 + right**2 / 20))
    images = np.repeat(bump.astype(np.uint8)[None, None], 30, 0)
    far = [
        np.abs(met(kind, severity, images).astype(float) - images).mean()
        for severity in SEVERITIES
    ]
    assert 0 < far[0] < far[1] < far[2]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_meets_the_same_whoever_is_beside_it(kind: str) -> None:
    images = drawn()
    whole = met(kind, 2, images)
    number = np.array([list(ALL.each()).index((kind, 2))])
    for i in range(len(images)):
        alone = corrupted(images[i : i + 1], number, lots(len(images))[i : i + 1], ALL)
        assert (alone[0] == whole[i]).all()


def test_noise_has_the_deviation_and_the_mean_that_it_says() -> None:
    found = met("noise", 2, flat(128, 200)).astype(float)
    assert found.std() == pytest.approx(255 * 0.16, rel=0.01)
    assert found.mean() == pytest.approx(128, abs=0.5)
    found = met("shot", 2, flat(64, 200)).astype(float)
    assert found.std() == pytest.approx((64 * 255 / 25) ** 0.5, rel=0.01)
    assert (met("shot", 3, flat(0)) == 0).all()
    several = normal([b"a", b"b"], (4000,))
    assert np.abs(several).max() > 3
    assert several.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(several)[0, 1]) < 0.05


def test_impulses_turn_their_share_of_pixels_in_all_channels() -> None:
    images = np.full((100, 3, 20, 20), 100, np.uint8)
    found = met("impulse", 3, images)
    black, white = (found == 0).mean(), (found == 255).mean()
    assert black == pytest.approx(0.085, abs=0.01)
    assert white == pytest.approx(0.085, abs=0.01)
    assert (found[:, 0] == found[:, 2]).all()
    assert set(np.unique(found)) == {0, 100, 255}


def test_what_has_no_lot_does_what_it_says_to_the_byte() -> None:
    assert (met("brightness", 1, flat(100)) == 126).all()
    assert (met("brightness", 3, flat(250)) == 255).all()
    halves = flat(0, 1, 8)
    halves[..., 4:] = 200
    low, high = np.unique(met("contrast", 2, halves))
    assert (low, high) == (60, 140)
    dot = flat(0, 1, 28)
    dot[0, 0, 14, 14] = 160
    around = met("blur", 1, dot)[0, 0, 13:16, 13:16]
    assert around.tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    for kind in ("blur", "contrast", "rotate", "translate"):
        for severity in SEVERITIES:
            assert (met(kind, severity, flat(77)) == 77).all()


def test_moves_and_turns_go_either_way_and_keep_what_is_in_the_middle() -> None:
    dot = flat(0, 60, 28)
    dot[:, 0, 14, 14] = 255
    moved = met("translate", 1, dot)
    places = {tuple(np.argwhere(image[0])[0]) for image in moved}
    assert places == {(12, 12), (12, 16), (16, 12), (16, 16)}
    bar = flat(0, 60, 29)
    bar[:, 0, 14, :] = 255
    turned = met("rotate", 3, bar)
    assert (turned[:, 0, 14, 14] == 255).all()
    # By 30 degrees 12 pixels to the right are 6 pixels up or down.
    ends = {int(image[0, :, 24].argmax()) for image in turned}
    assert ends <= {8, 9, 19, 20}
    assert min(ends) < 14 < max(ends)


def test_every_corruption_is_drawn_alike_and_by_rows_alone() -> None:
    rows = np.array([i.to_bytes(16, "big") for i in range(9600)], "V16")
    numbers, lot = drawn_corruptions(ALL, HOLDOUT, rows)
    counts = np.bincount(numbers, minlength=24)
    assert counts.min() > 320
    assert counts.max() < 480
    turned, same = drawn_corruptions(ALL, HOLDOUT, rows[::-1])
    assert (turned[::-1] == numbers).all()
    assert (same[::-1] == lot).all()
    other, _ = drawn_corruptions(ALL, "sha256:other", rows)
    assert (other != numbers).mean() > 0.9
    few, _ = drawn_corruptions(Corruptions(("blur",)), HOLDOUT, rows)
    assert set(few) == {0, 1, 2}
    # Equal images may be people: each has a lot of its own.
    equal, _ = drawn_corruptions(ALL, HOLDOUT, np.repeat(rows[:1], 100))
    assert len(set(equal)) > 10


def test_words_name_their_corruptions_and_no_others_do() -> None:
    for some in (ALL, Corruptions(("noise", "rotate"))):
        words = words_of(some)
        assert len(words) == 2 * len(some.kinds) * len(SEVERITIES)
        assert corruptions_in(words) == some
        assert corruptions_in(words[:-1]) is None
    assert corruptions_in(("survived", "wrong as it is", "not drawn")) is None
    assert corruptions_in(()) is None


def promise(threshold: float = 0.7, **rest: Any) -> Constitution:
    constraint = {"metric": "corruption_accuracy", "threshold": threshold, **rest}
    return Constitution.from_dict(
        {
            "schema": 1,
            "principles": [{"id": "weather", "constraint": constraint}],
            "groups": {"min_n": 20, "min_pos": 5},
        }
    )


def outcomes(right: np.ndarray[Any, Any], rule: Constitution) -> Evidence:
    """Evidence of rows of which so many were right, each under its own corruption."""
    (kinds,) = rule.corruptions
    base = evidence(len(right))
    # Every other row is of a woman: the two have equal shares.
    sex = np.arange(len(right)) % 2
    base = dataclasses.replace(base, groups={"sex": (("Female", "Male"), sex)})
    numbers, _ = drawn_corruptions(kinds, HOLDOUT, hashes(len(right)))
    codes = (2 * numbers + ~right).astype(np.int8)
    return dataclasses.replace(base, attacks={kinds.key: (words_of(kinds), codes)})


def test_a_constitution_names_kinds_and_is_the_same_when_it_is_read_again() -> None:
    rule = promise(corruptions=["rotate", "noise", "noise"])
    (kinds,) = rule.corruptions
    assert kinds.kinds == ("noise", "rotate")
    assert rule.principles[0].promise == (
        "corruption_accuracy under one of 6 corruptions (noise, rotate), by lot >= 0.7"
    )
    assert Constitution.from_dict(rule.to_dict()).digest == rule.digest
    assert promise().digest == promise(corruptions=list(KINDS)).digest
    assert promise().digest != rule.digest
    assert promise().principles[0].enforce is False


@pytest.mark.parametrize(
    ("constraint", "sentence"),
    [
        ({"corruptions": ["fog"]}, "has 'fog', choose"),
        ({"corruptions": []}, "it lists kinds of corruptions"),
        ({"corruptions": "noise"}, "it lists kinds of corruptions"),
        ({"corruptions": [["noise"]]}, "choose"),
        ({"op": "<="}, "reads '>='"),
        ({"metric": "accuracy", "corruptions": ["noise"]}, "as they are; remove it"),
        ({"threat": {"norm": "linf", "eps": 0.1}}, "judged without an attack"),
    ],
)
def test_what_no_image_could_meet_is_refused(
    constraint: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConstitutionError) as refusal:
        promise(**constraint)
    assert sentence.replace("choose", "") in str(refusal.value)


def test_a_table_has_no_images_to_corrupt() -> None:
    with pytest.raises(ConstitutionError, match="but the data have none"):
        check_threats(promise(), SCHEMA)


@pytest.mark.parametrize("group", [{}, {"group": "sex"}])
def test_the_share_that_is_right_is_a_rate_with_its_exact_bounds(
    group: dict[str, str],
) -> None:
    right = np.arange(1000) % 5 != 0
    rule = promise(0.75, **group)
    found = judge_all(rule, outcomes(right, rule), 10)[0]
    assert found.value == pytest.approx(0.8)
    rows = 500 if group else 1000
    assert found.lower == pytest.approx(clopper_pearson(int(0.8 * rows), rows, 0.05)[0])
    assert found.outcome == HOLDS
    strict = promise(0.85, **group)
    assert judge_all(strict, outcomes(right, strict), 10)[0].outcome == FAILS


def test_the_verdict_tells_each_corruption_and_the_page_shows_it() -> None:
    rule = promise(0.6)
    right = np.arange(2400) % 4 != 0
    verdict = assemble(rule, outcomes(right, rule), submission("model"), "sha256:0")
    (figures,) = verdict.figures["attacks"].values()
    assert figures["rows"] == 2400
    assert figures["survived"] == 1800
    assert len(figures["corruptions"]) == 24
    assert sum(one["rows"] for one in figures["corruptions"]) == 2400
    assert {one["group"] for one in figures["by"]} == {"", "sex"}
    page = attack_section(verdict)
    assert "translate" in page
    assert "Severity 3" in page
    few = assemble(rule, outcomes(right[:100], rule), submission("m"), "sha256:0")
    told = next(iter(few.figures["attacks"].values()))["corruptions"]
    assert all(one["rows"] >= 10 for one in told)


def test_another_corruption_than_the_lot_says_is_found(tmp_path: Path) -> None:
    rule = promise()
    (kinds,) = rule.corruptions
    honest = outcomes(np.ones(300, dtype=bool), rule)
    rows = hashes(300)
    assert wrongly_drawn(honest, rows, HOLDOUT) == ""
    assert "met other corruptions" in wrongly_drawn(honest, rows, "sha256:other")
    words, codes = honest.attacks[kinds.key]
    moved = codes.copy()
    moved[7] = (moved[7] + 2) % len(words)
    forged = dataclasses.replace(honest, attacks={kinds.key: (words, moved)})
    assert "met other corruptions" in wrongly_drawn(forged, rows, HOLDOUT)
    assert not list(faults(honest))
    bare = dataclasses.replace(honest, attacks={})
    with pytest.raises(IntegrityError, match="does not say what images met"):
        judge_all(rule, bare, 10)
    write_evidence(tmp_path / "e", honest, rows)
    back, _ = read_evidence(
        tmp_path / "e",
        {"sex": honest.groups["sex"][0]},
        classes=CLASSES,
        positive=CLASSES[1],
        attacks={kinds.key: words},
    )
    assert (back.attacks[kinds.key][1] == codes).all()


def test_lots_are_the_same_on_every_machine() -> None:
    # Neither lots nor what they do may change: evidence of before is verified.
    rows = np.array([i.to_bytes(16, "big") for i in range(48)], "V16")
    numbers, lot = drawn_corruptions(ALL, HOLDOUT, rows)
    assert numbers[:6].tolist() == FIRST
    pixels = np.arange(48 * 3 * 14 * 14) * 37 % 251
    images = pixels.astype(np.uint8).reshape(48, 3, 14, 14)
    found = corrupted(images, numbers, lot, ALL)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == BYTES


FIRST, BYTES = [2, 10, 18, 7, 12, 9], "1a34fea9bf8c3339"
