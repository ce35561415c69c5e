"""A batch that tunes itself: fields of nets race on equal rows before the trunk."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from placement_world import TUNED
from training_world import USEFUL, brief, constitution, prepared

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.genome import Genome
from safescale_ammt.training import batch_choice
from safescale_ammt.training.batch_choice import (
    choice,
    field_sizes,
    heat,
    of_batches,
    trial_steps,
    with_batch,
)
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.placement import SINGLE_PROCESS
from safescale_ammt.training.plan import Plan, make_plan, of_length
from safescale_ammt.training.race import rung_ends
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

GENOME = Genome(widths=(16,), dropout=0.0)
LONGER = {"steps": 120, "trunk_steps": 40, "tune_budget": 600}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)
    return EncodedDataset(Dataset.load(folder))


def plan_of(encoded: EncodedDataset, **changes: Any) -> Plan:
    tuned = {**TUNED, **LONGER, "tune_also": ["batch_size"], **changes}
    nets = GenomeNets(encoded, GENOME)
    return make_plan(nets, brief(**tuned), constitution(USEFUL))


def test_every_batch_takes_as_many_rows(encoded: EncodedDataset) -> None:
    plan = plan_of(encoded)
    tried = of_batches(plan)
    assert tried[0] is plan
    assert [each.config.batch_size for each in tried] == [64, 32, 128, 256]
    assert {each.config.batch_size * each.steps for each in tried} == {64 * 120}
    assert {each.config.batch_size * each.trunk_steps for each in tried} == {64 * 40}
    (first, second), (cut, end) = field_sizes(plan), rung_ends(plan)
    assert second == max(1, first // 4)
    assert trial_steps(plan) == 4 * (first * cut + second * (end - cut))


def test_batches_that_rows_or_steps_do_not_allow_are_left_out(
    encoded: EncodedDataset,
) -> None:
    # A trunk of twenty steps would have five with four times the batch.
    short = plan_of(encoded, steps=60, trunk_steps=20, tune_budget=300)
    assert [each.config.batch_size for each in of_batches(short)] == [64, 32, 128]
    # And of thirty a whole training of less than the least trunk.
    least = plan_of(encoded, steps=30, trunk_steps=20, tune_budget=300)
    assert [each.config.batch_size for each in of_batches(least)] == [64, 32, 128]
    rows = len(short.rows)
    wide = plan_of(encoded, batch_size=rows // 3)
    sizes = [each.config.batch_size for each in of_batches(wide)]
    assert sizes == [rows // 3, round(rows // 3 / 2), 2 * (rows // 3)]
    one = plan_of(encoded, batch_size=1)
    assert [each.config.batch_size for each in of_batches(one)] == [1, 2, 4]


def test_the_section_s_batch_stays_unless_another_is_surely_better() -> None:
    own = torch.full((8,), 0.5, dtype=torch.float64)
    noise = torch.tensor([0.3, -0.3] * 4, dtype=torch.float64)
    assert choice(torch.stack([own, own + noise - 0.01])) == 0
    assert choice(torch.stack([own, own - 0.01, own - 0.02])) == 2
    assert choice(torch.stack([own, own + 0.1])) == 0
    lost = torch.full((8,), math.inf, dtype=torch.float64)
    assert choice(torch.stack([lost, own])) == 1
    assert choice(torch.stack([lost, lost])) == 0


def test_a_field_is_the_race_s_first_rung_at_scaled_rates(
    encoded: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(encoded)
    taken: list[torch.Tensor] = []
    monkeypatch.setattr(
        batch_choice,
        "apply",
        lambda learner, settings, roles, config: taken.append(settings[:, 0]),
    )
    monkeypatch.setattr(batch_choice, "CUT", 1)
    nets = GenomeNets(encoded, GENOME)
    for each in of_batches(plan):
        found = heat(each, nets, plan)
        assert found.shape == (len(nets.rows("validation")),)
    # Of each field those that begin, and then those that go on, the best first.
    assert all(
        sorted(a.tolist()) == sorted(b.tolist())
        for a, b in zip(taken[::2], taken[1::2], strict=True)
    )
    taken = taken[::2]
    within = taken[0] < 0.3 / 2
    assert len(taken[0]) == field_sizes(plan)[0]
    for rates, factor in zip(taken, (1.0, 0.5, 2.0, 4.0), strict=True):
        expected = taken[0] * math.sqrt(factor)
        assert torch.allclose(rates[within], expected[within].clamp(1e-4, 0.3))


def test_a_training_goes_on_with_the_batch_that_has_won(
    encoded: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever the rows say: the third of the batches.
    monkeypatch.setattr(batch_choice, "choice", lambda losses: 2)
    nets = GenomeNets(encoded, GENOME)
    events: list[Any] = []
    tuned = brief(**{**TUNED, **LONGER, "tune_also": ["batch_size"]})
    found = train(nets, tuned, constitution(USEFUL), log=events.append)
    (decided,) = [e for e in events if e["event"] == "batch"]
    assert (decided["batch_size"], decided["steps"]) == (128, found.steps) == (128, 60)
    assert decided["tried"] == [64, 32, 128, 256]
    assert all(0 < loss < 3 for loss in decided["loss"])
    # From there on it is a training with that batch, to the same bits.
    plain = brief(**{**vars(of_length(tuned, 60)), "tune_also": [], "batch_size": 128})
    again = train(nets, plain, constitution(USEFUL), log=discard)
    assert torch.equal(found.agents, again.agents)
    assert torch.equal(found.twin, again.twin)


def test_without_the_key_the_plan_stays(encoded: EncodedDataset) -> None:
    plan = plan_of(encoded, tune_also=[])
    common = (GenomeNets(encoded, GENOME), discard, Checkpoints(), SINGLE_PROCESS)
    assert with_batch(plan, *common) is plan
