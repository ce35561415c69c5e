"""The benchmark of tuning: equal steps, paired regrets, goals that can be missed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import autonomy
from benchmarks.autonomy_data import HELD, encoded
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.trainer import learner_of


@pytest.fixture(scope="module")
def plan() -> Plan:
    nets = GenomeNets(encoded("wine", 0), autonomy.GENOME)
    return make_plan(nets, autonomy.TUNED, autonomy.PROMISES)


def test_a_tuned_training_costs_its_race_and_its_agents(plan: Plan) -> None:
    # Sixteen nets for 30 steps, eight for 70; then four agents and the twin for 200.
    assert autonomy.cost(plan) == 16 * 30 + 8 * 70 + 200 * 5


def test_survivors_of_a_rung_go_on_and_the_best_is_chosen(plan: Plan) -> None:
    settings = torch.tensor(
        [(1e-9, 1e-5, 1.0), (0.01, 1e-5, 1.0), (1e-8, 1e-5, 1.0), (1e-7, 1e-5, 1.0)],
        dtype=torch.float64,
    )
    picks = list(autonomy.halved(plan, settings, [20, 40], "name"))
    assert [name for name, _, _ in picks] == ["name", "name, smoothed"]
    assert {setting for _, _, setting in picks} == {"0.01, 1e-05"}
    theta = picks[0][1]
    before = autonomy.figures(
        plan, learner_of(autonomy.nets_of(plan), plan).theta, *HELD
    )
    assert autonomy.figures(plan, theta, *HELD)["loss"][0] < before["loss"][0] - 0.2


def test_random_settings_fill_the_prior_and_differ_from_seed_to_seed(
    plan: Plan,
) -> None:
    drawn = autonomy.random_settings(plan, 400, "test")
    logs = drawn[:, 0].log10()
    assert -5 <= float(logs.min()) < -4.8
    assert -0.2 < float(logs.max()) <= 0
    assert float(logs.mean()) == pytest.approx(-2.5, abs=0.25)


def row(method: str, seed: int, loss: float, **more: Any) -> dict[str, Any]:
    own = {"data": "d", "method": method, "seed": seed, "loss": loss, "accuracy": 0.9}
    return {**own, "cpu_s": 1.0, **more}


def test_a_regret_is_paired_with_the_best_of_the_grid_and_a_goal_can_be_missed() -> (
    None
):
    raw = [
        row(method, seed, base + more)
        for seed, base in ((0, 0.1), (1, 0.5))
        for method, more in (("tuned", 0.04), ("random", 0.06), ("ASHA", 0.05))
    ]
    raw += [row("g1", seed, base, grid=True) for seed, base in ((0, 0.1), (1, 0.5))]
    # Better once, and worse on average.
    raw += [row("g2", seed, base, grid=True) for seed, base in ((0, 0.0), (1, 0.9))]
    rows = autonomy.summary(raw)
    regrets = {r["method"]: r["regret"] for r in rows}
    assert regrets == pytest.approx(
        {"tuned": 0.04, "random": 0.06, "ASHA": 0.05, "g1": 0.0}
    )
    half, no_worse = autonomy.goals(rows)
    assert half["value"] == pytest.approx(0.01)
    assert half["value"] > half["goal"]
    assert no_worse["value"] == pytest.approx(-0.01)
    assert "| d | ASHA | +0.0500 ± 0.0000 |" in autonomy.table(rows)
