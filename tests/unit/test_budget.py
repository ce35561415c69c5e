"""A budget in seconds: steps that are found once, and counted from there on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from module_world import both, net
from module_world import brief as module_brief
from placement_world import BUDGET, TUNED, load, start, wait
from training_world import DP, USEFUL, brief, constitution, prepared

from safescale_ammt.config.sections import LEAST_BUDGET_STEPS, TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError, Interrupted
from safescale_ammt.launch.trainer_status import TrainerStatus
from safescale_ammt.model.genome import Genome
from safescale_ammt.modules.learner import ModuleLearner
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer, read_both
from safescale_ammt.modules.trainer import lengthened as lengthened_by_epochs
from safescale_ammt.store.uri import open_store
from safescale_ammt.training.budget import (
    LOOKS_EVERY,
    RESERVE,
    Costs,
    lengthened,
    probe,
    spent,
    steps_within,
    within_budget,
)
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.placement import SINGLE_PROCESS
from safescale_ammt.training.plan import Plan, make_plan, of_length
from safescale_ammt.training.race import fields, race_steps, rung_ends
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import TrainingLog, discard

GENOME = Genome(widths=(16,), dropout=0.1)
FREE = Costs(trunk=0.001, agents=0.01, update=0.0, share=0.0, look=0.0)
"""Costs of steps alone: those of one net and of all."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)


@pytest.fixture(scope="module")
def encoded(dataset: Path) -> EncodedDataset:
    return EncodedDataset(Dataset.load(dataset))


def plan_of(encoded: EncodedDataset, **changes: Any) -> Plan:
    config = brief(**{"budget_seconds": 2.0, **changes})
    return make_plan(GenomeNets(encoded, GENOME), config, constitution(DP))


def trained(
    encoded: EncodedDataset, log: Any = discard, where: Any = None, **changes: Any
) -> Trained:
    nets, config = GenomeNets(encoded, GENOME), brief(**changes)
    return train(nets, config, constitution(DP), log=log, checkpoints=where)


def equal(one: Trained, other: Trained) -> bool:
    return torch.equal(one.agents, other.agents) and torch.equal(one.twin, other.twin)


def clocked(ticks: float) -> Callable[[], float]:
    """Returns a clock that goes on by so much each time it is asked."""
    count = itertools.count()
    return lambda: ticks * next(count)


# --- the section ---


def test_a_section_without_a_budget_is_what_it_was() -> None:
    assert TrainingConfig().digest == TrainingConfig(budget_seconds=0.0).digest
    assert TrainingConfig().digest != TrainingConfig(budget_seconds=9.0).digest


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"budget_seconds": -1.0}, "seconds, or 0 for no budget"),
        ({"budget_seconds": float("inf")}, "must be finite, found inf"),
        ({"budget_seconds": float("nan")}, "must be finite, found nan"),
        ({"budget_steps": 100}, "beside training.budget_seconds"),
        ({"budget_steps": 3, "budget_seconds": 9.0}, "20 or more"),
        ({"budget_steps": -3, "budget_seconds": 9.0}, "20 or more"),
        ({"budget_seconds": 9.0, "learner": "trees"}, "with trees"),
    ],
)
def test_what_is_no_budget_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TrainingConfig(**changes)


# --- seconds and steps ---


def test_seconds_become_the_steps_that_fit(encoded: EncodedDataset) -> None:
    """A third of the steps is the trunk's: (.001 + 2 * .01) / 3 s a step."""
    plan = plan_of(encoded)
    assert steps_within(plan, FREE, 7.0) in {999, 1000, 1001}
    assert FREE.of(lengthened(plan, 1000)) == pytest.approx(7.0, rel=0.01)


def test_rounds_and_looks_cost_what_they_take(encoded: EncodedDataset) -> None:
    """Forty steps of agents: eight updates, four shares, one look and 8/5 of one."""
    costs = Costs(trunk=1.0, agents=10.0, update=100.0, share=1e4, look=1e6)
    expected = 20 * 1 + 40 * 10 + 8 * 100 + 4 * 1e4 + 8 / 5 * 1e6
    assert costs.of(plan_of(encoded)) == pytest.approx(expected)
    student = costs.of(plan_of(encoded, merge="distilled"))
    assert student == pytest.approx(expected + 60 * 1)


def test_all_numbers_of_agents_that_auto_may_try_are_paid_for(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, num_agents="auto")
    per_net = 0.01 / 5
    expected = 3 * 20 * 0.001 + 40 * per_net * (5 + 9 + 17)
    assert FREE.of(plan) == pytest.approx(expected)


def test_a_race_is_paid_for_net_by_net(encoded: EncodedDataset) -> None:
    plan = plan_of(encoded, **TUNED)
    first, second = fields(plan)
    end, last = rung_ends(plan)
    race = (first * end + second * (last - end)) * 0.01 / 4
    assert FREE.of(plan) == pytest.approx(race + 40 * 0.01)


def test_a_trunk_that_goes_on_is_paid_for(encoded: EncodedDataset) -> None:
    """20 + 40 k steps of all: of 3 agents the trunk takes 70, of 4, 8, 16 it takes half
    of 180, 340 and 660, and each agent a part of the rest."""
    plan = plan_of(encoded, branch=0.5)
    assert FREE.of(plan) == pytest.approx(70 * 0.001 + 23 * 0.01)
    # Four looks at one of four nets in each 20 steps.
    watched = replace(FREE, look=4.0).of(plan) - 23 / (5 * LOOKS_EVERY) * 4.0
    assert watched == pytest.approx(FREE.of(plan) + 4 * 70 / 20)
    tuned = plan_of(encoded, **TUNED, branch=0.5)
    race = race_steps(tuned) * 0.01 / 4
    assert FREE.of(tuned) == pytest.approx(race + 50 * 0.001 + 23 * 0.01)
    counted = plan_of(encoded, num_agents="auto", branch=0.5)
    found = (90 + 170 + 330) * 0.001
    found += (22 * 5 + 21 * 9 + 20 * 17) * 0.01 / 5
    assert FREE.of(counted) == pytest.approx(found)


def test_nets_that_teach_each_other_are_timed_while_they_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    wide = torch.nn.Sequential(torch.nn.Linear(4, 24), torch.nn.Linear(24, 1))
    run = SAFESCALEAMMTTrainer(module_brief(budget_seconds=2.0)).prepare(
        (net(), wide), read_both(*((data, None) for data in both()), ()), None
    )
    plan = make_plan(run.nets, run.config, run.promises.constitution)
    answers = ModuleLearner._answers

    def counted(self: ModuleLearner, i: int, seen: Any) -> list[torch.Tensor]:
        found = answers(self, i, seen)
        asked.append(len(found))
        return found

    monkeypatch.setattr(ModuleLearner, "_answers", counted)
    probe(plan, run.nets, SINGLE_PROCESS, clocked(1.0))
    # Two steps of the trunks, and two of two agents and their twin.
    assert asked[-6:] == [1, 1, 0] * 2


def test_a_budget_never_exceeds_the_epochs_that_are_named(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, max_epochs=30)
    most = 30 * -(-len(plan.rows) // 64)
    assert steps_within(plan, FREE, 1e6) == most > plan.steps == 60
    named, events = plan_of(encoded, max_epochs=30, budget_steps=9999), list[Any]()
    found = within_budget(
        *(named, GenomeNets(encoded, GENOME), events.append, Checkpoints()),
        SINGLE_PROCESS,
        since=0.0,
    )
    assert found.steps == events[0]["steps"] == events[0]["budget_steps"] == most
    assert "max_epochs" in events[0]["reason"]


def test_rounds_are_as_long_whatever_bound_the_epochs_are(
    encoded: EncodedDataset,
) -> None:
    """200 steps are more than the section's 60, and less than thirty epochs."""
    plain, bound = (
        lengthened(plan_of(encoded, max_epochs=epochs), 200) for epochs in (0, 30)
    )
    assert plain.config == replace(bound.config, max_epochs=0)
    config = TrainingConfig(max_epochs=10**4, budget_seconds=9.0)
    assert lengthened_by_epochs(config, 10**4) == config


def test_a_budget_too_small_for_a_training_says_what_would_do(
    encoded: EncodedDataset,
) -> None:
    with pytest.raises(
        ConfigError, match=r"too little for 20 steps here; give \S+ or m"
    ):
        steps_within(plan_of(encoded), FREE, 0.02)
    # Of fewer than ten steps there is no section that tunes itself.
    with pytest.raises(
        ConfigError, match=r"too little for 20 steps here; give \S+ or m"
    ):
        steps_within(plan_of(encoded, **TUNED), FREE, 0.0)


def test_parts_are_timed_on_the_clock_that_is_given(encoded: EncodedDataset) -> None:
    """Each look at this clock is 1 ms, and all repeats of a part take one."""
    plan = plan_of(encoded, budget_seconds=1.1)
    nets = GenomeNets(encoded, GENOME)
    # 4.4 thousandths of a second for each part: four times of one look.
    quick = vars(probe(plan, nets, SINGLE_PROCESS, clocked(1e-3)))
    assert quick.pop("halved") == 0.0
    assert list(quick.values()) == pytest.approx([1e-3 / 4] * 5)
    slow = probe(plan, nets, SINGLE_PROCESS, clocked(1.0))
    assert set(vars(slow).values()) == {0.0, 1.0}
    tuned = plan_of(encoded, **TUNED, tune_also=["batch_size"])
    assert probe(tuned, nets, SINGLE_PROCESS, clocked(1.0)).halved == 1.0


def test_what_went_before_the_first_step_is_of_the_budget(
    encoded: EncodedDataset,
) -> None:
    plan, nets = plan_of(encoded), GenomeNets(encoded, GENOME)
    events: list[Any] = []
    found = within_budget(
        *(plan, nets, events.append, Checkpoints(), SINGLE_PROCESS),
        since=-0.5,
        clock=clocked(1e-4),
    )
    (event,) = events
    assert event["steps"] == found.steps == found.config.steps
    assert event["expected"] <= (1 - RESERVE) * (2.0 - 0.5)
    late = within_budget(
        *(plan, nets, discard, Checkpoints(), SINGLE_PROCESS),
        since=-1.5,
        clock=clocked(1e-4),
    )
    assert late.steps < found.steps / 2


# --- a training ---


def test_a_training_with_a_budget_is_one_of_as_many_steps(
    encoded: EncodedDataset,
) -> None:
    events: list[Any] = []
    one = trained(encoded, events.append, budget_seconds=1.5)
    (decided,) = [e for e in events if e["event"] == "budget"]
    steps = decided["steps"]
    assert one.steps == steps >= LEAST_BUDGET_STEPS
    known = {"budget_seconds": 1.5, "budget_steps": steps}
    assert equal(one, trained(encoded, **known))
    plain = vars(of_length(brief(), steps))
    again = train(
        GenomeNets(encoded, GENOME),
        TrainingConfig(**plain),
        constitution(DP),
        log=discard,
    )
    assert equal(one, again)


def test_settings_tune_themselves_within_a_budget(encoded: EncodedDataset) -> None:
    events: list[Any] = []
    one = trained(encoded, events.append, **TUNED, budget_seconds=2.0)
    kinds = [e["event"] for e in events]
    assert "population" in kinds
    assert "tuning" in kinds
    (decided,) = [e for e in events if e["event"] == "budget"]
    known = {"budget_seconds": 2.0, "budget_steps": decided["steps"]}
    assert equal(one, trained(encoded, **TUNED, **known))


def test_a_run_that_goes_on_reads_how_many_steps_there_are(
    encoded: EncodedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_store(tmp_path.as_uri())
    budget = {"budget_seconds": 2.0, "budget_steps": 0}
    events: list[Any] = []

    def stop(event: dict[str, Any]) -> None:
        events.append(event)
        if [e["event"] for e in events].count("round") > 3:
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        trained(encoded, stop, Checkpoints(place, every=1), **budget)
    steps = next(e for e in events if e["event"] == "budget")["steps"]
    # On this clock no step would fit.
    monkeypatch.setattr("time.perf_counter", clocked(1e3))
    again: list[Any] = []
    result = trained(encoded, again.append, Checkpoints(place), **budget)
    assert [e["event"] for e in again].count("resumed") == 1
    assert [e["steps"] for e in again if e["event"] == "budget"] == [steps]
    assert equal(result, trained(encoded, **{**budget, "budget_steps": steps}))


def test_processes_agree_on_how_many_steps_there_are(
    dataset: Path, encoded: EncodedDataset, tmp_path: Path
) -> None:
    assert wait(start(2, str(dataset), str(tmp_path), "budget")) == [(0, "")] * 2
    found = load(tmp_path, "budget")
    (decided,) = [e for e in found.events if e["event"] == "budget"]
    case = BUDGET["budget"]
    changes = {**case.changes, "budget_steps": decided["steps"], "backend": "torchrun"}
    alone = train(
        GenomeNets(encoded, case.genome),
        brief(**changes),
        constitution(*case.constraints),
        log=discard,
    )
    assert torch.equal(found.tensors["agents"], alone.agents)


def test_a_module_trains_for_its_budget_and_tells_what_it_took() -> None:
    """Batch norm counts and dropout draws in the probe, and nothing of it is left."""
    module = net(1, torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.1))

    def run(**more: Any) -> tuple[Any, Any, list[Any]]:
        events: list[Any] = []
        config = module_brief(budget_seconds=2.0, **more)
        trainer = SAFESCALEAMMTTrainer(config, log=events.append)
        return *trainer.train(module, *both()), events

    model, metrics, events = run()
    told = {e["event"]: e for e in events}
    assert metrics["steps"] == told["budget"]["steps"]
    assert told["budget_spent"]["taken"] == pytest.approx(metrics["seconds"], abs=1e-3)
    again, other, _ = run(budget_steps=metrics["steps"])
    assert other["final_accuracy"] == metrics["final_accuracy"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_several_architectures_train_for_their_budget() -> None:
    events: list[Any] = []
    models = [net(), torch.nn.Linear(4, 1), net(1, torch.nn.Tanh())]
    config = module_brief(budget_seconds=3.0, num_agents=3)
    trainer = SAFESCALEAMMTTrainer(config, log=events.append)
    _, metrics = trainer.train(models, *both())
    told = next(e for e in events if e["event"] == "budget")
    assert metrics["steps"] == told["steps"] >= LEAST_BUDGET_STEPS
    # The student that all of them teach is paid for.
    costs = Costs(**told["costs"])
    student = told["steps"] * costs.trunk
    assert told["expected"] > student + (told["steps"] // 2) * costs.agents


def test_the_seconds_that_were_taken_stand_beside_the_budget() -> None:
    assert spent(TrainingConfig(), 3.0) is None
    event = spent(TrainingConfig(budget_seconds=60.0), 57.25)
    assert event is not None
    assert event["taken"] == 57.25
    assert event["reason"] == "Budget: 57.2 s of 60 s were taken."


def test_progress_counts_the_steps_of_the_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = {"event": "budget", "steps": 40, "reason": "Budget: 40 steps."}
    status = TrainerStatus(1200)
    with TrainingLog(tmp_path / "log.jsonl", status.note) as log:
        log.write({"event": "plan", "steps": 1200})
        log.write(budget)
    assert status.report(20, {})["progressPercentage"] == 50
    assert "Budget: 40 steps." in capsys.readouterr().out


def test_without_a_budget_nothing_is_timed(encoded: EncodedDataset) -> None:
    plan = make_plan(GenomeNets(encoded, GENOME), brief(), constitution(USEFUL))

    def clock() -> float:
        raise AssertionError("nobody asks")

    same = within_budget(
        *(plan, GenomeNets(encoded, GENOME), discard, Checkpoints(), SINGLE_PROCESS),
        since=0.0,
        clock=clock,
    )
    assert same is plan
