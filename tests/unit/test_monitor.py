"""The live monitor: fresh rows once each, alarms that are bounded, rungs in order."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_world import DP, GENOME, TPR, USEFUL, brief, constitution, prepared

from safescale_ammt.binomial.two_rate_bets import beliefs, log_bets
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError, Refusal
from safescale_ammt.training.bets import Bets
from safescale_ammt.training.corrections import BALANCE, RUNGS, Ladder
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.monitor import Monitor, burnt_in, fresh_rows, rounds
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.sampling import Batches, agent_batches
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.trainer import learner_of, train

Json = Mapping[str, Any]
STRICT = {**DP, "threshold": 0.01}
DEAF = {"steps": 160, "dual_ki": 0, "dual_kp": 0}
"""Multipliers that nothing moves, so that the gap of the loans stays."""
KINDS = {"monitor", "alarm", "correction", "violations", "escalated"}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = tmp_path_factory.mktemp("loans")
    return EncodedDataset(Dataset.load(prepared(folder, sensitive_in_model=True)))


def nets_of(encoded: EncodedDataset) -> GenomeNets:
    return GenomeNets(encoded, GENOME)


@dataclass
class World:
    """Agents that have just parted, and their monitor."""

    plan: Plan
    learner: Learner
    dual: DualUpdate
    sharing: Sharing
    batches: Batches
    monitor: Monitor
    ladder: Ladder
    events: list[dict[str, Any]] = field(default_factory=list)


def world(encoded: EncodedDataset, **changes: Any) -> World:
    nets = nets_of(encoded)
    plan = make_plan(nets, brief(**changes), constitution(STRICT))
    learner, placement = learner_of(nets, plan), Placement(len(plan.slots))
    dual = DualUpdate.start(plan, learner.averaged, placement)
    sharing = Sharing(learner.theta[0], plan.config)
    learner.fork(plan.slots, placement)
    batches = agent_batches(plan, placement)
    ladder = Ladder(
        plan, placement, learner=learner, dual=dual, sharing=sharing, batches=batches
    )
    events: list[dict[str, Any]] = []
    monitor = Monitor(plan, ladder, events.append)
    finite = torch.ones(len(plan.roles), dtype=torch.bool)
    dual.update(learner.averaged, finite)
    return World(plan, learner, dual, sharing, batches, monitor, ladder, events)


def events_of(encoded: EncodedDataset, **changes: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    promises = constitution(STRICT)
    with suppress(Refusal):
        train(nets_of(encoded), brief(**changes), promises, log=events.append)
    return events


def kinds(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


# --- wealth ---


def test_wealth_is_the_mean_over_signs_and_beliefs_of_the_products_of_the_bets(
    encoded: EncodedDataset,
) -> None:
    plan = make_plan(nets_of(encoded), brief(), constitution(STRICT))
    bets = Bets.on(plan.constraints)
    blocks = [((8, 2), (10, 10)), ((7, 3), (10, 12)), ((9, 1), (11, 10))]
    logs, before = np.zeros((2, 4)), [np.zeros(2), np.zeros(2)]
    for hits, sizes in ((np.array(h, float), np.array(n, float)) for h, n in blocks):
        bets.add(hits, sizes)
        # The first block is learnt from alone.
        if before[1].any():
            for sign, order in enumerate(([0, 1], [1, 0])):
                tau = np.array(0.01)
                believed = beliefs(before[0][order], before[1][order], tau)
                logs[sign] += log_bets(hits[order], sizes[order], tau, believed)
        before = [before[0] + hits, before[1] + sizes]
    assert bets.wealth == pytest.approx(np.exp(logs).mean())
    assert bets.wealth > 10
    assert bets.fresh_pairs == 31
    assert bets.differences.tolist() == pytest.approx(
        [24 / 31 - 6 / 32, 6 / 32 - 24 / 31]
    )


def test_the_parts_of_alpha_that_all_alarms_may_spend_add_up_to_alpha(
    encoded: EncodedDataset,
) -> None:
    for agents, parts in ((3, 1), ("auto", 3)):
        monitor = world(encoded, num_agents=agents, monitor_alpha=0.02).monitor
        spent = []
        for monitor.alarms in range(len(RUNGS)):
            spent.append(monitor.alpha)
        assert sum(spent) * parts == pytest.approx(0.02)
        assert spent[0] == max(spent)


# --- which rows ---


def test_each_row_of_the_split_is_answered_once_and_none_before_the_burn_in(
    encoded: EncodedDataset,
) -> None:
    here = world(encoded, monitor="observe", monitor_alpha=1e-9)
    seen: list[torch.Tensor] = []
    config, trunk = here.plan.config, here.plan.trunk_steps
    for step in range(trunk, here.plan.steps, config.dual_every):
        before = here.monitor.used.clone()
        here.monitor.look(step, {})
        seen.append(here.monitor.used & ~before)
        assert bool(seen[-1].any()) <= (step >= burnt_in(here.plan))
    assert here.monitor.used.all()
    assert sum(int(new.sum()) for new in seen) == len(encoded.rows("monitor", "ple"))
    # Every look has rows of both groups.
    assert all(event["fresh_pairs"] > 0 for event in kinds(here.events, "monitor"))


def test_rows_that_a_pause_skips_are_answered_by_the_next_look(
    encoded: EncodedDataset,
) -> None:
    here = world(encoded, monitor="observe", monitor_alpha=1e-9)
    steps = range(35, here.plan.steps, here.plan.config.dual_every)
    here.monitor.look(steps[0], {})
    here.monitor._pause = 3
    before = [
        here.monitor.look(step, {}) or int(here.monitor.used.sum())
        for step in steps[1:3]
    ]
    assert before == [int(here.monitor.used.sum())] * 2
    for step in steps[3:]:
        here.monitor.look(step, {})
    assert here.monitor.used.all()


def test_of_an_entity_one_row_is_fresh(tmp_path: Path) -> None:
    encoded = EncodedDataset(Dataset.load(prepared(tmp_path)))
    plan = make_plan(nets_of(encoded), brief(), constitution(STRICT))
    rows = encoded.rows("monitor", GENOME.encoding)
    assert fresh_rows(plan) is rows
    twice = torch.arange(len(rows)) // 2
    object.__setattr__(rows, "entity", twice)
    assert len(fresh_rows(plan)) == math.ceil(len(rows) / 2)


@pytest.mark.parametrize(
    ("changes", "promises", "twin"),
    [({"monitor": "none"}, STRICT, True), ({}, None, True), ({}, STRICT, False)],
)
def test_nothing_is_looked_at_where_nothing_is_to_be_monitored(
    encoded: EncodedDataset, changes: Json, promises: Json | None, twin: bool
) -> None:
    constraints = constitution(promises or USEFUL)
    plan = make_plan(nets_of(encoded), brief(**changes), constraints, twin=twin)
    assert rounds(plan) == 0
    events: list[dict[str, Any]] = []
    train(
        nets_of(encoded),
        plan.config,
        constraints,
        log=events.append,
        twin=twin,
    )
    assert {"monitor", "violations"}.isdisjoint(e["event"] for e in events)


# --- what it changes ---


def test_a_monitor_without_an_alarm_changes_no_bit_of_the_agents(
    encoded: EncodedDataset,
) -> None:
    found = [
        train(
            nets_of(encoded),
            brief(monitor=how),
            constitution(TPR),
            log=lambda event: None,
        ).agents
        for how in ("none", "observe", "correct")
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_an_observed_alarm_is_logged_and_changes_no_bit(
    encoded: EncodedDataset,
) -> None:
    events: list[dict[str, Any]] = []
    agents = []
    for how in ("none", "observe"):
        config = brief(**{**DEAF, "monitor_alpha": 0.9999, "monitor": how})
        promises = constitution(STRICT)
        agents.append(
            train(nets_of(encoded), config, promises, log=events.append).agents
        )
    assert torch.equal(*agents)
    assert kinds(events, "alarm")
    assert not kinds(events, "correction")


def test_alarms_take_the_rungs_in_their_order_and_the_last_asks_a_person(
    encoded: EncodedDataset,
) -> None:
    here = world(encoded)
    k = len(here.plan.roles)
    twin_before = here.learner.theta[k].clone()
    feasible = here.ladder.soups() + 1
    here.ladder.keep(feasible, 35)

    def alarm() -> None:
        here.monitor.bets.hits = np.array([9.0, 1.0])
        here.monitor.bets.sizes = np.full(2, 10.0)
        here.monitor.bets.log_wealth += 3.0
        here.monitor.alarm(40)

    alarm()
    broken = int((here.dual.unseen > 0).nonzero()[0, 0])
    fresh = here.dual.pooled[broken] + here.dual.unseen[broken]
    assert float(fresh) == pytest.approx(0.8, abs=1e-6)
    assert float(here.dual.unseen.sum()) == pytest.approx(0, abs=1e-6)
    assert float(here.dual.controller.multipliers[broken]) > 0

    alarm()
    assert here.learner.optimizer.pace == [0.5] * k + [1.0]

    assert not torch.equal(here.learner.theta[0], feasible[0])
    alarm()
    for agent in range(k):
        assert torch.equal(here.learner.theta[agent], feasible[0])
        assert torch.equal(here.learner.averaged[agent], feasible[0])
    assert torch.equal(here.sharing.consensus, feasible[0])
    assert torch.equal(here.learner.theta[k], twin_before)

    alarm()
    with pytest.raises(Refusal, match=r"after 4 corrections\. Fresh rows show") as end:
        alarm()
    assert "training.monitor: observe" in str(end.value)
    rungs = [event["rung"] for event in kinds(here.events, "correction")]
    assert rungs == list(RUNGS[:-1])
    assert len(kinds(here.events, "alarm")) == len(RUNGS)


@pytest.mark.parametrize(
    ("hits", "wealth", "called"),
    [
        ((15, 15), 0.5, False),
        ((20, 15), 0.5, True),  # a gap above tau
        ((15, 15), 1.5, True),  # bets that gain
        ((4, 4), 0.5, True),  # too few pairs
    ],
)
def test_at_its_end_an_alarmed_training_calls_a_person_unless_fresh_rows_look_well(
    encoded: EncodedDataset, hits: tuple[int, int], wealth: float, called: bool
) -> None:
    here = world(encoded)
    bets = here.monitor.bets
    bets.hits, bets.sizes = np.array(hits, float), np.full(2, 2.0 * hits[1])
    bets.log_wealth[:] = math.log(wealth)
    here.monitor.alarms = 1
    said = here.monitor.unmended(60)
    assert said.startswith("Alarms: 1. Fresh rows since the last") == called
    assert bool(said) == called


def test_reweighted_agents_see_more_of_small_strata_and_the_twin_does_not(
    encoded: EncodedDataset,
) -> None:
    here = world(encoded, batch_size=300)
    strata = here.plan.strata
    smallest = int(torch.bincount(strata).argmin())

    def shares() -> list[float]:
        drawn = [here.batches.draw()[0] for _ in range(20)]
        return (strata[torch.cat(drawn, 1)] == smallest).double().mean(1).tolist()

    before = shares()
    here.batches.reweight(here.plan, Placement(len(here.plan.slots)), BALANCE)
    after = shares()
    # A generalist and one of role safety; the third draws its small strata already.
    assert all(b > 1.15 * a for a, b in zip(before[:2], after[:2], strict=True))
    assert after[-1] == pytest.approx(before[-1], rel=0.05)


def test_what_fresh_rows_exceed_steers_from_then_on(encoded: EncodedDataset) -> None:
    here = world(encoded)
    agents = torch.ones(len(here.plan.roles), dtype=torch.bool)
    pooled = here.dual.pooled.clone()
    broken = torch.tensor([False, True])
    fresh = torch.tensor([0.9, 0.9])
    here.dual.correct(fresh, broken)
    # Of the pair that is not broken nothing is learnt but the other's reverse.
    unseen = 0.9 - float(pooled[1])
    assert here.dual.unseen.tolist() == pytest.approx([-unseen, unseen])
    before = here.dual.controller.multipliers.clone()
    report = here.dual.update(here.learner.averaged, agents)
    assert report["violation"]["dp-gap"] == pytest.approx(0.9 - 0.01, abs=1e-5)
    assert here.dual.controller.multipliers[1] > before[1] > 0
    # Told the same again, it has nothing to add.
    here.dual.correct(fresh, broken)
    assert here.dual.unseen.tolist() == pytest.approx([-unseen, unseen])


def test_events_hold_counts_rates_and_names_and_no_row(encoded: EncodedDataset) -> None:
    events = [
        e
        for e in events_of(encoded, **{**DEAF, "monitor_alpha": 0.9999})
        if e["event"] in KINDS
    ]
    assert {e["event"] for e in events} == KINDS
    allowed = {
        *("event", "step", "steps", "rows", "fresh_pairs", "wealth", "gap", "alpha"),
        *("descriptive", "principle", "pair", "reason", "rung", "unseen", "alarms"),
        *("alarms_per_1000_steps", "descriptive_per_1000_steps"),
    }
    for event in events:
        assert event.keys() <= allowed
        assert json.loads(json.dumps(event, allow_nan=False)) == event
        # Figures of groups: none of them has a length that follows the rows.
        assert all(len(v) <= 2 for v in event.values() if isinstance(v, dict))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"monitor_alpha": 0}, "monitor_alpha"),
        ({"monitor_alpha": 1}, "monitor_alpha"),
        ({"monitor": "on"}, "monitor"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(changes: Json, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"training.{sentence}"):
        brief(**changes)
