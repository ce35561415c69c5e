"""A student answers as the agents do together, whatever the labels say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from module_world import both, net
from module_world import trained as modules_trained
from torch.utils.data import TensorDataset
from training_world import (
    DP,
    GENOME,
    TPR,
    brief,
    constitution,
    prepared,
    prepared_three_classes,
)

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError
from safescale_ammt.model.network import probability
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import DISTILLED, REFINED, STUDENTS, merge
from safescale_ammt.training.student import lagrangian, learnt_on, soft_answers
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard

LAW = constitution({**TPR, "threshold": 0.9})
LONGER = brief(steps=200)


@pytest.fixture(scope="module", params=[prepared, prepared_three_classes])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    encoded = EncodedDataset(
        Dataset.load(request.param(tmp_path_factory.mktemp("loans")))
    )
    return train(GenomeNets(encoded, GENOME), brief(), LAW, log=discard)


def contrary(trained: Trained) -> torch.Tensor:
    """Returns agents that say the reverse of what they have learnt."""
    agents = trained.agents.clone()
    nets = trained.nets
    assert isinstance(nets, GenomeNets)
    last = GENOME.widths[-1] * nets.encoded.n_out + nets.encoded.n_out
    agents[:, -last:] *= -1
    return agents


def chosen(trained: Trained, theta: torch.Tensor) -> torch.Tensor:
    """Returns the classes that nets answer together on rows of *validation*."""
    said = soft_answers(trained.nets, theta, trained.nets.rows("validation"))
    return said.argmax(1) if said.dim() > 1 else (said >= 0.5).long()


def test_a_student_says_what_its_teachers_say_and_not_the_labels(
    trained: Trained,
) -> None:
    agents = contrary(trained)
    teachers = chosen(trained, agents)
    those = replace(trained, agents=agents, config=LONGER)
    students = [learnt_on(those, LAW, soft=share) for share in (1.0, 0.0)]
    assert students[0].shape == (1, agents.shape[1])
    agreed = [
        float((chosen(trained, each) == teachers).double().mean()) for each in students
    ]
    assert agreed[0] > 0.9
    assert agreed[1] < 0.6


def test_what_is_learnt_lies_between_label_and_answers(trained: Trained) -> None:
    rows = trained.nets.rows("validation")
    said = soft_answers(trained.nets, trained.agents, rows)
    assert said.min() >= 0
    if said.dim() > 1:
        torch.testing.assert_close(said.sum(1), torch.ones(len(rows)))
    one = [
        soft_answers(trained.nets, trained.agents[i : i + 1], rows)
        for i in range(len(trained.agents))
    ]
    torch.testing.assert_close(said, torch.stack(one).mean(0))


@pytest.mark.parametrize("form", STUDENTS)
def test_the_student_is_one_net_that_is_scored_and_re_checked(
    trained: Trained, form: str
) -> None:
    found = merge(trained, LAW, form=form)
    assert (found.choice, found.model.members) == (form, 1)
    assert found.model.form == form
    assert found.recheck == {form: []}
    again = merge(trained, LAW, form=form)
    for name, weight in found.model.weights.items():
        assert (again.model.weights[name] == weight).all()


def test_a_student_that_breaks_a_promise_is_not_called_feasible(
    trained: Trained,
) -> None:
    impossible = constitution({"metric": "accuracy", "threshold": 0.999})
    found = merge(trained, impossible, form=DISTILLED)
    assert not found.feasible
    assert found.scores[DISTILLED]["refuted"] == ["accuracy"]


def test_a_student_begins_as_the_soup_or_as_it_is_told(trained: Trained) -> None:
    still = replace(trained, config=brief(steps=1, trunk_steps=0, learning_rate=1e-12))
    soup = trained.agents.mean(0, keepdim=True)
    torch.testing.assert_close(learnt_on(still, LAW), soup)
    start = trained.agents[1:2]
    torch.testing.assert_close(learnt_on(still, LAW, start=start), start)


def test_lost_agents_teach_nothing(trained: Trained) -> None:
    broken = trained.agents.clone()
    broken[0] = torch.nan
    left = torch.tensor([False, True, True])
    some = replace(trained, agents=broken, finite=left)
    weights = merge(some, LAW, form=DISTILLED).model.weights
    assert all(torch.as_tensor(w).isfinite().all() for w in weights.values())


@pytest.mark.parametrize("rate", [0.001, 1.0, 100.0])
def test_a_student_is_never_worse_than_the_soup_on_validation(
    trained: Trained, rate: float
) -> None:
    rows = trained.nets.rows("validation")
    those = replace(trained, config=brief(learning_rate=rate, warmup_steps=0))
    soup = trained.agents.mean(0, keepdim=True)
    student = learnt_on(those, LAW)
    least = lagrangian(those, soup, rows)
    assert lagrangian(those, student, rows) <= least
    assert (lagrangian(those, student, rows) < least) != torch.equal(student, soup)


def test_the_sections_steps_are_the_students(trained: Trained) -> None:
    short, long = (
        learnt_on(replace(trained, config=brief(steps=steps)), LAW)
        for steps in (20, 60)
    )
    assert not torch.equal(short, long)


def test_a_student_of_agents_that_ended_early_takes_as_many_steps(
    trained: Trained,
) -> None:
    early = replace(trained, config=brief(steps=60, patience=1), steps=20)
    short = replace(trained, config=brief(steps=20, trunk_steps=10))
    assert torch.equal(learnt_on(early, LAW), learnt_on(short, LAW))


def test_a_student_of_tuned_agents_learns_under_their_setting(
    trained: Trained,
) -> None:
    # Rate, decay and dual rate.
    told = torch.tensor([[0.003, 0.0, 1.0]], dtype=torch.float64)
    wild, own = brief(learning_rate=1e-9), brief(learning_rate=0.003)
    tuned = learnt_on(replace(trained, config=wild, setting=told), LAW)
    torch.testing.assert_close(tuned, learnt_on(replace(trained, config=own), LAW))
    assert not torch.equal(tuned, learnt_on(replace(trained, config=wild), LAW))


def test_what_the_promises_weighed_they_weigh_on(trained: Trained) -> None:
    cells = trained.constraints.cells
    assert len(trained.cell_weights) == len(cells) > 0
    # The chance of the outcome of each cell is pushed down.
    weights = torch.full((len(cells),), 5.0)
    pushed = replace(trained, cell_weights=weights, config=LONGER)
    free = replace(pushed, cell_weights=torch.zeros_like(weights))
    rows = trained.nets.rows("validation")
    inside = trained.constraints.membership(rows.groups, rows.y)
    rates = []
    for each in (pushed, free):
        theta = learnt_on(each, LAW, soft=0.0)
        out = trained.nets.logits(theta, rows, torch.arange(len(rows))[None])[0]
        rates.append(
            [
                float(probability(out, cell.outcome)[mask].mean())
                for cell, mask in zip(cells, inside, strict=True)
            ]
        )
    # With several classes some cells' outcomes push against each other.
    assert sum(rates[0]) < sum(rates[1]) - 0.1 or len(trained.nets.classes) > 2
    assert rates[0] != rates[1]


@pytest.mark.parametrize("form", STUDENTS)
def test_trees_have_no_student(form: Any) -> None:
    with pytest.raises(ConfigError, match=rf"training\.merge is '{form}'"):
        TrainingConfig(learner="trees", merge=form)


@pytest.mark.parametrize("form", STUDENTS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_module_learns_on(classes: int, form: str) -> None:
    n_out = 1 if classes == 2 else classes
    options: dict[str, Any] = {"steps": 150, "merge": form}
    model, metrics = modules_trained(
        net(n_out, torch.nn.BatchNorm1d(8)), *both(240, classes), **options
    )
    assert metrics["choice"] == form
    assert metrics["members"] == 1
    assert metrics["final_accuracy"] > 0.6
    assert isinstance(model, torch.nn.Sequential)


def test_a_module_that_predicts_numbers_is_distilled() -> None:
    def numbers(seed: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(200, 4, generator=generator)
        return TensorDataset(x, x[:, :1] * 2 + 1)

    _, metrics = modules_trained(
        net(), numbers(1), numbers(2), steps=200, merge=DISTILLED
    )
    assert metrics["choice"] == DISTILLED
    assert metrics["final_r2"] > 0.6


def test_a_users_own_loss_of_labels_is_not_asked_for_chances() -> None:
    def own(answer: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert bool(((target == 0) | (target == 1)).all())
        return torch.nn.functional.binary_cross_entropy_with_logits(answer, target)

    _, metrics = modules_trained(net(), *both(), merge=DISTILLED, options={"loss": own})
    assert metrics["choice"] == DISTILLED


def test_refined_and_distilled_are_not_the_same(trained: Trained) -> None:
    refined, distilled = (
        merge(trained, LAW, form=form).model.weights for form in (REFINED, DISTILLED)
    )
    assert any((refined[name] != distilled[name]).any() for name in refined)


def test_a_promise_on_parity_is_re_checked_too(trained: Trained) -> None:
    found = merge(trained, constitution({**DP, "threshold": 0.9}), form=DISTILLED)
    assert set(found.scores[DISTILLED]["values"]) == {"dp-gap"}
