"""The chaos benchmark: what counts as useful, and what is held against the goals."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.chaos import goals, summary, table
from benchmarks.chaos_kills import Attempt
from benchmarks.chaos_poison import MESSAGES, PLAIN, WAYS, poisoned
from safescale_ammt.training.genome_nets import GenomeLearner
from safescale_ammt.training.gradients import Backprop
from safescale_ammt.training.sync import Sharing


def test_steps_that_are_done_anew_are_not_useful() -> None:
    seen = [(10.0, 5), (11.0, 20), (12.0, 40), (15.0, 60), (16.0, 80)]
    attempt = Attempt(start=20, seen=seen)
    assert attempt.seconds(until=60) == 4.0
    assert attempt.seconds(until=70) == 4.0
    assert attempt.seconds(until=10) == 0.0


def run(sharing: str, way: str, seed: int, accuracy: float) -> dict[str, Any]:
    row = {"part": "poison", "sharing": sharing, "way": way, "seed": seed}
    return {**row, "accuracy": accuracy, "choice": "soup"}


def test_what_is_lost_is_lost_against_the_sound_run_of_the_same_seed() -> None:
    raw = [run("mean", "none", s, 0.8 + s / 100) for s in (0, 1)]
    raw += [run("mean", "nan weights", s, 0.799 + s / 100) for s in (0, 1)]
    raw += [run(PLAIN, "nan weights", s, 0.7 + s / 100) for s in (0, 1)]
    killed = {"part": "kills", "sharing": "", "way": "", "seed": 0, "kills": 3}
    raw.append({**killed, "goodput_wall_s": 0.9, "same_model": True})
    rows = summary(raw)
    poison, kills, others = goals(rows)
    assert abs(poison["value"] - 0.001) < 1e-9
    assert poison["what"].endswith("the plain mean loses 0.1000 >= .05")
    assert (kills["value"], kills["op"], kills["goal"]) == (0.9, ">=", 0.88)
    assert others["value"] == 0
    assert "| nan weights | +0.10 | +10.00 |" in table(rows)


def test_the_poison_is_gone_after_the_block() -> None:
    before = (Sharing.share, GenomeLearner.gradient, Backprop.__call__)
    for way in WAYS:
        with poisoned(way, PLAIN):
            assert Sharing.share is not before[0]
    assert (Sharing.share, GenomeLearner.gradient, Backprop.__call__) == before


def test_every_message_differs_from_the_update() -> None:
    theta, consensus = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])
    for way, message in MESSAGES.items():
        assert not torch.equal(message(theta, consensus), theta), way
    assert MESSAGES["sign flip"](theta, consensus).tolist() == [-1.0, 1.0]
