"""How many agents are enough is decided by what they measure, and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from placement_world import AUTO, Case, Outcome, load, outcome, start, wait
from test_checkpoint import same, saved, stop
from training_world import DP, GENOME, brief, prepared

from safescale_ammt.config.sections import AUTO_AGENTS, TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.store.base import Store
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.flatness import Figure, evidence

ALIKE = {"learning_rate": 0.1, "batch_size": 8, "self_weight": 1.0}
"""Nets that all end in one place, as such steps leave little of what they learn."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)


@pytest.fixture(scope="module")
def encoded(dataset: Path) -> EncodedDataset:
    return EncodedDataset(Dataset.load(dataset))


@pytest.fixture(scope="module")
def many(encoded: EncodedDataset) -> Outcome:
    return outcome(encoded, AUTO["auto"])


def events_of(found: Outcome, *kinds: str) -> list[dict[str, Any]]:
    return [e for e in found.events if e["event"] in kinds]


# --- the rule ---


def test_the_spread_is_what_agents_differ_by_beyond_their_rows() -> None:
    y, v = torch.tensor([0.0, 0.1, 0.2, 0.3]), torch.full((4,), 0.01)
    figure = Figure.pooled(y, v, 1.0)
    assert figure is not None
    assert figure.value == pytest.approx(0.15)
    assert figure.error == pytest.approx(0.05)
    # Their variance is .0167; .01 of it is the rows'.
    assert figure.spread == pytest.approx((0.05 / 3 - 0.01) ** 0.5 / 2)


def test_agents_that_differ_as_rows_do_are_enough_about_nine_times_in_ten() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 4, generator=generator)
    figures = [Figure.pooled(y, torch.ones(4), 1.0) for y in draws]
    flat = sum(f is not None and f.ratio <= 1 for f in figures) / 2000
    # P(chi-squared of 3 <= 6) = .888.
    assert flat == pytest.approx(0.888, abs=0.03)


def test_rows_that_several_agents_hold_out_count_once() -> None:
    y, v = torch.rand(8), torch.full((8,), 0.01)
    once, twice = Figure.pooled(y, v, 1.0), Figure.pooled(y, v, 2.0)
    assert once is not None
    assert twice is not None
    assert twice.error == pytest.approx(once.error * 2**0.5)


def test_an_agent_without_a_figure_is_left_out_and_one_alone_has_none() -> None:
    y, v = torch.tensor([0.1, torch.nan, 0.3]), torch.tensor([0.01, 0.01, 0.01])
    assert Figure.pooled(y, v, 1.0) == Figure.pooled(y[[0, 2]], v[:2], 1.0)
    assert Figure.pooled(y[:2], v[:2], 1.0) is None


@pytest.mark.parametrize(
    ("spread", "agents", "kind", "says"),
    [
        (0.01, 4, "agents", "4 agents: they are enough."),
        (0.03, 4, "more_agents", "4 agents: more are tried."),
        (0.03, 16, "agents", "16 agents: 16 are the most that are tried."),
    ],
)
def test_the_evidence_says_what_follows_and_why(
    spread: float, agents: int, kind: str, says: str
) -> None:
    event = evidence(agents, {"gap": Figure(0.1, 0.02, spread)}, 16)
    assert event["event"] == kind
    assert event["reason"].startswith(says)
    assert event["reason"].endswith(f"gap {spread:.2g} against 0.02.")
    json.dumps(event, allow_nan=False)


# --- the runs ---


def test_agents_that_cannot_be_told_apart_are_four(encoded: EncodedDataset) -> None:
    case = Case((DP,), changes={**ALIKE, "num_agents": "auto"})
    found = outcome(encoded, case)
    (event,) = events_of(found, "agents", "more_agents")
    assert (event["event"], event["agents"], event["flat"]) == ("agents", 4, True)
    assert set(event["figures"]) == {"loss", "dp-gap"}
    # They are the agents that the number itself would have given.
    named = outcome(encoded, Case((DP,), changes={**ALIKE, "num_agents": 4}))
    assert torch.equal(found.tensors["agents"], named.tensors["agents"])
    assert not events_of(named, "agents", "more_agents")


def test_where_agents_differ_more_are_trained_as_if_they_were_named(
    encoded: EncodedDataset, many: Outcome
) -> None:
    decided = events_of(many, "agents", "more_agents")
    assert [e["event"] for e in decided[:-1]] == ["more_agents"] * (len(decided) - 1)
    k = decided[-1]["agents"]
    assert [e["agents"] for e in decided] == list(AUTO_AGENTS[: len(decided)])
    assert len(decided) > 1
    assert len(many.tensors["agents"]) == k
    changes = {**AUTO["auto"].changes, "num_agents": k}
    named = outcome(encoded, Case((DP,), AUTO["auto"].genome, changes))
    for key, tensor in named.tensors.items():
        assert torch.equal(many.tensors[key], tensor), key


@pytest.mark.parametrize("number", [1, 3, 5, 20])
def test_a_number_is_obeyed_exactly(encoded: EncodedDataset, number: int) -> None:
    config = brief(num_agents=float(number))
    assert config.agent_counts == (number,)
    case = Case((DP,), GENOME, {"num_agents": number, "steps": 30})
    assert len(outcome(encoded, case).tensors["agents"]) == number


def test_two_processes_decide_and_train_as_one_does(
    dataset: Path, many: Outcome, tmp_path: Path
) -> None:
    assert wait(start(2, str(dataset), str(tmp_path), "auto")) == [(0, "")] * 2
    result = load(tmp_path, "auto")
    assert result.events == many.events
    for key, tensor in many.tensors.items():
        assert torch.equal(result.tensors[key], tensor), key


def test_a_run_that_is_stopped_at_any_number_goes_on_to_the_same_bits(
    encoded: EncodedDataset, file_store: Store, many: Outcome
) -> None:
    # Twice among four agents, which come first, and once among the next.
    for at in (25, 45):
        stop(encoded, AUTO["auto"], at, saved(file_store, every=1))
    again = outcome(encoded, AUTO["auto"], checkpoints=saved(file_store, every=2))
    same(again, many)


def test_auto_survives_a_pipeline_s_parameters_and_is_its_own_digest() -> None:
    auto = TrainingConfig(num_agents="auto")
    again = TrainingConfig.from_params(json.loads(json.dumps(auto.to_params())))
    assert again == auto
    assert auto.digest != TrainingConfig().digest
