"""Branching: the agents stay one net for as long as that pays."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from module_world import GAP, both, net, same, state, trained
from torch import Tensor
from torch.utils.data import TensorDataset
from training_world import GENOME, TPR, USEFUL, brief, constitution, prepared

from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError
from safescale_ammt.search.trials import short_run
from safescale_ammt.training import branching as module
from safescale_ammt.training import trainer, training_log
from safescale_ammt.training.branching import Branching
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.placement import SINGLE_PROCESS
from safescale_ammt.training.plan import make_plan, parts
from safescale_ammt.training.trainer import train

pytestmark = pytest.mark.usefixtures("same_start")
LATE: dict[str, Any] = {"steps": 200, "trunk_steps": 20, "branch": 0.5}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    return EncodedDataset(Dataset.load(prepared(tmp_path_factory.mktemp("loans"))))


def events_of(changes: dict[str, Any]) -> tuple[dict[str, Tensor], list[Any]]:
    events: list[dict[str, Any]] = []
    model, _ = trained(net(), **changes, options={"log": events.append})
    return state(model), events


@pytest.mark.parametrize(
    ("agents", "share", "found"),
    [
        # 400 + 8 * 800 steps, of which the trunk takes half and each an eighth.
        (8, 0.5, (3400, 425)),
        (8, 0.0, (400, 800)),
        # Less than the trunk takes anyway.
        (8, 0.05, (400, 800)),
        (1, 0.75, (900, 300)),
        (256, 0.999, (204994, 1)),
    ],
)
def test_trunk_and_agents_share_the_steps_of_all(
    agents: int, share: float, found: tuple[int, int]
) -> None:
    config = TrainingConfig()
    assert parts(config, agents, share) == found
    trunk, own = found
    assert trunk + agents * own <= 400 + agents * 800 or own == 1


def test_who_asks_for_no_trunk_or_for_nothing_else_gets_that() -> None:
    assert parts(TrainingConfig(trunk_steps=0), 8, 0.9) == (0, 1200)
    assert parts(TrainingConfig(trunk_steps=1200), 8, 0.9) == (1200, 0)


@pytest.mark.parametrize("agents", [1, 8])
def test_no_net_passes_over_the_rows_more_often_than_the_epochs_that_are_named(
    agents: int,
) -> None:
    assert parts(TrainingConfig(max_epochs=3), agents, 0.75) == (900, 300)
    bound = {"max_epochs": 4, "steps": 1200, "trunk_steps": 400, "num_agents": agents}
    late, early = (trained(net(), **bound, branch=b)[1] for b in ("auto", 0.0))
    assert late["epochs"] <= early["epochs"]


def test_the_trunk_has_the_rate_of_a_longer_run_and_the_agents_their_own(
    encoded: EncodedDataset,
) -> None:
    late = brief(**LATE, warmup_steps=4, learning_rate=0.01)
    plan = make_plan(GenomeNets(encoded, GENOME), late, constitution(USEFUL))
    # 20 + 3 * 180 net-steps.
    assert (plan.trunk_steps, plan.steps) == (280, 280 + 93)
    rates = [plan.learning_rate(step) for step in range(plan.steps)]
    for part, length in ((rates[:280], 280 + 3 * 93), (rates[280:], 93)):
        assert part[0] == pytest.approx(0.0025)
        for step in (3, len(part) // 2, len(part) - 1):
            cosine = (1 + math.cos(math.pi * step / length)) / 2
            assert part[step] == pytest.approx(0.01 * cosine)
    early = replace(late, branch=0.0)
    plan = make_plan(GenomeNets(encoded, GENOME), early, constitution(USEFUL))
    assert (plan.trunk_steps, plan.steps, plan.net_steps) == (20, 200, 0)
    cosine = (1 + math.cos(math.pi * 150 / 200)) / 2
    assert plan.learning_rate(150) == pytest.approx(0.01 * cosine)


def test_by_default_agents_part_late_where_no_fold_judges(
    encoded: EncodedDataset,
) -> None:
    nets, auto = GenomeNets(encoded, GENOME), brief(**LATE | {"branch": "auto"})
    plan = make_plan(nets, auto, constitution(USEFUL))
    # 20 + 3 * 180 net-steps.
    assert (plan.trunk_steps, plan.steps) == (420, 420 + 46)
    # Nobody looks at rows that the trunk has learnt: none are set aside.
    assert [len(held) for held in plan.held_out] == [0, 0, 0]
    for config, law in (
        (auto, constitution(TPR)),
        (replace(auto, num_agents="auto"), constitution(USEFUL)),
        (replace(auto, tune="population"), constitution(USEFUL)),
    ):
        plan = make_plan(nets, config, law)
        assert (plan.trunk_steps, plan.steps) == (20, 200)
        assert all(len(held) for held in plan.held_out)
    # Who asks for it by a number gets it.
    config = replace(auto, branch=0.5)
    assert make_plan(nets, config, constitution(TPR)).trunk_steps == 280


@pytest.mark.parametrize(
    ("losses", "ends", "best", "then"),
    [
        # Four looks without a gain, and the trunk as it was at the least loss.
        ([0.5, 0.4, 0.41, 0.42, 0.43, 0.44], 6, 2, 0),
        # A hundredth of a per cent is no gain, and still the least loss.
        ([0.5, 0.49999, 0.49998, 0.49999, 0.49999], 5, 3, 0),
        ([0.5, 0.6, 0.6, 0.6, 0.4, 0.6, 0.6], None, 5, 2),
        # What is no number has not gained, and what follows may.
        ([math.nan, 0.5, math.nan, math.nan, 0.3], None, 5, 4),
        # Losses may be below 0: those of numbers, by an own loss.
        ([-1.0, -2.0, -2.0, -2.0, -2.0, -2.0], 6, 2, 0),
    ],
)
def test_looks_without_a_gain_end_the_trunk_at_its_best(
    losses: list[float],
    ends: int | None,
    best: int,
    then: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = TrainingConfig(trunk_steps=8)
    plan: Any = SimpleNamespace(config=config, net_steps=100, trunk_steps=100)
    coming = [*losses, 9.0]
    monkeypatch.setattr(
        module, "mean_losses", lambda *_: torch.tensor([coming.pop(0)]).double()
    )
    numbers: dict[str, Tensor] = {"first": torch.zeros(1, 3)}
    learner: Any = SimpleNamespace(
        theta=torch.zeros(1, 3),
        averaged=torch.zeros(1, 3),
        optimizer=SimpleNamespace(tensors=lambda: numbers),
    )
    branching, last = Branching(plan), 2 * len(losses)
    for _ in branching.steps(range(last), learner, SINGLE_PROCESS):
        # A step of a race, which no trunk may take any more.
        assert len(coming) == len(losses) + 1
    for step in branching.steps(range(100), learner, SINGLE_PROCESS):
        learner.theta.fill_(step + 1)
        numbers["first"].fill_(-step - 1)
        # What is looked at is what a run that goes on from here has seen.
        branching.load_state_dict(branching.state_dict())
        if step == last:
            coming = [9.0] * 99
    event = branching.part(learner)
    assert event is not None
    assert event["step"] == 2 * best
    assert event["taken"] == 2 * (ends or len(losses) + then)
    assert event["taken"] + event["left"] == 100
    assert (float(learner.theta[0, 0]), float(numbers["first"][0, 0])) == (
        2 * best,
        -2 * best,
    )


def test_without_a_look_the_trunk_stays_as_it_is() -> None:
    plan: Any = SimpleNamespace(config=TrainingConfig(), net_steps=100, trunk_steps=100)
    learner: Any = None
    assert Branching(plan).part(learner) is None


def noise() -> tuple[TensorDataset, TensorDataset]:
    """Returns rows of which nothing can be learnt for others."""
    generator = torch.Generator().manual_seed(5)
    return tuple(  # type: ignore[return-value]
        TensorDataset(
            data.tensors[0],
            torch.randint(0, 2, (len(data),), generator=generator),
            data.tensors[2],
        )
        for data in both()
    )


def test_a_trunk_goes_on_where_it_gains_and_ends_where_it_does_not() -> None:
    taken = {}
    for name, data in (("learnt", both()), ("noise", noise())):
        events: list[dict[str, Any]] = []
        settings = {**LATE, "learning_rate": 0.003}
        trained(net(), *data, **settings, options={"log": events.append})
        (branch,) = [event for event in events if event["event"] == "branch"]
        assert branch["reason"].endswith("(training.branch).")
        taken[name] = branch["taken"]
        looked = [event["step"] for event in events if event["event"] == "trunk"]
        assert max(looked) <= branch["taken"]
    # 20 + 2 * 180 net-steps, of which half.
    assert taken["noise"] < 100 < taken["learnt"] <= 190


@pytest.mark.parametrize("at", [40, 60])
def test_a_run_that_was_stopped_in_its_trunk_goes_on_to_the_same_bits(
    tmp_path: Path, at: int
) -> None:
    whole, told = events_of({**LATE, "promises": GAP})

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "trunk" and event["step"] == at:
            raise KeyboardInterrupt

    settings = {**LATE, "promises": GAP, "checkpoint_every": 1}
    options: dict[str, Any] = {"checkpoints": tmp_path, "log": stop}
    with pytest.raises(KeyboardInterrupt):
        trained(net(), **settings, options=options)
    events: list[dict[str, Any]] = []
    options = {"checkpoints": tmp_path, "log": events.append}
    resumed, _ = trained(net(), **settings, options=options)
    assert any(e["event"] == "resumed" and e["step"] == at for e in events)
    assert same(whole, state(resumed))
    branches = [[e for e in all_ if e["event"] == "branch"] for all_ in (told, events)]
    assert branches[0] == branches[1] != []


def test_a_run_that_was_stopped_behind_its_trunk_goes_on_to_the_same_bits(
    tmp_path: Path,
) -> None:
    told: list[dict[str, Any]] = []
    settings = {**LATE, "checkpoint_every": 1}
    model, one = trained(net(), *noise(), **settings, options={"log": told.append})
    (branch,) = [event for event in told if event["event"] == "branch"]
    # 20 + 2 * 180 net-steps, of which an agent takes a quarter.
    assert one["steps"] == branch["taken"] + 95
    last = [e["step"] for e in told if e["event"] == "round"][-2]

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["step"] == last:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"checkpoints": tmp_path, "log": stop}
    with pytest.raises(KeyboardInterrupt):
        trained(net(), *noise(), **settings, options=options)
    options = {"checkpoints": tmp_path}
    resumed, other = trained(net(), *noise(), **settings, options=options)
    assert same(state(model), state(resumed))
    assert other["steps"] == one["steps"]


def test_steps_are_those_of_the_number_of_agents_that_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "are_enough", lambda plan, *_: len(plan.roles) == 8)
    settings = {"num_agents": "auto", "steps": 60, "trunk_steps": 8, "branch": 0.5}
    events: list[dict[str, Any]] = []
    _, metrics = trained(net(), *noise(), **settings, options={"log": events.append})
    first, last = [event for event in events if event["event"] == "branch"]
    # 8 + 52 k net-steps, of which k agents take half.
    whole = [first["taken"] + first["left"], last["taken"] + last["left"]]
    assert whole == [108, 212]
    assert first["left"] > 0
    assert metrics["steps"] == last["taken"] + 26


def test_a_stage_counts_the_steps_that_were_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = {"choice": "soup", "members": 1, "feasible": True, "scores": {}}
    events = [
        {"event": "branch", "left": 30},
        {"event": "merge", "doubts": [], **merged},
        {"event": "end", "step": 100, "agents": 2},
    ]
    with training_log.TrainingLog(tmp_path / training_log.LOG) as log:
        for event in events:
            log.write({"reason": "", **event})
    known = SimpleNamespace(parents={}, identity="sha256:0")
    monkeypatch.setattr(training_log, "verify", lambda *_: known)
    assert training_log.summary(tmp_path, {})["steps"] == 70


def test_who_has_won_a_race_goes_on_alone(encoded: EncodedDataset) -> None:
    settings = brief(**LATE, tune="population", tune_budget=100, tune_every=20)
    events: list[dict[str, Any]] = []
    law = constitution(USEFUL)
    train(GenomeNets(encoded, GENOME), settings, law, log=events.append)
    races = [e for e in events if e["event"] == "tuning" and e["phase"] == "trunk"]
    assert [race["step"] for race in races] == [6, 20]
    assert "of 20" in races[0]["reason"]
    (branch,) = [event for event in events if event["event"] == "branch"]
    assert 20 < branch["taken"] <= 280


def test_branching_is_of_nets_and_of_no_short_run_of_the_search() -> None:
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=r"training\.branch is"):
            TrainingConfig(branch=share)
    with pytest.raises(ConfigError, match=r"training\.branch"):
        TrainingConfig.from_params({"branch": "late"})
    with pytest.raises(ConfigError, match="'auto' with trees, which do not read it"):
        TrainingConfig(learner="trees", branch=0.5)
    assert short_run(TrainingConfig(branch=0.5), SearchConfig()).branch == "auto"
    assert TrainingConfig.from_params({"branch": 0}).branch == 0.0
    assert TrainingConfig(branch=0.5).digest != TrainingConfig().digest
