"""Modules: any of them trains, none of a user's is touched, and a seed says it all."""

from __future__ import annotations

import asyncio
import copy
import random
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from module_world import both, brief, net, rows, trained
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from safescale_ammt.config.roles import Role
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import DataError, InputError, SafescaleError
from safescale_ammt.model.device import find_device, settled
from safescale_ammt.modules.copies import RowLayout
from safescale_ammt.modules.nets import ModuleNets
from safescale_ammt.modules.precision import AdaptivePrecisionEngine
from safescale_ammt.modules.rows import given_rows
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.task import find_task, with_splits
from safescale_ammt.modules.trainer import (
    SAFESCALEAMMTTrainer,
    checkpoints_of,
    read_both,
)
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.sampling import agent_batches, trunk_batches
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

ROOT = Path(__file__).parents[2]
GAP = {"max_bias": 0.05}


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Weights that a test draws are the same in each run of it."""
    torch.manual_seed(0)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def nets(model: nn.Module, **changes: Any) -> tuple[ModuleNets, Constitution]:
    """Returns nets on the small problem without promises."""
    config, law = brief(**changes), Promises.read(None, ()).constitution
    given, held = (given_rows(d.tensors[:2], None, (), "rows") for d in both())
    task = with_splits(find_task(given, held, 1, "auto"), given, held, config, law)
    cpu = torch.device("cpu")
    engine = AdaptivePrecisionEngine(switching=False)
    return ModuleNets(model, task, device=cpu, precision=engine), law


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


def test_an_own_loss_of_classes_gets_targets_as_torch_wants_them() -> None:
    one, _ = trained(net(), options={"loss": nn.BCEWithLogitsLoss()})
    plain, _ = trained(net())
    for a, b in zip(one.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    _, metrics = trained(net(2), options={"loss": nn.CrossEntropyLoss()})
    assert metrics["final_accuracy"] > 0.7


# --- rows of all kinds ---


class Listed(Dataset[Any]):
    """Rows of a map-style data set, with texts as groups."""

    def __init__(self, of: TensorDataset) -> None:
        self.of = of

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Any:
        x, y, group = self.of[index]
        return x, int(y), "fm"[int(group)]


def test_rows_of_every_kind_train_the_same_model() -> None:
    given, held = both()
    expected, _ = trained(net(), given, held, promises=GAP)
    arrays = [tuple(t.numpy() for t in d.tensors) for d in (given, held)]
    arrays = [(x.astype(float), y.astype(float), g.astype(str)) for x, y, g in arrays]
    kinds = [
        tuple(tuple(d.tensors) for d in (given, held)),
        arrays,
        (Listed(given), Listed(held)),
        tuple(Subset(d, range(len(d))) for d in (given, held)),
        tuple(tuple(t.tolist() for t in d.tensors) for d in (given, held)),
    ]
    for data in kinds:
        found, _ = trained(net(), *data, promises=GAP)
        assert same(state(found), state(expected))


def test_groups_may_be_given_apart_by_name() -> None:
    (x, y, g), (vx, vy, vg) = (d.tensors for d in both())
    trainer = SAFESCALEAMMTTrainer(brief())
    _, metrics = trainer.train(
        net(), (x, y), (vx, vy), GAP,
        sensitive={"sex": g, "age": g * 0}, validation_sensitive={"sex": vg, "age": vg},
    )  # fmt: skip
    assert list(metrics["gaps"]) == ["max-bias-sex", "max-bias-age"]
    assert any("age" in reason for reason in metrics["left_out"])


def test_rows_of_a_data_set_may_name_their_groups() -> None:
    x, y, g = rows(64)
    named = Rows(lambda i: (x[i], y[i], {"sex": int(g[i]), "odd": i % 2}))
    _, metrics = trained(net(), named, named, promises=GAP)
    assert list(metrics["gaps"]) == ["max-bias-sex", "max-bias-odd"]
    for lacks in ({"sex": 1}, 1):
        other = Rows(lambda i, g=lacks: (x[i], y[i], {"odd": 1} if i else g))
        with pytest.raises(DataError, match="has groups of several names"):
            trained(net(), other, named)


class Putting(nn.Linear):
    """Does what has no deterministic form."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.put(torch.tensor([0]), torch.tensor([1.0])))


@pytest.mark.filterwarnings("ignore:put_ does not have")
def test_what_has_no_deterministic_form_trains_all_the_same() -> None:
    mode = torch.get_deterministic_debug_mode()
    _, metrics = trained(Putting(4, 1))
    assert metrics["steps"] == 30
    assert torch.get_deterministic_debug_mode() == mode


def test_without_groups_a_promise_on_them_is_undecided_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given, held = (TensorDataset(*d.tensors[:2]) for d in both())
    _, metrics = trained(
        net(), given, held, promises={**GAP, "adversarial_budget": 0.1}
    )
    (reason,) = metrics["left_out"]
    assert reason.startswith("max-bias is undecided: no groups are given")
    assert [r.message for r in caplog.records].count(reason) == 1
    assert (metrics["needs_human"], metrics["may_be_released"]) == (True, False)
    assert metrics["robust"]["accuracy"] <= metrics["final_accuracy"]
    _, alone = trained(net(), given, held, promises=GAP, human_oversight_enabled=False)
    assert not alone["needs_human"]


class Augmented(Listed):
    """Rows that are seen through noise of torch's generator."""

    def __getitem__(self, index: int) -> Any:
        x, y, group = super().__getitem__(index)
        return x + 0.1 * torch.randn(4), y, group


def test_what_rows_draw_is_drawn_anew_and_of_the_seed() -> None:
    given, held = (Augmented(data) for data in both())
    before = torch.get_rng_state()
    first, one = trained(net(), given, held, promises=GAP)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = trained(net(), given, held, promises=GAP)
    assert same(state(first), state(again))
    assert one["final_loss"] == other["final_loss"]
    assert not same(state(first), state(trained(net(), promises=GAP)[0]))


class Named(nn.Module):
    """Takes two inputs by name, one of them whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.of, self.last = nn.Embedding(2, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        return self.last(x + self.of(kind))


def test_inputs_may_have_names_and_whole_numbers() -> None:
    (x, y, g), (vx, vy, vg) = (d.tensors for d in both())
    _, metrics = trained(
        Named(), ({"x": x, "kind": g}, y), ({"x": vx, "kind": vg}, vy),
        promises={"adversarial_budget": 0.1}, steps=200, trunk_steps=60,
    )  # fmt: skip
    assert metrics["final_accuracy"] > 0.7
    assert "small ball" in metrics["robust"]["reason"]


# --- what is refused ---


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Rows(Dataset[Any]):
    """Rows that a function gives."""

    def __init__(self, row: Any) -> None:
        self.row = row

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        return self.row(index)


def fails(_index: object) -> Any:
    raise KeyError("somebody's name")


class Failing(nn.Linear):
    """Fails where a row begins with 9."""

    def forward(self, x: Tensor) -> Tensor:
        if (x[:, 0] == 9).any():
            raise KeyError("somebody's name")
        return super().forward(x)


X, Y, G = rows(64)
NAN = torch.full((64,), float("nan"))
MIXED = np.array(["a", 1] * 32, dtype=object)
REFUSED = {
    "no rows": (net, (X[:0], Y[:0]), "has no rows"),
    "an iterable": (net, Endless(), "is an iterable data set"),
    "one tensor": (net, X, "is a Tensor, expected a torch Dataset"),
    "NaN targets": (
        net,
        (X, NAN),
        "has 64 targets that are missing or no finite number",
    ),
    "other lengths": (net, (X, Y[:9]), "has 64 inputs and 9 targets"),
    "short groups": (net, (X, Y, G[:9]), "the group 'group' has 9 values"),
    "NaN inputs": (net, (X * NAN[:, None], Y), "no finite numbers"),
    "wide inputs": (
        net,
        (X[:, :3], Y),
        "train_dataset, first rows: The model cannot be called on a batch",
    ),
    "texts": (lambda: net(3), (X, ["a", "b"] * 32), "3 numbers, which fits 3 classes"),
    "a map": (lambda: nn.Unflatten(1, (2, 2)), (X, Y), "no parameter to train"),
    "three axes": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2))),
        (X, Y),
        "answer to a batch is",
    ),
    "chances": (lambda: nn.Sequential(net(), nn.Sigmoid()), (X, Y), "with chances"),
    "halves": (lambda: net().half(), (X, Y), "torch.float16, expected float32"),
    "lazy": (lambda: nn.LazyLinear(1), (X, Y), "has no values yet"),
    "no module": (lambda: nn.Linear, (X, Y), "is the class Linear, which nobody has"),
    "texts as inputs": (net, (np.array([["a"]] * 64), Y), "are no arrays"),
    "ragged inputs": (net, ([[1], [1, 2]] * 32, Y), "are no arrays"),
    "one number": (net, (torch.tensor(1.0), Y), "are no arrays"),
    "sparse inputs": (net, (X.to_sparse(), Y), "are no arrays"),
    "missing labels": (net, (X, [None, "a"] * 32), "has 32 targets that are missing"),
    "mixed labels": (net, (X, MIXED), "some are texts and some are not"),
    "two labels a row": (
        lambda: net(2),
        (X, torch.eye(2).long()[Y]),
        "task='regression'",
    ),
    "rows of several shapes": (
        net,
        Rows(lambda i: (torch.ones(i % 3), 0)),
        "cannot be put into one batch",
    ),
    "targets of several shapes": (
        net,
        Rows(lambda i: (X[i], [0] * (1 + i % 2))),
        "targets of several shapes",
    ),
    "rows that fail": (net, Rows(fails), "cannot give its rows (KeyError"),
    "one and the same number": (net, (X, X[:, 0] * 0 + 5.5), "one and the same number"),
    "large numbers": (net, (X, X[:, 0].double() * 1e300), "too large for float32"),
    "groups of one": (net, (X, Y, X[:, 0]), "128 values in 128 rows"),
    "a batch of one": (
        lambda: net(1, nn.BatchNorm1d(8)),
        (X, Y, G),
        "cannot be called on a batch (ValueError",
    ),
    "one answer": (
        lambda: nn.Sequential(net(), nn.Flatten(0), nn.Linear(64, 1)),
        (X, Y),
        "answers 64 rows with 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_one_sentence(case: str) -> None:
    model, data, says = REFUSED[case]
    size = 1 if case == "a batch of one" else 32
    held = (X, Y, G + X[:, 0] / 9) if case == "groups of one" else (X, Y, G)
    alone = not isinstance(data, tuple) or len(data) < 3
    with pytest.raises(SafescaleError) as caught:
        trained(model(), data, held[:2] if alone else held, batch_size=size)
    assert says in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "somebody" not in str(caught.value)


def test_what_has_no_answer_among_the_rows_for_validation_is_refused_first() -> None:
    wrong = X.clone()
    wrong[9] = NAN[:4]
    for held, says in (
        ((wrong, Y), "validation_dataset: .* to 1 of 64 rows are no finite numbers"),
        ((X[:, :3], Y), "validation_dataset: The model cannot be called on a batch"),
        (({"x": X}, Y), "validation_dataset: The model cannot be called on a batch"),
    ):
        with pytest.raises(SafescaleError, match=says):
            trained(net(), (X, Y), held, options={"log": forbidden})


def forbidden(event: Any) -> None:
    raise AssertionError(event)


def test_what_fails_later_is_one_sentence_with_its_cause() -> None:
    late = torch.cat([X, X, X])
    late[150, 0] = 9
    with pytest.raises(InputError, match="cannot be called on a batch") as caught:
        trained(Failing(4, 1), (late, Y.repeat(3)), (X, Y))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (nn.BCEWithLogitsLoss(), r"answer \(32, 2\) and a target \(32,\) \(ValueError"),
        (lambda out, y: 1 / 0, "ZeroDivisionError, shown above"),
        (lambda out, y: 1.0, "The loss is a float, expected a tensor"),
        (lambda out, y: torch.tensor(1.0), "does not depend on the model's weights"),
        ("mse", "loss is a str, expected a function"),
    ],
)
def test_a_loss_that_cannot_teach_is_one_sentence(loss: Any, says: str) -> None:
    with pytest.raises(SafescaleError, match=says):
        trained(net(2), options={"loss": loss})


def test_a_loss_that_no_weight_changes_and_lost_steps_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained(net(1), options={"loss": nn.CrossEntropyLoss()})
    said = [r.message for r in caplog.records if "No weight changes" in r.message]
    assert len(said) == 1
    given, held = both()
    given.tensors[0][100, 0] = float("nan")
    model, metrics = trained(net(), given, held)
    said = [r.message for r in caplog.records if "no finite number" in r.message]
    assert len(said) == 1
    assert "A gradient of step" in said[0]
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert metrics["final_loss"] < 0.7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "regresion"}, "the nearest is 'regression'"),
        ({"roles": ["safety"]}, "roles holds a str, expected each to be a Role"),
    ],
)
def test_options_of_another_kind_are_one_sentence(options: Any, says: str) -> None:
    with pytest.raises(SafescaleError, match=says):
        SAFESCALEAMMTTrainer(brief(), **options)
    with pytest.raises(SafescaleError, match="config is a dict"):
        SAFESCALEAMMTTrainer({"num_agents": 2})  # type: ignore[arg-type]
    for wrong in ({"noise": -1.0}, {"noise": float("nan")}, {"input_drop": 1.5}):
        with pytest.raises(SafescaleError, match="Role 'one' has"):
            Role("one", "nothing", **wrong)


@pytest.mark.parametrize(
    ("names", "groups", "says"),
    [
        (["a", "b"], G, "has 1 columns of groups, but config.sensitive names 2"),
        (["a", "a"], torch.stack([G, G], 1), "a name of its own"),
        ([], {"a\nb": G}, "a name is text that is seen"),
        ([], {" ": G}, "a name is text that is seen"),
        ([], {"a": torch.stack([G, G], 1)}, "every row needs one value"),
        ([], "sex", "are one value; give one a row"),
    ],
)
def test_groups_that_are_not_named_one_by_one_are_refused(
    names: list[str], groups: Any, says: str
) -> None:
    trainer = SAFESCALEAMMTTrainer(brief(sensitive=names))
    with pytest.raises(DataError, match=says):
        trainer.train(
            net(), (X, Y), (X, Y), GAP, sensitive=groups, validation_sensitive=groups
        )


def test_a_loss_that_is_no_number_and_a_short_validation_are_refused() -> None:
    with pytest.raises(SafescaleError, match="loss of the first batch"):
        trained(net(), options={"loss": lambda out, y: (out - y).mean() / 0})
    with pytest.raises(DataError, match="has 7 rows; at least 8"):
        trained(net(), (X, Y), (X[:7], Y[:7]))
    with pytest.raises(DataError, match="give both the same"):
        trained(net(), (X, Y, G), (X, Y))
    with pytest.raises(InputError, match="Unknown key 'max_gap'"):
        trained(net(), promises={"max_gap": 0.1})


def test_whole_numbers_with_a_point_are_codes_where_a_row_has_one() -> None:
    coded, _ = trained(net(2), (X, Y), (X, Y))
    floats, metrics = trained(net(2), (X, Y.float()), (X, Y.double()))
    assert metrics["task"] == "classification"
    assert same(state(coded), state(floats))


class Scaling(nn.Linear):
    """Writes on its input, as some layers do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


def test_a_module_that_writes_on_its_input_is_attacked_and_changes_no_rows() -> None:
    before = X.clone()
    _, metrics = trained(
        Scaling(4, 1), (X, Y), (X, Y), promises={"adversarial_budget": 0.5}
    )
    assert metrics["robust"]["accuracy"] < metrics["final_accuracy"]
    assert torch.equal(X, before)


def test_arrays_of_every_layout_and_numbers_of_every_kind_are_read() -> None:
    def run(x: Any, y: Any) -> dict[str, Tensor]:
        return state(trained(net(), (x, y), (x, y))[0])

    expected, x = run(X, Y), X.numpy().copy()
    x.setflags(write=False)
    back = np.ascontiguousarray(x[:, ::-1])[:, ::-1]
    for other in (x, x.astype(">f4"), back, x.astype(np.longdouble)):
        assert same(run(other, Y), expected)
    for label in (Y.bfloat16(), Y.numpy().astype(">i8"), np.array([*Y], dtype=object)):
        assert same(run(X, label), expected)
    with pytest.raises(DataError, match="are no arrays"):
        run(np.ma.masked_greater(x, 0.5), Y)
    numbers, lone = X[:, 0].numpy(), np.array(X[:, 0].tolist(), dtype=object)
    assert same(run(X, lone), run(X, numbers))


def test_names_of_the_labels_are_told_in_the_order_of_their_codes() -> None:
    _, metrics = trained(net(), (X, ["no", "yes"] * 32), (X, ["no", "yes"] * 32))
    assert metrics["classes"] == ["no", "yes"]
    _, metrics = trained(net(2), (X, 9 + Y), (X, 9.0 + Y))
    assert metrics["classes"] == ["9", "10"]


# --- what surrounds a training ---


def test_a_task_that_is_cancelled_stops_its_training() -> None:
    events: list[Any] = []
    trainer = SAFESCALEAMMTTrainer(brief(steps=100_000), log=events.append)

    async def short() -> None:
        task = asyncio.create_task(trainer.train_model(net(), *both()))
        while not any(event["event"] == "round" for event in events):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    # The loop ends when its threads have.
    asyncio.run(short())
    assert max(event.get("step", 0) for event in events) < 50_000
    _, metrics = trained(net())
    assert metrics["steps"] == 30


class Restless(nn.Linear):
    """Draws from each generator that there is."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + torch.rand(1) + random.random() + float(np.random.rand())  # noqa: NPY002
        return super().forward(x)


def test_draws_of_python_and_numpy_are_of_the_seed_too() -> None:
    torch.manual_seed(0)
    model = Restless(4, 1)
    first, _ = trained(model)
    before = (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    again, _ = trained(model)
    assert same(state(first), state(again))
    assert before == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002


def test_trainings_at_the_same_time_take_turns() -> None:
    trainers = [SAFESCALEAMMTTrainer(brief(seed=seed)) for seed in (0, 1)]
    model = net(1, nn.Dropout(0.3))
    alone = [trainer.train(model, *both())[0] for trainer in trainers]
    mode = torch.get_deterministic_debug_mode()

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(trainer.train_model(model, *both()) for trainer in trainers)
        )

    for one, (other, _) in zip(alone, asyncio.run(together()), strict=True):
        assert same(state(one), state(other))
    assert torch.get_deterministic_debug_mode() == mode


def test_gradients_that_are_off_and_doubles_by_default_are_no_obstacle() -> None:
    expected, _ = trained(net(), promises=GAP)
    with torch.inference_mode():
        found, _ = trained(net(), promises=GAP)
    assert same(state(found), state(expected))
    torch.set_default_dtype(torch.float64)
    try:
        wide, _ = trained(net().double(), promises=GAP)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in wide.parameters()} == {torch.float64}


# --- devices, precision, roles, length ---


def test_the_first_device_of_the_ladder_that_is_there_is_used() -> None:
    cpu = torch.device("cpu")
    there = {"xpu": torch.device("meta"), "cpu": cpu}
    assert find_device("auto", there.get) == ("xpu", there["xpu"], "")
    assert find_device("cpu", there.get) == ("cpu", cpu, "")
    kind, _, reason = find_device("tpu", there.get)
    assert (kind, reason) == ("xpu", "No tpu is there: training uses the xpu.")
    assert find_device("auto", {"cpu": cpu}.get)[0] == "cpu"


def test_a_tpu_that_is_injected_is_trained_on_and_one_that_is_not_said() -> None:
    fake = {"tpu": torch.device("cpu"), "cpu": torch.device("cpu")}
    _, metrics = trained(net(), device="tpu", options={"present": fake.get})
    assert metrics["device"] == "tpu"
    none = {"cpu": torch.device("cpu")}
    _, other = trained(net(), device="tpu", tpu_pods=4, options={"present": none.get})
    assert other["device"] == "cpu"
    assert other["unapplied"][-1] == "No tpu is there: training uses the cpu."
    assert "training.tpu_pods is 4" in other["unapplied"][0]


def test_epochs_alone_decide_the_length_unless_steps_are_given() -> None:
    given = read_both(*((data, None) for data in both()), ())

    def plan(**changes: Any) -> Plan:
        run = SAFESCALEAMMTTrainer(brief(**changes)).prepare(net(), given, None)
        return make_plan(run.nets, run.config, run.promises.constitution)

    # 240 rows in batches of 32; the trunk keeps its third.
    by_epochs = plan(max_epochs=500, steps=1200, trunk_steps=400)
    assert (by_epochs.steps, by_epochs.trunk_steps) == (500 * 8, 1333)
    assert plan(max_epochs=5, steps=25).steps == 25
    _, metrics = trained(net(), max_epochs=5, steps=1200, trunk_steps=400)
    assert metrics["steps"] == 40
    assert metrics["epochs"] == pytest.approx(40 * 32 / 240)


def test_checkpoints_are_of_one_model_these_rows_and_this_config(
    tmp_path: Path,
) -> None:
    given = read_both(*((data, None) for data in both()), ())

    def run(model: nn.Module, **changes: Any) -> str:
        prepared = SAFESCALEAMMTTrainer(brief(**changes)).prepare(model, given, None)
        shelf = checkpoints_of(tmp_path, prepared, model)._shelf
        assert shelf is not None
        return shelf.run

    digests = {run(net()), run(net()), run(net(2)), run(net(), learning_rate=0.02)}
    assert len(digests) == 3


def test_a_checkpoint_is_of_these_inputs_promises_roles_and_this_loss(
    tmp_path: Path,
) -> None:
    def run(scale: float = 1.0, promises: Any = None, **options: Any) -> str:
        given, held = both()
        given.tensors[0].mul_(scale)
        rows = read_both((given, None), (held, None), ())
        trainer = SAFESCALEAMMTTrainer(brief(), **options)
        prepared = trainer.prepare(net(), rows, promises)
        shelf = checkpoints_of(tmp_path, prepared, net())._shelf
        assert shelf is not None
        return shelf.run

    role = Role("one", "noise", noise=0.5)
    digests = [
        run(),
        run(2.0),
        run(promises=GAP),
        run(roles=[role]),
        run(loss=nn.HuberLoss()),
        run(loss=nn.HuberLoss(delta=2.0)),
    ]
    assert len(set(digests)) == len(digests)
    assert run(loss=nn.HuberLoss(delta=2.0)) == digests[-1]


def test_roles_of_the_user_are_dealt_out() -> None:
    own = (Role("one", "noise", noise=0.5), Role("two", "drops", input_drop=0.3))
    found, metrics = trained(net(), options={"roles": own}, num_agents=3)
    assert [agent["role"] for agent in metrics["agents"]] == ["one", "two", "one"]
    assert not same(state(found), state(trained(net(), num_agents=3)[0]))


def test_vision_sees_images_through_noise_and_tables_as_the_generalist() -> None:
    images = X.reshape(64, 1, 2, 2)

    def flat() -> nn.Module:
        return nn.Sequential(nn.Flatten(), *net())

    def run(x: Tensor, role: str) -> tuple[nn.Module, Any]:
        return trained(flat(), (x, Y), (x, Y), agent_specializations=[role], ema=0.5)

    plain, _ = run(images, "generalist")
    vision, metrics = run(images, "vision")
    assert metrics["unapplied"] == []
    assert not same(state(plain), state(vision))
    table, said = run(X, "vision")
    assert same(state(table), state(run(X, "generalist")[0]))
    assert "'vision', a role for images" in said["unapplied"][0]


# --- the examples ---


@pytest.mark.parametrize(
    ("name", "length"),
    [("basic_training", "20"), ("advanced_config", "60"), ("custom_models", "150")],
)
def test_an_example_runs(
    name: str, length: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", [name, length])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out or name == "custom_models"
