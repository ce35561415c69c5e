"""Several architectures: each shares its weights, and all of them their answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    rows,
    same,
    state,
    trained,
)
from torch import Tensor, nn

from safescale_ammt.config.roles import ROLES
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.model.device import settled
from safescale_ammt.modules.architectures import Architectures
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer, read_both
from safescale_ammt.training.architectures import turns
from safescale_ammt.training.codistillation import (
    Codistillation,
    SharingWithin,
    sharing_of,
)
from safescale_ammt.training.corrections import RUNGS, Alarm, Ladder
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import make_plan
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.sampling import agent_batches
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.trainer import learner_of, train

pytestmark = pytest.mark.usefixtures("same_start")


class Image(nn.Module):
    """A convolution on four numbers, which it takes for 2 x 2 points."""

    def __init__(self, n_out: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Linear(27, n_out)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x.view(-1, 1, 2, 2))))
        return self.last(h.flatten(1))


class Tied(nn.Module):
    """Two layers that share one matrix, and a buffer that it makes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.last, self.drop = nn.Linear(4, 1), nn.Dropout(0.2)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * x.abs().mean(0)
        h = self.drop(torch.relu(self.first(x / self.scale)))
        return self.last(torch.relu(self.second(h)))


def made(kind: Any, *arguments: Any) -> nn.Module:
    """Returns a module with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module: nn.Module = kind(*arguments)
        return module


def wide() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 1))


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Leaves torch as it was: a part of the trainer alone says what torch may do."""
    with settled(1):
        yield


def mixed(*models: nn.Module, how: Codistillation | None = None, **changes: Any) -> Any:
    """Returns what training hands on, before the merge, and its nets."""
    trainer = SAFESCALEAMMTTrainer(brief(**changes), codistillation=how)
    parts = [data.tensors[:2] for data in both()]
    run = trainer.prepare(models, read_both(*((p, None) for p in parts), ()), None)
    law = run.promises.constitution
    return train(run.nets, run.config, law, log=run.log), run.nets


# --- known answers ---


def test_the_lesson_is_the_divergence_from_the_mean_of_chances() -> None:
    out = torch.tensor([[0.4], [-1.0]])
    answers = [torch.tensor([[1.0], [0.0]]), torch.tensor([[-3.0], [2.0]])]
    for heat in (1.0, 2.5):
        found = Codistillation(temperature=heat).lesson(out, answers, numbers=False)
        wanted = 0.0
        for i in range(2):
            p = 1 / (1 + math.exp(-float(out[i]) / heat))
            q = sum(1 / (1 + math.exp(-float(a[i]) / heat)) for a in answers) / 2
            wanted += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
        assert float(found) == pytest.approx(heat**2 * wanted / 2, rel=1e-5)


def test_two_logits_teach_what_one_teaches_and_whoever_agrees_learns_nothing() -> None:
    how, z = Codistillation(temperature=3.0), torch.tensor([[0.3], [2.0]])
    pair = torch.cat([torch.zeros_like(z), z], 1)
    other = [torch.tensor([[1.0], [-1.0]])]
    one = how.lesson(z, other, numbers=False)
    two = how.lesson(
        pair, [torch.cat([torch.zeros_like(o), o], 1) for o in other], numbers=False
    )
    assert float(one) == pytest.approx(float(two))
    assert float(how.lesson(z, [z], numbers=False)) == pytest.approx(0, abs=1e-6)


def test_numbers_are_taught_by_the_squared_distance_to_the_teachers_mean() -> None:
    out = torch.tensor([[1.0, 2.0]])
    answers = [torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    found = Codistillation(temperature=9.0).lesson(out, answers, numbers=True)
    assert float(found) == pytest.approx((1 + 4) / 2)


def test_the_weight_rises_in_a_line_behind_the_trunk() -> None:
    config = brief(steps=110, trunk_steps=10)
    how = Codistillation(weight=2.0, warmup=0.1)
    found = [how.at(step, config) for step in (0, 4, 9, 50)]
    assert found == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert Codistillation(weight=2.0, warmup=0.0).at(0, config) == 2.0


def test_agents_learn_from_the_last_rounds_answers_and_the_twin_from_nobody() -> None:
    how = Codistillation(weight=0.7, warmup=0.0)
    settings: dict[str, Any] = {"trunk_steps": 0, "steps": 2, "sync_every": 1}
    models = net(), made(nn.Linear, 4, 1)
    taught, nets = mixed(*models, how=how, **settings)
    silent, _ = mixed(*models, how=Codistillation(weight=0), **settings)
    assert not torch.equal(taught.agents[0], silent.agents[0])
    assert not torch.equal(taught.agents[1], silent.agents[1])
    assert torch.equal(taught.twin, silent.twin)
    assert nets.architectures(taught.agents).tolist() == [0, 1]
    assert nets.architectures(taught.twin).tolist() == [0]
    # Before the first round nobody has taught: a single step is the same.
    first, other = (
        mixed(*models, how=each, **{**settings, "steps": 1})[0]
        for each in (how, Codistillation(weight=0))
    )
    assert torch.equal(first.agents, other.agents)


def test_a_gradient_is_that_of_the_loss_and_of_the_lesson() -> None:
    how = Codistillation(weight=0.7, temperature=2.0, warmup=0.0)
    done, nets = mixed(net(), made(nn.Linear, 4, 1), how=how, num_agents=2)
    learner = nets.learner(nets.rows("train"), (), brief())
    generalist = ROLES["generalist"]
    learner.fork([generalist, generalist, TWIN])
    batch = torch.arange(24).view(3, 8)
    none = torch.zeros(3, 0, dtype=torch.long)
    before = learner.gradient(batch, none, torch.zeros(0))[1].clone()
    share = SharingWithin(learner.theta[:2].clone(), torch.tensor([0, 1]), brief())
    yes = torch.ones(2, dtype=torch.bool)
    theta = done.agents.clone()
    word = share.share(theta, usable=yes, eligible=yes, fitness=lambda: torch.zeros(2))
    learner.theta[:2], kept = theta, learner.theta[:2].clone()
    learner.adopt(kept, word)
    after = learner.gradient(batch, none, torch.zeros(0))[1]
    # The twin is taught by nobody, and the trunk's weights by the labels alone.
    assert torch.equal(before[2], after[2])
    for i, teacher in ((0, 1), (1, 0)):
        module, layout = nets.mix.modules[i], nets.mix.layouts[i]
        own = [p.detach().clone().requires_grad_() for p in module.parameters()]
        names = [name for name, _ in module.named_parameters()]
        x = nets.rows("train").batch(batch[i])
        out = torch.func.functional_call(
            module, dict(zip(names, own, strict=True)), (x,)
        )
        taught = nets.logits(
            done.agents[teacher][None], nets.rows("train"), batch[i][None]
        )[0]
        p, q = torch.sigmoid(out / 2), torch.sigmoid(taught / 2)
        apart = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
        lesson = 0.7 * 4 * apart.mean()
        wanted = torch.cat([g.flatten() for g in torch.autograd.grad(lesson, own)])
        found = (after - before)[i]
        torch.testing.assert_close(found[: len(wanted)], wanted, rtol=0, atol=1e-5)
        assert not found[len(wanted) :].any()
        assert len(wanted) == layout.trained


# --- sharing ---


def test_agents_share_weights_within_their_architecture_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(4, 6, generator=generator)
    of, config = torch.tensor([0, 1, 1, 0]), brief(self_weight=0.5)
    yes = torch.ones(4, dtype=torch.bool)
    options: dict[str, Any] = {"fitness": lambda: torch.zeros(4)}
    both_of, start = theta.clone(), torch.zeros(2, 6)
    found = SharingWithin(start, of, config).share(
        both_of, usable=yes, eligible=yes, **options
    )
    for number in (0, 1):
        own = theta[of == number].clone()
        alone = Sharing(start[number], config)
        alone.share(own, usable=yes[:2], eligible=yes[:2], **options)
        assert torch.equal(both_of[of == number], own)
        assert torch.equal(found.word[number], alone.consensus)
    assert found.shared
    assert not found.eventful


def test_who_may_not_teach_does_not_say_anything_to_others_either() -> None:
    of, start = torch.tensor([0, 1, 0, 1]), torch.zeros(2, 3)
    theta = torch.arange(12.0).view(4, 3)
    share = SharingWithin(start, of, brief())
    yes = torch.ones(4, dtype=torch.bool)
    options: dict[str, Any] = {"usable": yes, "fitness": lambda: torch.zeros(4)}
    events: list[dict[str, Any]] = []
    may = torch.tensor([True, False, True, False])
    found = share.share(theta.clone(), eligible=may, log=events.append, **options)
    # Neither agent of number 1 may teach: its word is left out.
    assert found.word.tolist() == [theta[[0, 2]].mean(0).tolist()]
    assert not found.shared
    assert events[0]["teachers"] == [True, False, True, False]
    broken = theta.clone()
    broken[2] = float("nan")
    found = share.share(broken, eligible=yes, **options)
    assert found.word[0].tolist() == theta[0].tolist()
    assert found.lost == (2,)
    assert broken.isfinite().all()


def test_roles_and_architectures_are_dealt_out_apart() -> None:
    generalist, safety = ROLES["generalist"], ROLES["safety"]
    four = [generalist, safety] * 2
    assert turns([*four, TWIN], 2).tolist() == [0, 1, 1, 0, 0]
    assert turns([generalist] * 5, 2).tolist() == [0, 1, 0, 1, 0]
    assert turns([generalist] * 3, 3).tolist() == [0, 1, 2]
    assert turns(four, 1).tolist() == [0] * 4


# --- rows ---


def test_a_row_says_what_it_is_of_and_a_mean_of_several_is_refused() -> None:
    models = [made(Image), made(Tied), made(nn.Linear, 4, 1)]
    mix = Architectures.of(models)
    theta = mix.rows()
    assert mix.numbers(theta).tolist() == [0, 1, 2]
    for module, layout, row in zip(models, mix.layouts, theta, strict=True):
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, view in layout.views(row).items():
            assert torch.equal(view, named[name])
            assert view.data_ptr() - row.data_ptr() < row.numel() * 4
    # Each part begins a line of the cache, whichever row is its own.
    assert theta.shape[1] % 16 == 0 == mix.trained % 16
    assert not theta[2, 5 : mix.trained].any()
    with pytest.raises(ValueError, match="of no architecture"):
        mix.numbers(theta[:2].mean(0, keepdim=True))


# --- whole trainings ---

PAIRS: dict[str, tuple[Any, Any]] = {
    "two widths": (net, wide),
    "a linear and a perceptron": (lambda: made(nn.Linear, 4, 1), net),
    "a convolution and a perceptron": (lambda: made(Image), net),
    "tied weights, dropout, a buffer": (lambda: made(Tied), wide),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_two_architectures_train_together_and_one_of_them_comes_back(pair: str) -> None:
    models = [build() for build in PAIRS[pair]]
    kinds = [type(m) for m in models]
    before = [state(m) for m in models]
    model, metrics = trained(models, num_agents=4, merge="auto")
    assert all(same(state(m), b) for m, b in zip(models, before, strict=True))
    won = metrics["architecture"]
    assert isinstance(model, kinds[won])
    assert model.state_dict().keys() == models[won].state_dict().keys()
    assert metrics["members"] == 1
    assert [a["architecture"] for a in metrics["agents"]] == [0, 1, 0, 1]
    told = metrics["architectures"]
    assert [a["agents"] for a in told] == [[0, 2], [1, 3]]
    assert [a["module"] for a in told] == [kind.__name__ for kind in kinds]
    for each in told:
        own = [metrics["agents"][i]["accuracy"] for i in each["agents"]]
        assert each["best"] == max(own)
        assert each["soup"] > 0.5


def test_predictions_that_are_shared_change_what_is_learnt() -> None:
    options = {"codistillation": Codistillation(weight=0.0)}
    settings: dict[str, Any] = {"merge": "soup", "num_agents": 4, "steps": 60}
    taught, _ = trained([net(), wide()], **settings)
    silent, _ = trained([net(), wide()], **settings, options=options)
    assert not same(state(taught), state(silent))
    again, _ = trained([net(), wide()], **settings)
    assert same(state(taught), state(again))


def test_a_trunk_of_several_is_not_drawn_out_and_that_is_said() -> None:
    for models, asked, said in (
        ((net(), wide()), 0.5, ["training.branch is 0.5, which does not apply"]),
        ((net(), wide()), "auto", []),
        ((net(),), 0.5, []),
    ):
        _, nets = mixed(*models, branch=asked)
        found = [s for s in nets.unapplied(brief(branch=asked)) if "branch" in s]
        assert [s.split(":")[0] for s in found] == said


def test_taught_agents_come_to_agree() -> None:
    """The mean distance of the soups' chances falls with the weight."""
    apart = []
    for weight in (0.0, 20.0):
        how = Codistillation(weight=weight, warmup=0.0)
        done, nets = mixed(
            *(made(nn.Linear, 4, 1), wide()), how=how, num_agents=2, steps=120
        )
        held = nets.rows("validation")
        index = torch.arange(len(held))[None]
        out = torch.sigmoid(nets.logits(done.agents, held, index))
        apart.append(float((out[0] - out[1]).abs().mean()))
    assert apart[1] < 0.7 * apart[0]


@pytest.mark.parametrize("wrapped", [list, tuple])
def test_one_module_in_a_list_is_that_module_bit_for_bit(wrapped: Any) -> None:
    plain, metrics = trained(net(1, nn.BatchNorm1d(8)), promises=GAP)
    listed, others = trained(wrapped([net(1, nn.BatchNorm1d(8))]), promises=GAP)
    assert same(state(plain), state(listed))
    assert {**metrics, "seconds": 0} == {**others, "seconds": 0}


def test_promises_are_kept_by_all_architectures_together() -> None:
    def gap(model: nn.Module) -> float:
        x, _, group = given[1].tensors
        says = model(x)[:, 0] >= 0
        rates = [says[group == g].double().mean() for g in (0, 1)]
        return float((rates[0] - rates[1]).abs())

    events: list[dict[str, Any]] = []
    settings: dict[str, Any] = {"num_agents": 4, "steps": 300, "trunk_steps": 30}
    settings |= {"agent_specializations": ["safety"], "learning_rate": 0.02}
    given = both(1200)
    models = [net(), made(nn.Linear, 4, 1)]
    free, _ = trained(models, *given, **settings)
    options = {"log": events.append}
    settings |= {"options": options, "promises": {"max_bias": 0.1}}
    kept, metrics = trained(models, *given, **settings)
    assert metrics["gaps"]["max-bias-group"]["value"] == pytest.approx(gap(kept))
    assert gap(kept) < 0.6 * gap(free)
    # One set of multipliers for all of them, which has moved.
    multipliers = [e["multiplier"] for e in events if e["event"] == "round"]
    assert any(v > 0 for m in multipliers for of in m.values() for v in of.values())
    (merge,) = [e for e in events if e["event"] == "merge"]
    tried = set(merge["scores"])
    assert {"soup 0", "soup 1", "best 0", "best 1", "distilled"} <= tried
    assert "ensemble" not in tried
    assert [e for e in events if e["event"] == "monitor"]


@pytest.mark.parametrize("form", ["soup", "best", "distilled", "refined", "ensemble"])
def test_a_form_that_is_asked_for_is_made_of_several(form: str) -> None:
    model, metrics = trained([net(), made(nn.Linear, 4, 1)], num_agents=4, merge=form)
    assert metrics["choice"].split()[0] == form
    if form == "ensemble":
        assert metrics["architecture"] is None
        assert metrics["members"] == 4
    else:
        assert isinstance(model, (nn.Sequential, nn.Linear)[metrics["architecture"]])


def test_each_soup_that_is_refuted_is_tried_with_a_fair_head() -> None:
    events: list[dict[str, Any]] = []
    settings: dict[str, Any] = {"promises": {"max_bias": 0.01}, "num_agents": 4}
    settings |= {"options": {"log": events.append}, "steps": 40, "trunk_steps": 40}
    trained([net(), wide()], *both(1600), **settings)
    (scores,) = [e["scores"] for e in events if e["event"] == "merge"]
    broken = {name for name in ("soup 0", "soup 1") if scores[name]["refuted"]}
    assert broken
    assert {n for n in scores if n.endswith("+head")} == {n + "+head" for n in broken}


@pytest.mark.parametrize("student", [0, 1])
def test_the_student_is_of_the_architecture_that_is_named(student: int) -> None:
    options = {"codistillation": Codistillation(student=student)}
    models = [net(), made(nn.Linear, 4, 1)]
    model, metrics = trained(models, merge="distilled", options=options)
    assert isinstance(model, type(models[student]))
    assert metrics["architecture"] == student


def test_numbers_are_learnt_together() -> None:
    x, _, _ = rows(300, 4)
    y = x[:, 0] * 2 - x[:, 1]
    given = [(x[:200], y[:200]), (x[200:], y[200:])]
    settings: dict[str, Any] = {"num_agents": 4, "steps": 200, "learning_rate": 0.02}
    for loss in (None, nn.HuberLoss()):
        options = {"loss": loss} if loss else {}
        model, metrics = trained(
            [made(nn.Linear, 4, 1), wide()], *given, options=options, **settings
        )
        assert metrics["final_r2"] > 0.8
        assert isinstance(model, (nn.Linear, nn.Sequential)[metrics["architecture"]])
        assert all("soup" in each for each in metrics["architectures"])


def test_three_architectures_of_three_classes_under_a_loss_of_ones_own() -> None:
    data = both(300, classes=3)
    models = [net(3), made(nn.Linear, 4, 3), made(Image, 3)]
    options = {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}
    model, metrics = trained(models, *data, num_agents=3, options=options)
    assert metrics["final_accuracy"] > 0.4
    assert model(data[1].tensors[0]).shape == (len(data[1]), 3)


@pytest.mark.parametrize(("phase", "at"), [("trunk", 5), ("round", 10), ("round", 20)])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, phase: str, at: int
) -> None:
    def models() -> list[nn.Module]:
        return [net(1, nn.BatchNorm1d(8)), made(Image), made(Tied)]

    settings: dict[str, Any] = {"num_agents": 4, "steps": 40, "checkpoint_every": 1}
    settings |= {"promises": GAP, "merge": "soup"}
    whole, _ = trained(models(), **settings)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == phase and event["step"] == at:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"checkpoints": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        trained(models(), **settings, options={**options, "log": stop})
    events: list[dict[str, Any]] = []
    options["log"] = events.append
    resumed, _ = trained(models(), **settings, options=options)
    assert [e["step"] for e in events if e["event"] == "resumed"] == [at]
    assert same(state(whole), state(resumed))


def test_other_lessons_are_another_training(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_agents": 2, "checkpoint_every": 1}

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["step"] == 20:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"checkpoints": tmp_path, "log": stop}
    with pytest.raises(KeyboardInterrupt):
        trained([net(), wide()], **settings, options=options)
    events: list[dict[str, Any]] = []
    options |= {"log": events.append, "codistillation": Codistillation(weight=0.5)}
    trained([net(), wide()], **settings, options=options)
    assert not [e for e in events if e["event"] == "resumed"]


def test_a_correction_takes_each_architecture_back_to_its_own_soup() -> None:
    done, nets = mixed(net(), made(nn.Linear, 4, 1), num_agents=4)
    plan = make_plan(nets, brief(num_agents=4), Promises.read(None, ()).constitution)
    learner = learner_of(nets, plan)
    sharing, placement = sharing_of(plan, learner.theta), Placement(5)
    learner.fork(plan.slots, placement)
    learner.averaged[:4] = done.agents
    ladder = Ladder(
        plan,
        placement,
        learner=learner,
        dual=DualUpdate.start(plan, learner.averaged, placement),
        sharing=sharing,
        batches=agent_batches(plan, placement),
    )
    soups = ladder.soups()
    for number, own in enumerate(([0, 2], [1, 3])):
        torch.testing.assert_close(soups[number], done.agents[own].mean(0))
    ladder.keep(soups, 20)
    none = np.zeros(0)
    ladder.take(RUNGS.index("roll_back"), Alarm(25, none, none.astype(bool), "A test."))
    for slot, number in enumerate([0, 1, 0, 1]):
        assert torch.equal(learner.theta[slot], soups[number])
    # An architecture whose agents are all lost has no soup, and none is kept.
    learner.averaged[[1, 3], 0] = float("nan")
    assert len(ladder.soups()) == 1
    ladder.keep(ladder.soups(), 30)
    assert torch.equal(ladder.tensors()["feasible"], soups)


# --- refused ---


def refused(models: Any, wanted: str, **changes: Any) -> None:
    with pytest.raises(SafescaleError, match=wanted) as info:
        trained(models, **changes)
    assert "\n" not in str(info.value)


def test_what_does_not_fit_together_is_one_sentence() -> None:
    refused([], "is an empty list")
    refused([net(), "wide"], r"initial_model\[1\]: The model is str")
    refused([net(), nn.Linear], r"initial_model\[1\]: The model is the class Linear")
    wrong = r"initial_model\[1\] \(Linear\) answers n rows with \(n, 3\), "
    refused([net(), made(nn.Linear, 4, 3)], wrong + r"initial_model\[0\]")
    refused([net(), made(nn.Linear, 5, 1)], r"initial_model\[1\]: .* cannot be called")
    refused([net(), nn.ReLU()], r"initial_model\[1\]: The model has no parameter")
    refused([net(), wide().double()], "torch.float32, torch.float64")
    chances = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    refused([net(), chances], r"initial_model\[1\]: The model answers with chances")


def test_sections_that_do_not_fit_are_one_sentence() -> None:
    three = [net(), wide(), made(nn.Linear, 4, 1)]
    refused(three, "num_agents is 2, but 3 models", num_agents=2)
    refused(three, "tune is 'population'", num_agents=3, tune="population")
    how = {"codistillation": Codistillation(student=2)}
    refused(three[:2], "student is 2, but the last", options=how)
    with pytest.raises(ConfigError, match="codistillation is a dict"):
        trained(net(), options={"codistillation": {"weight": 1}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", -1.0),
        ("weight", float("nan")),
        ("weight", float("inf")),
        ("temperature", 0.0),
        ("warmup", 1.5),
        ("student", -1),
        ("weight", "much"),
        ("student", 0.5),
    ],
)
def test_a_number_that_means_nothing_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"codistillation.{name} is"):
        Codistillation(**{name: value})


def test_a_teacher_that_says_no_number_is_not_heard() -> None:
    class Breaking(nn.Linear):
        """Says no number once it answers and does not learn."""

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            asked = not torch.is_grad_enabled() and len(x) == 32
            return out / 0 if asked else out

    model, metrics = trained([made(Breaking, 4, 1), net()], num_agents=2)
    del model
    assert all(agent["finite"] for agent in metrics["agents"])


class Dying(nn.Linear):
    """Loses its weights behind the trunk."""

    def __init__(self) -> None:
        super().__init__(4, 1)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            if int(self.calls) > 20:
                self.weight.data.fill_(float("nan"))
        return super().forward(x)


@pytest.mark.parametrize("student", [0, 1])
def test_an_architecture_that_is_lost_as_a_whole_leaves_the_others(
    student: int,
) -> None:
    options = {"codistillation": Codistillation(student=student)}
    models = [net(), made(Dying)]
    model, metrics = trained(models, promises=GAP, num_agents=2, options=options)
    assert [agent["finite"] for agent in metrics["agents"]] == [True, False]
    assert "soup" in metrics["architectures"][0]
    assert "soup" not in metrics["architectures"][1]
    assert all(p.isfinite().all() for p in model.parameters())
    assert metrics["architecture"] == 0
