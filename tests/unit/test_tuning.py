"""Settings that tune themselves: the race for the trunk, and the agents' population."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from far_device import far_device
from module_world import both, net, rows
from module_world import brief as module_brief
from placement_world import CASES, TUNED, outcome
from torch import nn
from training_world import (
    DP,
    USEFUL,
    brief,
    constitution,
    prepared,
    prepared_three_classes,
)

from safescale_ammt.config.sections import LEAST_TRUNK, TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.model.genome import Genome
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan, make_plan, of_length
from safescale_ammt.training.population import Population
from safescale_ammt.training.race import Race, calmest, entries, fields, rung_ends
from safescale_ammt.training.trainer import learner_of, train
from safescale_ammt.training.training_log import discard
from safescale_ammt.training.tuned_settings import (
    DECAY,
    DUAL,
    RATE,
    Ranges,
    apply,
    row_losses,
)

GENOME = Genome(widths=(16,), dropout=0.0)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)
    return EncodedDataset(Dataset.load(folder))


def trunk(plan: Plan) -> Learner:
    """Returns the one net that a plan of nets of one genome begins with."""
    assert isinstance(plan.nets, GenomeNets)
    return learner_of(plan.nets, plan)


def plan_of(encoded: EncodedDataset, *principles: Any, **changes: Any) -> Plan:
    config = brief(**{**TUNED, **changes})
    promises = constitution(*(principles or (USEFUL,)))
    return make_plan(GenomeNets(encoded, GENOME), config, promises)


def events_of(encoded: EncodedDataset, *principles: Any, **changes: Any) -> list[Any]:
    found: list[Any] = []
    config = brief(**{**TUNED, **changes})
    promises = constitution(*(principles or (USEFUL,)))
    train(GenomeNets(encoded, GENOME), config, promises, log=found.append)
    return found


def test_without_the_key_a_section_keeps_its_digest() -> None:
    assert TrainingConfig().digest == TrainingConfig(tune="none").digest
    assert TrainingConfig().digest != TrainingConfig(tune="population").digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tune_budget": 500}, "without tune: population"),
        ({"tune_learning_rate": [1e-3, 1e-1]}, "without tune: population"),
        ({"tune": "population", "tune_learning_rate": [0.1, 0.01]}, "least < greatest"),
        ({"tune": "population", "tune_weight_decay": [0.0, 1.0]}, "least < greatest"),
        ({"tune": "population", "tune_dual_rate": [1.0]}, "two numbers"),
        ({"tune": "population", "tune_budget": 0}, "a value > 0"),
        ({"tune": "population", "tune_every": 0}, "a value > 0"),
        ({"tune": "population", "trunk_steps": 3}, "10 or more"),
        ({"tune": "population", "learner": "trees"}, "with trees"),
        ({"tune": "grid"}, "expected one of"),
    ],
)
def test_a_number_that_no_tuning_reads_or_that_is_no_range_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainingConfig.from_params(changes)


def test_first_settings_leave_no_part_of_a_range_out(encoded: EncodedDataset) -> None:
    ranges = Ranges.of(TrainingConfig(tune="population"))
    drawn = ranges.draw(10, torch.Generator().manual_seed(0))
    for column in (RATE, DECAY):
        least, greatest = ranges.least[column], ranges.greatest[column]
        place = (drawn[:, column] / least).log() / (greatest / least).log()
        assert sorted((place * 10).floor().int().tolist()) == list(range(10))
    assert drawn[:, DUAL].tolist() == [1.0] * 10


def test_the_section_s_own_rate_is_in_the_race(encoded: EncodedDataset) -> None:
    plan = plan_of(encoded, learning_rate=0.0123)
    assert entries(plan, 5)[0].tolist() == pytest.approx([0.0123, 1e-5, 1.0])
    # But nowhere outside of the range that the user has set.
    wild = plan_of(encoded, learning_rate=7.0)
    assert entries(wild, 5)[0, RATE] == 0.3


@pytest.mark.parametrize("budget", [1, 200, 300, 1000])
def test_a_race_takes_no_more_steps_than_its_budget(
    encoded: EncodedDataset, budget: int
) -> None:
    plan = plan_of(encoded, tune_budget=budget)
    sizes, ends = fields(plan), rung_ends(plan)
    starts = [0, *ends[:-1]]
    spent = sum(n * (e - s) for n, s, e in zip(sizes, starts, ends, strict=True))
    # One net is the trunk itself.
    assert spent <= max(budget, plan.trunk_steps)
    assert ends[-1] == plan.trunk_steps
    bigger = sizes[0] + 1
    more = sum(
        max(1, bigger // 2**r) * (e - s)
        for r, (s, e) in enumerate(zip(starts, ends, strict=True))
    )
    assert more > budget


def test_what_the_rows_cannot_tell_apart_is_decided_for_the_least_rate() -> None:
    noise = torch.tensor([0.0, 0.4, -0.4, 0.2, -0.2, 0.1], dtype=torch.float64)
    best = torch.full((6,), 0.5, dtype=torch.float64)
    losses = torch.stack(
        [best + 0.3, best, best + noise + 0.01, torch.full((6,), math.inf)]
    )
    rates = torch.tensor([1e-4, 0.5, 0.01, 1e-5])
    # Net 0 is worse on every row; net 2 within its own scatter of the best.
    assert calmest(losses, rates).tolist() == [2]
    assert calmest(losses[:2], rates[:2]).tolist() == [1]
    assert calmest(losses[1:2], rates[1:2]).tolist() == [0]


def test_a_race_finds_a_rate_that_learns_among_those_that_do_not(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, tune_learning_rate=[1e-7, 0.05], trunk_steps=60, steps=60)
    changes = {**TUNED, "tune_learning_rate": [1e-7, 0.05], "steps": 60}
    events = events_of(encoded, **{**changes, "trunk_steps": 60})
    decided = [e for e in events if e["event"] == "tuning"]
    assert [e["step"] for e in decided] == rung_ends(plan)
    first = decided[0]
    by_rate = {
        s["learning_rate"]: x
        for s, x in zip(first["settings"], first["loss"], strict=True)
    }
    slowest = by_rate[min(by_rate)]
    assert min(first["loss"]) < slowest - 0.01
    (winner,) = decided[-1]["kept"]
    assert decided[-1]["settings"][winner]["learning_rate"] > 1e-5
    assert [len(e["kept"]) for e in decided] == [*fields(plan)[1:], 1]


def test_a_race_of_nets_that_all_diverge_is_one_sentence(
    encoded: EncodedDataset,
) -> None:
    wild = {"tune_learning_rate": [1e29, 1e30], "learning_rate": 1e30}
    with pytest.raises(SafescaleError, match=r"none of .* candidates .* finite loss"):
        events_of(encoded, **wild)


def test_a_loss_counts_one_row_more_as_of_another_class(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded)
    theta = trunk(plan).theta
    rows = plan.nets.rows("validation")
    n = len(rows)
    out = plan.nets.logits(theta, rows, torch.arange(n)[None])[0]
    right, wrong = (plan.nets.row_losses(out, y) for y in (rows.y, 1 - rows.y))
    expected = ((n + 1) * right + wrong).double() / (n + 2)
    assert torch.allclose(row_losses(plan, theta)[0], expected)
    # Reckless: a hundred times the logits is better on rows that are all right.
    sure = torch.where(rows.y == 1, 1.0, -1.0)[:, None]
    calm, reckless = (plan.nets.row_losses(c * sure, rows.y).mean() for c in (4, 400))
    assert reckless < calm


def test_a_setting_is_a_role_with_another_decay_and_weight_of_the_promises(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, DP, num_agents=4)
    learner = trunk(plan)
    learner.fork(plan.slots)
    settings = torch.tensor([[0.01, 0.2, 1.5]] * len(plan.slots), dtype=torch.float64)
    apply(learner, settings, plan.slots, plan.config)
    for role, own in zip(plan.slots, learner.roles, strict=True):
        assert own.weight_decay == pytest.approx(role.weight_decay + 0.2)
        assert own.constraint_weight == pytest.approx(role.constraint_weight * 1.5)
        assert own.balance == role.balance
    assert torch.equal(
        learner.traits.weight_decay,
        torch.tensor([r.weight_decay for r in learner.roles]),
    )


def test_a_tuned_rate_is_the_rate_of_the_steps(encoded: EncodedDataset) -> None:
    """Two nets at ten times the section's rate move as at ten times the rate."""
    plan = plan_of(encoded, num_agents=2)

    def moved(scale: float, rate: float) -> torch.Tensor:
        learner = trunk(plan)
        learner.fork(plan.slots[:2])
        learner.retune(learner.roles, [scale, 1.0])
        batch = torch.arange(32).expand(2, -1)
        learner.step(batch, batch[:, :0], torch.zeros(0), rate)
        return learner.theta

    tenfold, plain = moved(10.0, 1e-3), moved(1.0, 1e-3)
    assert torch.equal(tenfold[1], plain[1])
    assert torch.allclose(tenfold[0], moved(1.0, 1e-2)[0], atol=1e-7)
    assert not torch.allclose(tenfold[0], plain[0], atol=1e-4)


def population(plan: Plan) -> tuple[Population, Any]:
    learner = trunk(plan)
    learner.fork(plan.slots)
    learner.theta += 0.01 * torch.arange(len(plan.slots))[:, None]
    learner.averaged.copy_(learner.theta)
    race = Race(plan, learner)
    race.settings = torch.tensor([[0.01, 0.01, 1.0]], dtype=torch.float64)
    return Population(plan, learner, Placement(len(plan.slots)), race), learner


def test_the_last_quarter_takes_weights_and_setting_of_the_first(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, num_agents=8, tune_every=10)
    tuning, learner = population(plan)
    everyone = torch.ones(8, dtype=torch.bool)
    before, settings = learner.theta.clone(), tuning.settings.clone()
    assert tuning.tune(0, 50, everyone) is None
    assert tuning.tune(9, 59, everyone) is None
    event = tuning.tune(10, 60, everyone)
    assert event is not None
    assert event["weights"]
    losses = event["loss"]
    order = sorted(range(8), key=lambda i: losses[i])
    assert event["exploit"] == [[order[6], order[0]], [order[7], order[1]]]
    for to, source in event["exploit"]:
        assert torch.equal(learner.theta[to], before[source])
        factor = tuning.settings[to] / settings[source]
        assert not torch.equal(tuning.settings[to], settings[source])
        assert bool(((factor > 0.24) & (factor < 4.1)).all())
    others = [i for i in range(8) if i not in (order[6], order[7])]
    assert torch.equal(learner.theta[others], before[others])
    # The twin is nobody's source: its rate is the agents' geometric mean.
    assert torch.equal(learner.theta[8], before[8])
    assert torch.allclose(tuning.settings[8], tuning.settings[:8].log().mean(0).exp())


def test_with_promises_settings_move_and_weights_stay_with_their_fold(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, DP, num_agents=4, tune_every=10)
    tuning, learner = population(plan)
    before = learner.theta.clone()
    event = tuning.tune(10, 60, torch.ones(4, dtype=torch.bool))
    assert event is not None
    assert not event["weights"]
    assert event["exploit"]
    assert torch.equal(learner.theta, before)
    tuning.keep(60)
    assert tuning.best(60, before, discard)[0] is before


def test_an_agent_that_surely_breaks_a_promise_is_behind_all_others(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, DP, num_agents=4, tune_every=10)
    plain = population(plan)[0].tune(10, 60, torch.ones(4, dtype=torch.bool))
    assert plain is not None
    leader = plain["exploit"][0][1]
    eligible = torch.ones(4, dtype=torch.bool)
    eligible[leader] = False
    event = population(plan)[0].tune(10, 60, eligible)
    assert event is not None
    assert event["exploit"][0][0] == leader


def test_one_agent_has_nobody_to_take_from(encoded: EncodedDataset) -> None:
    events = events_of(encoded, num_agents=1)
    rounds = [e for e in events if e["event"] == "population"]
    assert rounds
    assert all(e["exploit"] == [] for e in rounds)


def test_the_agents_of_the_best_round_are_handed_on(encoded: EncodedDataset) -> None:
    plan = plan_of(encoded, num_agents=4, tune_every=10)
    tuning, learner = population(plan)
    good = learner.averaged.clone()
    tuning.keep(40)
    # In place, as steps do: what was kept must not be a view of it.
    learner.averaged += 5.0
    events: list[Any] = []
    handed, *_ = tuning.best(60, learner.averaged, events.append)
    assert torch.equal(handed, good)
    assert [(e["kept_from"], e["step"]) for e in events] == [(40, 60)]
    tuning, learner = population(plan)
    end = learner.averaged
    assert tuning.best(60, end, events.append)[0] is end
    assert len(events) == 1


@pytest.mark.parametrize("name", ["tuned", "tuned free"])
def test_a_tuned_training_has_the_same_bits_twice_and_says_what_it_decided(
    encoded: EncodedDataset, name: str
) -> None:
    first, again = (outcome(encoded, CASES[name]) for _ in range(2))
    assert first.events == again.events
    for key, tensor in first.tensors.items():
        assert torch.equal(tensor, again.tensors[key])
    kinds = [e["event"] for e in first.events]
    assert kinds.count("tuning") >= 2
    assert kinds.count("population") >= 3
    assert all(e["reason"] for e in first.events if e["event"] == "population")


def test_every_number_of_agents_that_auto_tries_is_tuned(
    encoded: EncodedDataset,
) -> None:
    events = events_of(encoded, DP, num_agents="auto", steps=60, trunk_steps=20)
    assert any(e["event"] == "population" for e in events)


def test_a_module_tunes_itself_as_a_table_s_nets_do() -> None:
    """Batch norm's means, which the optimizer leaves alone, go along."""
    changes = {"num_agents": 3, "steps": 40, "execution": "loop", "tune_every": 10}
    config = module_brief(tune="population", tune_budget=60, **changes)
    answers = []
    for _ in range(2):
        events: list[Any] = []
        trainer = SAFESCALEAMMTTrainer(config, log=events.append)
        model, metrics = trainer.train(net(1, nn.BatchNorm1d(8)), *both())
        kinds = [e["event"] for e in events]
        assert kinds.count("tuning") >= 2
        assert kinds.count("population") == 2
        answers.append((metrics["final_accuracy"], *model.state_dict().values()))
    assert all(
        torch.equal(*map(torch.as_tensor, pair)) for pair in zip(*answers, strict=True)
    )


def test_numbers_to_predict_tune_by_their_squared_error() -> None:
    config = module_brief(tune="population", tune_budget=60, num_agents=2)
    x, _, _ = rows()
    y = x[:, 0] * 2 + x[:, 1]
    events: list[Any] = []
    trainer = SAFESCALEAMMTTrainer(config, log=events.append)
    trainer.train(net(), (x, y), (x, y))
    decided = [e for e in events if e["event"] == "tuning"]
    assert decided
    assert min(decided[-1]["loss"]) < float(y.square().mean())


def test_fewer_steps_race_and_tune_for_their_share() -> None:
    config = TrainingConfig(tune="population")
    short = of_length(config, 120)
    shares = (
        short.tune_budget / config.tune_budget,
        short.tune_every / config.tune_every,
    )
    assert shares == pytest.approx((0.1, 0.1))
    assert of_length(config, 20).trunk_steps == LEAST_TRUNK
    assert of_length(config, 2400).tune_budget == 2 * config.tune_budget


@pytest.mark.parametrize("principles", [(USEFUL,), (DP,)])
def test_nets_on_a_device_tune_themselves_to_the_same_bits(
    encoded: EncodedDataset, principles: Any
) -> None:
    """With heads, whose gradient is autograd's everywhere."""
    config = brief(**{**TUNED, "num_agents": 4})
    promises, headed = constitution(*principles), Genome(widths=(16,), heads=2)
    here, far = (
        train(GenomeNets(encoded, headed, device), config, promises, log=discard)
        for device in (torch.device("cpu"), far_device())
    )
    assert torch.equal(here.agents, far.agents)
    assert torch.equal(here.twin, far.twin)


def test_three_classes_tune_themselves_too(tmp_path: Path) -> None:
    encoded = EncodedDataset(Dataset.load(prepared_three_classes(tmp_path)))
    events = events_of(encoded, num_agents=3)
    losses = [x for e in events if e["event"] == "population" for x in e["loss"]]
    assert losses
    assert all(0 < loss < 3 for loss in losses)
