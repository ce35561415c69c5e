"""Feasibility: principles that fight are named, quiet ones are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.search.feasibility import (
    Reading,
    check_feasibility,
    gap_principles,
)

DP = {"metric": "dp_gap", "group": "sex", "threshold": 0.05}
EO = {"metric": "eo_difference", "group": "sex", "threshold": 0.1}
ACCURACY = {"metric": "accuracy", "threshold": 0.8}


def constitution(*constraints: dict[str, Any], judged_only: int = 0) -> Constitution:
    """Principles p0, p1, ...; the last `judged_only` are not enforced."""
    listed = [{"id": f"p{i}", "constraint": c} for i, c in enumerate(constraints)]
    for entry in listed[len(listed) - judged_only :]:
        entry["train"] = {"enforce": False}
    return Constitution.from_dict({"schema": 1, "principles": listed})


class World:
    """A world where parity is bought with unequal errors (`price`) or is free."""

    def __init__(self, price: float, noise: float = 0.02) -> None:
        self.price = price
        self.noise = noise
        self.runs: list[tuple[str, ...]] = []

    def __call__(self, enforced: tuple[str, ...]) -> dict[str, Reading]:
        self.runs.append(enforced)
        parity = 0.01 if "p0" in enforced else 0.18
        odds = 0.02 if enforced == ("p1",) else 0.08
        odds += self.price if "p0" in enforced else 0.0
        return {
            "p0": Reading(parity, parity - self.noise, 0.05),
            "p1": Reading(odds, odds - self.noise, 0.1),
        }


def test_forcing_parity_is_named_as_what_breaks_equal_odds() -> None:
    found = check_feasibility(constitution(DP, EO), World(price=0.2), 200)
    assert found["checked"]
    assert [(f["forcing"], f["worsens"]) for f in found["fights"]] == [("p0", "p1")]
    assert found["fights"][0]["sentence"] == (
        "Forcing 'p0' moves 'p1' from 0.080 to 0.280, which promises "
        "eo_difference by sex <= 0.1 (hard)."
    )
    assert found["broken_together"] == ["p1"]
    json.dumps(found, allow_nan=False)


def test_principles_that_live_together_do_not_fight() -> None:
    found = check_feasibility(constitution(DP, EO), World(price=0.0), 200)
    assert found["fights"] == []
    assert found["broken_together"] == []


def test_a_rise_within_the_noise_is_no_fight() -> None:
    world = World(price=0.2, noise=0.25)
    assert check_feasibility(constitution(DP, EO), world, 200)["fights"] == []


def test_a_rise_that_stays_inside_the_promise_is_no_fight() -> None:
    wide = {**EO, "threshold": 0.9}

    def measure(enforced: tuple[str, ...]) -> dict[str, Reading]:
        odds = 0.3 if enforced else 0.1
        return {"p0": Reading(0.0, 0.0, 0.05), "p1": Reading(odds, odds, 0.9)}

    assert check_feasibility(constitution(DP, wide), measure, 200)["fights"] == []


def test_a_principle_that_was_broken_anyway_does_not_fight() -> None:
    def measure(enforced: tuple[str, ...]) -> dict[str, Reading]:
        return {"p0": Reading(0.0, 0.0, 0.05), "p1": Reading(0.3, 0.28, 0.1)}

    assert check_feasibility(constitution(DP, EO), measure, 200)["fights"] == []


def test_one_run_is_made_for_nothing_for_each_and_for_all() -> None:
    world = World(price=0.0)
    found = check_feasibility(constitution(DP, EO), world, 200)
    assert world.runs == [(), ("p0",), ("p1",), ("p0", "p1")]
    assert [run["enforced"] for run in found["runs"]] == [list(r) for r in world.runs]


def test_a_promise_that_is_only_judged_can_be_broken_by_an_enforced_one() -> None:
    world = World(price=0.2)
    found = check_feasibility(constitution(DP, EO, judged_only=1), world, 200)
    assert world.runs == [(), ("p0",)]
    assert [f["worsens"] for f in found["fights"]] == ["p1"]


def test_a_run_that_failed_to_force_its_principle_tells_nothing() -> None:
    def measure(enforced: tuple[str, ...]) -> dict[str, Reading]:
        broken = 0.5 if enforced else 0.1
        return {
            "p0": Reading(broken, broken, 0.05),
            "p1": Reading(broken, broken, 0.2),
        }

    assert check_feasibility(constitution(DP, EO), measure, 200)["fights"] == []


def test_a_group_too_small_to_read_fights_nobody() -> None:
    def measure(enforced: tuple[str, ...]) -> dict[str, Reading]:
        return {"p0": Reading(0.0, 0.0, 0.05)}

    assert check_feasibility(constitution(DP, EO), measure, 200)["fights"] == []


def test_levels_are_neither_enforced_nor_read_in_short_runs_and_named() -> None:
    raw = constitution(DP, EO, {"metric": "recall", "threshold": 0.5}).to_dict()
    raw["principles"][2]["train"] = {"enforce": True}
    world = World(price=0.0)
    found = check_feasibility(Constitution.from_dict(raw), world, 200)
    assert world.runs == [(), ("p0",), ("p1",), ("p0", "p1")]
    assert found["unread"] == ["p2"]
    del raw["principles"][:2]
    alone = check_feasibility(Constitution.from_dict(raw), world, 200)
    assert alone["reason"] == "No gap is enforced in training."
    assert alone["unread"] == ["p2"]
    assert "unread" not in check_feasibility(constitution(DP, EO), world, 200)


@pytest.mark.parametrize(
    ("rules", "steps", "says"),
    [
        (constitution(DP, EO), 0, "feasibility_steps is 0"),
        (constitution(DP, ACCURACY), 200, "nobody to fight"),
        (constitution(DP, EO, judged_only=2), 200, "No principle is enforced"),
    ],
)
def test_a_check_without_an_answer_says_why_and_trains_nothing(
    rules: Constitution, steps: int, says: str
) -> None:
    world = World(price=0.2)
    found = check_feasibility(rules, world, steps)
    assert not found["checked"]
    assert says in found["reason"]
    assert world.runs == []


def test_levels_are_not_about_gaps() -> None:
    assert [p.id for p in gap_principles(constitution(ACCURACY, DP))] == ["p1"]
