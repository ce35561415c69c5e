"""Modules: any of them trains, none of a user's is touched, and a seed says it all."""

from __future__ import annotations

import asyncio
import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from module_world import (
    GAP,
    both,
    brief,
    net,
    nets,
    rows,
    same,
    state,
    trained,
)
from torch import Tensor, nn

from safescale_ammt.config.roles import ROLES
from safescale_ammt.model.device import settled
from safescale_ammt.modules.copies import RowLayout
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import make_plan
from safescale_ammt.training.sampling import agent_batches, trunk_batches
from safescale_ammt.training.trainer import learner_of, train
from safescale_ammt.training.training_log import discard

pytestmark = pytest.mark.usefixtures("same_start")

# --- known answers ---


def test_one_agent_that_shares_nothing_is_a_plain_loop_of_torch() -> None:
    config = brief(num_agents=1, self_weight=1.0, trunk_steps=0)
    kind, law = nets(model := net())
    with settled(1):
        found = train(kind, config, law, log=discard)
        plan = make_plan(kind, config, law)
        batches = agent_batches(plan, Placement(2))
        plain, average = copy.deepcopy(model), copy.deepcopy(model)
        optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=0.0)
        for step in range(plan.steps):
            optimizer.param_groups[0]["lr"] = plan.learning_rate(step)
            index = batches.draw()[0][0]
            out = plain(plan.rows.batch(index))[:, 0]
            label = plan.rows.y[index].float()
            loss = nn.functional.binary_cross_entropy_with_logits(out, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for mean, p in zip(
                    average.parameters(), plain.parameters(), strict=True
                ):
                    mean.lerp_(p, 1 - config.ema)
    own = RowLayout.of(average).row(average)
    torch.testing.assert_close(found.agents[0], own, rtol=0, atol=1e-6)


def test_agents_without_a_promise_see_all_rows() -> None:
    kind, law = nets(net())
    plan = make_plan(kind, brief(num_agents=3), law)
    assert all(len(view) == len(plan.rows) for view in plan.views)
    assert trunk_batches(plan).draw()[0].shape == (1, 32)


@pytest.mark.parametrize("at", [20, 40])
def test_stacked_nets_that_were_stopped_go_on_stacked(tmp_path: Path, at: int) -> None:
    """At the first step of the agents nothing is decided yet, later something is."""
    settings: dict[str, Any] = {"trunk_steps": 20, "steps": 80, "checkpoint_every": 1}
    settings |= {"execution": "stacked"}
    whole, _ = trained(net(), **settings)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["step"] == at:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"checkpoints": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        trained(net(), **settings, options={**options, "log": stop})
    events: list[dict[str, Any]] = []
    options["log"] = events.append
    resumed, metrics = trained(net(), **settings, options=options)
    assert [e["step"] for e in events if e["event"] == "resumed"] == [at]
    assert metrics["execution"]["used"] == "stacked"
    assert same(state(whole), state(resumed))


def test_stacked_nets_learn_what_nets_in_a_loop_learn() -> None:
    data = both()
    plain, _ = trained(net(), *data, promises=GAP)
    stacked, metrics = trained(net(), *data, promises=GAP, execution="stacked")
    assert metrics["execution"]["used"] == "stacked"
    for a, b in zip(plain.parameters(), stacked.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layer", [nn.Dropout(0.2), nn.BatchNorm1d(8)])
def test_what_has_no_stacked_form_goes_on_in_a_loop(layer: nn.Module) -> None:
    _, metrics = trained(net(1, layer), execution="stacked")
    assert metrics["execution"]["used"] == "loop"
    assert "Nets are not stacked" in metrics["execution"]["reason"]
    _, chosen = trained(net(), execution="auto")
    assert set(chosen["execution"]["seconds"]) == {"stacked", "loop"}


# --- a user's things stay as they are ---


def test_model_random_numbers_and_settings_of_the_user_stay_as_they_are() -> None:
    model = net(1, nn.BatchNorm1d(8), nn.Dropout(0.3))
    model[0].weight.requires_grad_(False)
    before, mode = state(model), torch.get_deterministic_debug_mode()
    generator = torch.get_rng_state()
    others = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    found, _ = trained(model, promises=GAP)
    assert torch.equal(torch.get_rng_state(), generator)
    now = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert now == others
    assert same(before, state(model))
    assert model.training
    assert torch.get_deterministic_debug_mode() == mode
    assert found is not model
    assert torch.equal(found[0].weight, model[0].weight)
    assert not torch.equal(found[-1].weight, model[-1].weight)


@pytest.mark.parametrize("layers", [(), (nn.BatchNorm1d(8), nn.Dropout(0.3))])
def test_the_same_seed_is_the_same_model_whatever_the_user_has_drawn(
    layers: tuple[nn.Module, ...],
) -> None:
    first, _ = trained(net(1, *layers), promises=GAP)
    torch.rand(7)
    again, _ = trained(net(1, *layers), promises=GAP)
    other, _ = trained(net(1, *layers), promises=GAP, seed=1)
    assert same(state(first), state(again))
    assert not same(state(first), state(other))


def test_a_net_draws_the_same_whoever_else_there_is() -> None:
    kind, law = nets(net(1, nn.Dropout(0.5)))
    alone, several = (
        train(kind, brief(num_agents=k, self_weight=1.0), law, log=discard)
        for k in (1, 3)
    )
    assert torch.equal(alone.agents[0], several.agents[0])
    assert not torch.equal(several.agents[0], several.agents[1])


def test_weights_of_each_net_begin_where_a_line_of_the_cache_does() -> None:
    # Products depend on it, now and then: whoever is the third net of
    # one process and the first one of another would be two models.
    kind, law = nets(net(1, nn.BatchNorm1d(8)))
    plan = make_plan(kind, brief(num_agents=4), law)
    with settled(1):
        learner = learner_of(kind, plan)
        learner.fork([ROLES["generalist"]] * 5)
        for _ in range(20):
            index = torch.randperm(len(plan.rows))[:33].expand(5, -1)
            learner.step(index, index[:, :0], torch.zeros(0), 0.01)
            assert bool((learner.theta == learner.theta[0]).all())
    for copy_ in learner._copies:
        assert copy_[0].weight.data_ptr() % 64 == 0
    assert torch.equal(kind.layout.row(net(1, nn.BatchNorm1d(8)))[-2:], torch.zeros(2))


def test_a_loop_that_runs_already_is_no_obstacle() -> None:
    given, held = both()

    async def notebook() -> tuple[Any, Any]:
        trainer = SAFESCALEAMMTTrainer(brief())
        direct = trainer.train(net(), given, held)
        return direct, await trainer.train_model(net(), given, held)

    (direct, one), (awaited, other) = asyncio.run(notebook())
    assert same(state(direct), state(awaited))
    assert one["final_accuracy"] == other["final_accuracy"] > 0.7


def test_a_run_that_was_stopped_goes_on_to_the_same_model(tmp_path: Path) -> None:
    whole, _ = trained(net(1, nn.BatchNorm1d(8), nn.Dropout(0.3)), promises=GAP)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["step"] == 20:
            raise KeyboardInterrupt

    options = {"checkpoints": tmp_path}
    model = net(1, nn.BatchNorm1d(8), nn.Dropout(0.3))
    settings = {"promises": GAP, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        trained(model, options={**options, "log": stop}, **settings)
    events: list[dict[str, Any]] = []
    resumed, _ = trained(model, options={**options, "log": events.append}, **settings)
    assert any(e["event"] == "resumed" and e["step"] >= 15 for e in events)
    assert same(state(whole), state(resumed))
    assert not list(tmp_path.rglob("*.json"))


# --- modules of all kinds ---


class Tied(nn.Module):
    """Two layers with one matrix, and buffers: written, made anew and of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.out = nn.Linear(4, 1)
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = 0.5 * self.scale + 0.5 * x.abs().mean(0)
            self.seen += 1
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x / self.scale)))))[:, 0]


def test_tied_weights_are_one_and_buffers_are_kept() -> None:
    model = Tied()
    layout = RowLayout.of(model)
    assert "b.weight" not in layout.parameters
    assert layout.trained == sum(p.numel() for p in model.parameters())
    found, metrics = trained(model, merge="soup")
    assert found.a.weight is found.b.weight
    assert not torch.equal(found.scale, torch.ones(4))
    assert found.scale.isfinite().all()
    assert metrics["final_accuracy"] > 0.6


def test_statistics_of_a_soup_are_those_of_the_rows_for_training() -> None:
    model = net(1, nn.BatchNorm1d(8))
    found, _ = trained(model, merge="soup", num_agents=3)
    with torch.no_grad():
        hidden = found[0](rows(240, 1)[0])
    # Of the only batch that there is.
    torch.testing.assert_close(found[1].running_mean, hidden.mean(0))
    torch.testing.assert_close(found[1].running_var, hidden.var(0))
    assert found[1].momentum == 0.1


class Part(nn.Module):
    """A block of layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def blocks() -> nn.Module:
    inside = (nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(Part(nn.Linear(4, 8), *inside), Part(nn.Linear(8, 1)))


def test_recomputed_activations_give_the_same_model() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = blocks()
    plain, _ = trained(model, promises=GAP)
    again, metrics = trained(model, promises=GAP, gradient_checkpointing=True)
    assert same(state(plain), state(again))
    assert metrics["unapplied"] == []
    _, flat = trained(net(), gradient_checkpointing=True)
    assert "no blocks of layers" in flat["unapplied"][0]


@pytest.mark.parametrize(
    ("n_out", "classes"), [(1, 2), (2, 2), (3, 3)], ids=["logit", "two", "three"]
)
def test_classes_are_learnt_under_a_promise(n_out: int, classes: int) -> None:
    found, metrics = trained(
        net(n_out), *both(400, classes), promises=GAP, steps=120, trunk_steps=40
    )
    assert metrics["final_accuracy"] > (0.75 if classes == 2 else 0.5)
    assert list(metrics["gaps"]) == ["max-bias-group"]
    assert found(rows()[0]).shape == (240, n_out)
    accuracy = metrics["final_accuracy"]
    low, high = metrics["final_accuracy_interval"]
    assert low < accuracy < high
    assert metrics["task"] == "classification"
    assert len(metrics["agents"]) == 2


def test_a_promise_narrows_the_gap_of_the_twin() -> None:
    data = both(1200)
    settings = {"steps": 300, "trunk_steps": 60, "num_agents": 4}
    _, free = trained(net(), *data, **settings, promises={"max_bias": 1.0})
    _, bound = trained(net(), *data, **settings, promises={"max_bias": 0.1})
    gap = "max-bias-group"
    assert bound["gaps"][gap]["value"] < free["gaps"][gap]["value"] - 0.1


def test_the_answers_of_an_ensemble_and_its_threshold_are_in_the_module() -> None:
    given, held = both()
    config = {"merge": "ensemble", "threshold": {"objective": "balanced_accuracy"}}
    found, metrics = trained(net(), given, held, **config)
    x, y, _ = held.tensors
    accuracy = ((found(x)[:, 0] >= 0).long() == y).double().mean()
    assert metrics["members"] == 2
    assert metrics["threshold"] != 0.5
    assert float(accuracy) == pytest.approx(metrics["final_accuracy"])


@pytest.mark.parametrize("own", [None, nn.L1Loss(), nn.MSELoss(reduction="none")])
def test_numbers_are_predicted(own: Any) -> None:
    x = rows(400, 1)[0]
    y = 3 * x[:, 0] - x[:, 1]
    settings = {
        "steps": 200,
        "trunk_steps": 50,
    }
    promises = {**GAP, "min_fairness": 0.8}
    _, metrics = trained(
        net(),
        (x, y),
        (x[:100], y[:100]),
        **settings,
        promises=promises,
        options={"loss": own},
    )
    assert metrics["task"] == "regression"
    assert metrics["final_r2"] > 0.8
    assert "final_accuracy" not in metrics
    assert len(metrics["left_out"]) == 2
    assert metrics["needs_human"]
    assert not metrics["may_be_released"]


@pytest.mark.parametrize("promises", [None, {"max_bias": 0.5}])
def test_a_model_without_skill_is_a_persons_to_decide(promises: Any) -> None:
    """A constant keeps every gap at 0, and would otherwise be released by promises."""
    draw = torch.Generator().manual_seed(5)
    label = torch.randint(0, 2, (600,), generator=draw)
    x, _, group = rows(600, 3)
    given, held = (
        (x[:300], label[:300], group[:300]),
        (x[300:], label[300:], group[300:]),
    )
    _, metrics = trained(net(), given, held, promises=promises)
    assert all(f["outcome"] == "holds" for f in metrics["findings"])
    assert metrics["doubts"]
    assert not metrics["may_be_released"]
    assert metrics["needs_human"]
    _, told = trained(
        net(), given, held, promises=promises, human_oversight_enabled=False
    )
    assert not told["needs_human"]
    # One that has learnt something is doubted by nobody.
    _, sound = trained(net(), steps=200, promises=promises)
    assert sound["doubts"] == []
    assert sound["may_be_released"]


def test_an_own_loss_of_classes_gets_targets_as_torch_wants_them() -> None:
    one, _ = trained(net(), options={"loss": nn.BCEWithLogitsLoss()})
    plain, _ = trained(net())
    for a, b in zip(one.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    _, metrics = trained(net(2), options={"loss": nn.CrossEntropyLoss()})
    assert metrics["final_accuracy"] > 0.7
