"""Merge: one model out of many, a feasible one, chosen on half and re-checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_world import DP, GENOME, TPR, USEFUL, brief, constitution, prepared

from safescale_ammt.config.sections import Threshold
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.genome import shapes
from safescale_ammt.model.network import unflatten
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import (
    BEST,
    BLEND,
    ENSEMBLE,
    HEADED,
    SOUP,
    Merged,
    blends,
    first_unbeaten,
    merge,
)
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard

PARITY = constitution({**DP, "threshold": 0.1})


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = tmp_path_factory.mktemp("loans")
    return EncodedDataset(
        Dataset.load(prepared(folder, 2400, seed=2, sensitive_in_model=True))
    )


@pytest.fixture(scope="module")
def trained(encoded: EncodedDataset) -> Trained:
    return train(
        GenomeNets(encoded, GENOME), brief(seed=2), constitution(TPR), log=discard
    )


def merged(
    trained: Trained, encoded: EncodedDataset, *constraints: Any, **options: Any
) -> Merged:
    promises = constitution(*(constraints or (TPR, USEFUL)))
    return merge(trained, promises, **options)


def test_every_form_is_scored_and_one_is_chosen(
    trained: Trained, encoded: EncodedDataset
) -> None:
    found = merged(trained, encoded)
    assert found.scores[SOUP]["refuted"]
    assert set(found.scores) == {SOUP, BEST, ENSEMBLE, HEADED}
    assert found.choice in found.scores
    assert found.feasible
    event = found.to_dict()
    json.dumps(event, allow_nan=False)
    assert event["recheck"] == {found.choice: []}
    assert set(found.scores[SOUP]["values"]) == {"tpr-gap", "accuracy"}


@pytest.mark.parametrize(
    ("form", "members"), [(SOUP, 1), (BEST, 1), (ENSEMBLE, 3), ("auto", None)]
)
def test_a_form_that_is_asked_for_is_used(
    trained: Trained, encoded: EncodedDataset, form: str, members: int | None
) -> None:
    found = merged(trained, encoded, form=form)
    if members is not None:
        assert (found.choice, found.model.members) == (form, members)
    assert found.twin.form == "twin"


def test_the_soup_is_the_mean_of_the_agents_weights(
    trained: Trained, encoded: EncodedDataset
) -> None:
    soup = merged(trained, encoded, form=SOUP).model.weights
    ensemble = merged(trained, encoded, form=ENSEMBLE).model.weights
    for name, weight in soup.items():
        torch.testing.assert_close(weight[0], ensemble[name].mean(0))


def test_an_agent_that_was_lost_is_left_out(
    trained: Trained, encoded: EncodedDataset
) -> None:
    poisoned = trained.agents.clone()
    poisoned[1] = torch.nan
    finite = torch.tensor([True, False, True])
    two = replace(trained, agents=poisoned, finite=finite)
    assert merged(two, encoded, form=ENSEMBLE).model.members == 2
    assert np.isfinite(merged(two, encoded).scores[SOUP]["accuracy"])


def test_one_agent_alone_is_merged_too(
    trained: Trained, encoded: EncodedDataset
) -> None:
    alone = replace(trained, agents=trained.agents[:1], finite=trained.finite[:1])
    found = merged(alone, encoded)
    assert ENSEMBLE not in found.scores
    assert found.model.members == 1


def test_what_no_form_keeps_is_said_and_the_least_bad_is_handed_on(
    trained: Trained, encoded: EncodedDataset
) -> None:
    impossible = {"metric": "accuracy", "threshold": 0.999}
    found = merged(trained, encoded, impossible)
    assert not found.feasible
    assert all(score["refuted"] == ["accuracy"] for score in found.scores.values())
    assert {f"agent {i}" for i in range(3)} <= set(found.recheck)


@pytest.fixture(scope="module")
def mixed(encoded: EncodedDataset) -> Trained:
    """One fair agent beside two that trained without a constitution."""
    settings = brief(steps=300, trunk_steps=100)
    fair = train(GenomeNets(encoded, GENOME), settings, PARITY, log=discard)
    agents = torch.cat([fair.agents[:1], fair.twin * 3, fair.twin * 3])
    return replace(fair, agents=agents)


def test_a_soup_that_breaks_the_promise_gives_way_to_a_form_that_keeps_it(
    mixed: Trained, encoded: EncodedDataset
) -> None:
    found = merge(mixed, PARITY)
    assert found.scores[SOUP]["refuted"] == ["dp-gap"]
    assert found.feasible
    assert found.choice != SOUP


def test_where_every_form_breaks_the_promise_the_best_fair_agent_takes_over(
    mixed: Trained, encoded: EncodedDataset
) -> None:
    nothing = Constraints((), (), (), {}, ())
    headless = replace(mixed, constraints=nothing, targets=torch.zeros(0))
    found = merge(headless, PARITY)
    assert HEADED not in found.scores
    assert all(score["refuted"] for score in found.scores.values())
    assert (found.choice, found.feasible) == ("agent 0", True)


def test_a_soup_that_nothing_refutes_gets_no_head(
    trained: Trained, encoded: EncodedDataset
) -> None:
    found = merged(trained, encoded, {**TPR, "threshold": 0.99}, USEFUL)
    assert found.scores[SOUP]["refuted"] == []
    assert set(found.scores) == {SOUP, BEST, ENSEMBLE}


def test_a_head_only_goes_with_a_binary_label(
    trained: Trained, encoded: EncodedDataset
) -> None:
    found = merged(trained, encoded)
    assert found.model.head is None or found.choice == HEADED


def biased(trained: Trained, encoded: EncodedDataset, agents: float, twin: float):
    """Three nets like the twin whose logits are moved, and the twin moved too."""
    theta = trained.twin.repeat(4, 1)
    layout = shapes(GENOME, encoded.d_in(GENOME.encoding), encoded.n_out)
    # The layers are views of the rows of weights.
    bias = unflatten(theta, layout)["out.bias"]
    bias[:3] += agents
    bias[3:] += twin
    nothing = Constraints((), (), (), {}, ())
    return replace(
        trained,
        agents=theta[:3],
        twin=theta[3:],
        constraints=nothing,
        targets=torch.zeros(0),
    )


@pytest.fixture(scope="module")
def constant(mixed: Trained, encoded: EncodedDataset) -> Trained:
    """Agents that answer yes to everybody, beside a twin that has learnt something."""
    return biased(mixed, encoded, agents=30.0, twin=0.0)


LOOSE = {**DP, "threshold": 0.9, "tier": "hard"}


def test_a_collapsed_choice_gives_way_to_the_first_step_that_shows_skill(
    constant: Trained, encoded: EncodedDataset
) -> None:
    found = merge(constant, constitution(LOOSE))
    assert found.replaced == SOUP
    assert found.model.form == BLEND
    assert found.feasible
    assert found.doubts == ()
    names = [name for name, _ in blends(constant)]
    assert found.choice in names
    # No step before it shows skill.
    for (name, step), _ in zip(
        blends(constant), range(names.index(found.choice)), strict=False
    ):
        rows = encoded.rows("select", GENOME.encoding)
        answer = rows.answers(step).prediction
        assert answer.mean() > 0.9, name
    told = [event["reason"] for event in found.events() if event["event"] == "doubt"]
    assert "soup is no better than the same answer for everybody" in told[0]


def test_where_one_half_never_answers_yes_another_threshold_does(
    mixed: Trained, encoded: EncodedDataset
) -> None:
    never = biased(mixed, encoded, agents=-9.0, twin=-9.0)
    balanced = {"metric": "balanced_accuracy", "threshold": 0.52}
    found = merge(never, constitution(LOOSE, balanced))
    assert found.replaced == SOUP
    assert found.choice.startswith("soup at 0.0")
    assert found.model.threshold < 0.01
    assert found.feasible


def test_where_no_kept_point_has_skill_and_keeps_the_promise_it_is_said(
    constant: Trained, encoded: EncodedDataset
) -> None:
    found = merge(constant, constitution({**DP, "threshold": 0.001}))
    assert (found.choice, found.replaced) == (SOUP, "")
    assert "'yes' to every row" in found.doubts[0]
    told = [event["reason"] for event in found.events() if event["event"] == "doubt"]
    assert told[0].endswith("skill and is likely to keep every hard promise.")


def test_the_last_step_from_the_soup_to_the_twin_is_the_twin(
    trained: Trained, encoded: EncodedDataset
) -> None:
    *_, (name, last) = blends(trained)
    assert name == "8/8 from the soup to the twin"
    twin = merged(trained, encoded).twin
    for layer, weight in twin.weights.items():
        torch.testing.assert_close(last.weights[layer], weight)


def test_a_threshold_is_chosen_on_select_and_travels_with_the_model(
    mixed: Trained, encoded: EncodedDataset, tmp_path: Path
) -> None:
    rule: Threshold = {
        "objective": "cost",
        "false_negative": 9.0,
        "false_positive": 1.0,
    }
    half = merge(mixed, constitution(LOOSE))
    assert half.model.threshold == half.twin.threshold == 0.5
    found = merge(mixed, constitution(LOOSE), rule=rule)
    # A missed positive costs nine times a false alarm: yes from a lower score on.
    assert found.model.threshold < 0.5
    assert found.twin.threshold < 0.5
    assert found.to_dict()["threshold"] == found.model.threshold
    found.save(tmp_path / "m", encoded.schema)
    loaded = Predictor.load(tmp_path / "m").model
    assert loaded.threshold == found.model.threshold
    rows = encoded.rows("select", GENOME.encoding)
    answer = rows.answers(loaded)
    np.testing.assert_array_equal(
        answer.prediction, answer.score >= found.model.threshold
    )


def test_a_threshold_that_breaks_a_promise_gives_way_to_one_that_keeps_it(
    mixed: Trained, encoded: EncodedDataset
) -> None:
    rule: Threshold = {"objective": "balanced_accuracy"}
    accurate = {"metric": "accuracy", "reference": "majority", "delta": -0.05}
    found = merge(mixed, constitution(accurate), rule=rule)
    assert not found.scores[found.choice]["refuted"]


def test_preference_yields_only_to_a_clear_difference() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(1000) < 0.8).astype(float)
    slightly, clearly = base.copy(), base.copy()
    wrong = np.flatnonzero(base == 0)
    slightly[wrong[:2]] = 1
    clearly[wrong[:60]] = 1
    hits = {"a": base, "b": slightly, "c": clearly}
    assert first_unbeaten(["a", "b"], hits.__getitem__) == "a"
    assert first_unbeaten(["a", "b", "c"], hits.__getitem__) == "c"
    assert first_unbeaten(["b", "a"], hits.__getitem__) == "b"
